"""The data set class for K2IS files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import make_2D_square, prod
from libertem.common.slice import Slice
from libertem.exceptions import HeaderError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.files import File, FileSet, PartedFileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, FrameFileParams
from libertem.io.dataset.base.metadata import Metadata, plain_header
from libertem.io.dataset.base.packing import Packing
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.scan import make_partition_slices
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.k2is.alignment import Alignment, align
from libertem.io.dataset.k2is.blocks import (
    BLOCK_BYTES,
    BLOCK_HEADER_BYTES,
    BLOCK_SHAPE,
    BLOCKS_PER_FRAME,
    FRAME_SHAPE,
    N_SECTORS,
    SECTOR_BYTES,
    Sector,
    header_fields,
)
from libertem.io.dataset.k2is.files import TagsTooLongError, find_files, read_scan_shape, read_tags
from libertem.io.headers.dm import tags_to_dict

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import ExecutorProtocol

__all__ = ["K2ISDataSet", "K2ISDatasetParams"]

PIXEL_DTYPE = np.dtype(np.uint16)

TAGS_PROBE_BYTES = 24 << 10
"""What detection may spend on tags; alignment takes up to 40 KiB of the 64."""


@dataclass(frozen=True, kw_only=True)
class K2ISFacts(FrameFacts):
    """What the files of a recording hold."""

    sectors: tuple[str, ...]
    """The ``.bin`` files, from left to right."""

    alignment: Alignment
    """Where the frames lie."""

    late_frames: int
    """How many frames too late the shutter flag is set."""

    @property
    def n_active(self) -> int:
        """Number of frames from the first one with the shutter flag on."""
        return self.image_count - (self.alignment.first_active or 0)

    @property
    def start_frame(self) -> int:
        """First frame of the scan."""
        return self.sync_offset - self.late_frames


def align_files(paths: tuple[str, ...], *, search: bool) -> Alignment:
    """Align the files of all sectors; see `Sector` for `search`."""
    with ExitStack() as stack:
        files = [stack.enter_context(RawFile(path)) for path in paths]
        return align([Sector(file, search=search) for file in files])


def make_facts(
    sectors: tuple[str, ...], scan_shape: tuple[int, int] | None, alignment: Alignment
) -> K2ISFacts:
    """Facts about a scan or, without `scan_shape`, a time series."""
    n_frames, first_active = alignment.image_count, alignment.first_active or 0
    # In scans, the flag is set one frame late. A recording of a single frame has no room for that.
    late_frames = int(scan_shape is not None and n_frames > 1)
    # If it is set in all frames, the one before the first of them was not recorded.
    sync_offset = max(first_active, late_frames)
    return K2ISFacts(
        dtype=PIXEL_DTYPE,
        image_count=n_frames,
        nav_shape=(n_frames - first_active,) if scan_shape is None else scan_shape,
        sig_shape=FRAME_SHAPE,
        sync_offset=sync_offset,
        notices=tuple(_notices(sectors[0], alignment)),
        sectors=sectors,
        alignment=alignment,
        late_frames=late_frames,
    )


def _notices(path: str, alignment: Alignment) -> Iterator[str]:
    if alignment.first_active is None:
        yield f"{path}: no frame has the shutter flag, the first frame is taken for the start of the scan"
    if alignment.lost_blocks:
        n_frames = alignment.lost_blocks / BLOCKS_PER_FRAME
        yield f"{path}: the camera lost {n_frames:g} frames during recording; those behind them move up"


def inspect_files(path: str) -> K2ISFacts:
    """Facts about the recording to which a file belongs."""
    files = find_files(path)
    scan_shape = read_scan_shape(files.tags)
    return make_facts(files.sectors, scan_shape, align_files(files.sectors, search=True))


def recognize_files(path: str) -> tuple[K2ISFacts, dict[str, Any]]:
    """Facts about a recording, and parameters besides those that all formats have.

    Files that start within a block are not recognized: the next one would have to be searched for. A scan
    shape behind long tags is left for loading to find.
    """
    files = find_files(path)
    alignment = align_files(files.sectors, search=False)
    try:
        scan_shape = read_scan_shape(files.tags, max_bytes=TAGS_PROBE_BYTES)
    except TagsTooLongError:
        return make_facts(files.sectors, None, alignment), {}
    facts = make_facts(files.sectors, scan_shape, alignment)
    nav_shape = facts.nav_shape if scan_shape is not None else make_2D_square(facts.nav_shape)
    return facts, {"nav_shape": nav_shape, "sync_offset": facts.sync_offset}


@cache
def _unpack_sector() -> Callable[..., None]:
    # Here, because it imports numba, which takes longer than most loads. Cached, because even the import of
    # what is there would take as long as decoding a few rows.
    from libertem.io.dataset.k2is.kernels import unpack_sector

    return unpack_sector


class K2ISPacking(Packing):
    """How pixels are packed: see `blocks`."""

    def __init__(self) -> None:
        super().__init__(PIXEL_DTYPE, FRAME_SHAPE, SECTOR_BYTES, N_SECTORS)

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        """Decode rows of one sector of some frames."""
        _unpack_sector()(part, stored, starts, first_row, out)


class K2ISPartition(BasePartition):
    """Partition that accepts tiles of whole blocks only."""

    def validate_tiling_scheme(self, tiling_scheme: TilingScheme) -> None:
        """Refuse tiles that are not made of blocks; frames of another shape have none."""
        if tiling_scheme.dataset_shape.sig.to_tuple() != FRAME_SHAPE:
            return
        shape = tuple(tiling_scheme.shape)
        if any(extent % block for extent, block in zip(shape[1:], BLOCK_SHAPE, strict=True)):
            raise ValueError(
                f"Invalid tiling scheme: needs to be aligned to blocksize {BLOCK_SHAPE}, found {shape}"
            )


def read_metadata(path: str, sector: str, first_offset: int) -> Metadata:
    """First block header of the first sector, and all tags: no meaning of any of them is documented.

    Raises
    ------
    DataSetException
        If the files are gone.
    """
    raw = np.empty(BLOCK_HEADER_BYTES, dtype=np.uint8)
    with RawFile(sector) as file:
        file.read_into(raw, first_offset)
    try:
        tags = tags_to_dict(read_tags(find_files(path).tags))
    except HeaderError:
        # Loading has looked at the scan shape only, and jumped over damage elsewhere.
        tags = {}
    return Metadata(header=plain_header({"block header": header_fields(raw.tobytes()), "gtg": tags}))


class K2ISDatasetParams(FrameFileParams):
    """JSON parameters of K2IS files."""

    SCHEMA = FrameFileParams.make_schema("K2IS")


class K2ISDataSet(FrameFileDataSet):
    """Read raw data of K2 IS cameras: eight ``.bin`` files and a ``.gtg`` file, scans and time series.

    The files are aligned with each other first: frames that are not whole in all of them do not count.

    Parameters
    ----------
    path : str or path-like
        One of the nine files.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes. By default that of the ``.gtg`` file, which includes fly-back
        columns, or the number of frames of a time series. Frames that were not recorded are blank.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as a frame has, which is (1860, 2048).
    sync_offset : int, optional
        Which frame is the first one with the shutter flag, counted from the first whole one; found in the
        files by default. Scans start one frame before. Frames that this puts before the recording are blank.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If the files are not complete, cannot be aligned, or the parameters do not fit them.

    Examples
    --------
    >>> ds = ctx.load("k2is", path="Capture52_.gtg")  # doctest: +SKIP
    """

    _facts: K2ISFacts | None
    partition_class = K2ISPartition

    def __init__(
        self,
        path: Any,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = None,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.gtg`` and ``.bin``."""
        return {"gtg", "bin"}

    @classmethod
    def get_msg_converter(cls) -> type[K2ISDatasetParams]:
        """Converter of JSON parameters."""
        return K2ISDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Names and number of the files, then their alignment."""
        facts, parameters = executor.run_function(recognize_files, path)
        answer = cls._detected(path, facts, facts.nav_shape)
        del answer["parameters"]["nav_shape"]
        answer["parameters"].update(parameters)
        return answer

    def _inspect(self) -> K2ISFacts:
        facts = inspect_files(self._path)
        n_positions, n_frames = prod(facts.nav_shape), facts.image_count - facts.start_frame
        if n_positions <= n_frames or self._nav_shape is not None or self._sync_offset is not None:
            return facts
        lack = f"{self._path}: the scan has {n_positions} positions, the files hold {n_frames} frames of it"
        return replace(facts, notices=(*facts.notices, f"{lack}: the others are blank"))

    def _get_packing(self) -> K2ISPacking:
        return K2ISPacking()

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        first_offset = self._facts.alignment.first_offsets[0]
        return read_metadata(self._path, self._facts.sectors[0], first_offset)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        offsets = self._facts.alignment.first_offsets
        parts = [
            FileSet([File(path, 0, self._image_count, np.uint8, (SECTOR_BYTES,), file_header=offset)])
            for path, offset in zip(self._facts.sectors, offsets, strict=True)
        ]
        return PartedFileSet(parts)

    @property
    def _first_image(self) -> int:
        """Frame at the first scan position; negative if that is blank."""
        assert self._facts is not None
        assert self._sync_offset is not None
        return self._sync_offset - self._facts.late_frames

    def get_slices(self) -> Iterator[tuple[Slice, int, int]]:
        """Place, first frame and frame after the last one, for each partition."""
        yield from make_partition_slices(self.shape, self.get_num_partitions(), self._first_image)

    def get_partitions(self) -> Iterator[BasePartition]:
        """All partitions in order."""
        # To users, `sync_offset` is the frame with the shutter flag. Partitions count from the frame shown.
        meta = copy.copy(self._initialized())
        meta.sync_offset = self._first_image
        for partition in super().get_partitions():
            partition.meta = meta
            yield partition

    def get_base_shape(self, roi: npt.NDArray[np.bool_] | None) -> tuple[int, ...]:
        """A block; a row if the frames were given another shape."""
        if self.shape.sig.to_tuple() != FRAME_SHAPE:
            return super().get_base_shape(roi)
        return (1, *BLOCK_SHAPE)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Where the frames lie in the files, before and after the alignment.

        Of an explicit `sync_offset` they know nothing.
        """
        assert self._facts is not None
        alignment = self._facts.alignment
        firsts = [offset + self._facts.start_frame * SECTOR_BYTES for offset in alignment.first_offsets]
        last_block = alignment.image_count * SECTOR_BYTES - BLOCK_BYTES
        lasts = [offset + last_block for offset in alignment.first_offsets]
        facts = {
            "first block offsets for all sectors": ", ".join(map(str, firsts)),
            "last block offsets for all sectors": ", ".join(map(str, lasts)),
            "number of frames before sync (from first sector)": alignment.image_count,
            "number of frames after sync (from first sector)": self._facts.n_active,
            "first frame id before sync (from first sector)": alignment.frame_ids[0],
            "first frame id after sync (from first sector)": alignment.start_frame_ids[
                -1 - self._facts.late_frames
            ],
            "last frame id before sync (from first sector)": alignment.frame_ids[1],
            "last frame id after sync (from first sector)": alignment.last_frame_id,
        }
        return [{"name": name, "value": str(value)} for name, value in facts.items()]
