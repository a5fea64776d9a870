"""Read one image of a DM3 or DM4 file of Digital Micrograph as a scan.

The file is a tree of tags, see `libertem.io.headers.dm`. The pixels of an image are one array without gaps,
at any byte of the file; more tags follow. Most files have two images: a thumbnail first, then the data.

What the axes mean, slowest first:

| content | axes as stored | order flag | navigation, signal |
|---------|----------------|------------|--------------------|
| image | y, x | | 1 frame, (y, x) |
| stack of images | z, y, x | | (z,), (y, x) |
| 4D-STEM, new | scan y, scan x, y, x | 1 | (scan y, scan x), (y, x) |
| 4D-STEM, old | y, x, scan y, scan x | missing or 0 | (scan y, scan x), (y, x); on request |
| spectra along a line | x, energy | | (x,), (energy,) |
| spectrum image, new | y, x, energy | 1 | (y, x), (energy,) |
| spectrum image, old | energy, y, x | missing or 0 | (y, x), (energy,); on request |

Those that are read only on request have all scan positions of one pixel together, so that each frame is
spread over the whole file, see `libertem.io.dataset.base.transposed`.
More than four axes are taken like four, with more navigation axes in front.

Sources: those of the tag parser. The new order of spectrum images is inferred from the meaning of the flag;
no file of that kind was available.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError, ShapeError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.base.transposable import DEFAULT_BYTES, TransposableDataSet, TransposableFacts
from libertem.io.dataset.base.transposed import TransposedLayout
from libertem.io.dataset.dm_single.files import read_images
from libertem.io.dataset.dm_single.metadata import read_metadata
from libertem.io.headers.dm.images import DMImage

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = [
    "DMDataSet",
    "DMDatasetParams",
    "DMFacts",
    "SingleDMDataSet",
    "inspect_file",
]

KNOWN_FORMATS = ("Spectrum image", "Image", "Diffraction image")


@dataclass(frozen=True, kw_only=True)
class DMFacts(TransposableFacts):
    """What one image of a file holds."""

    image: DMImage
    """The image that was chosen."""

    data_offset: int
    """Byte where its pixels start."""

    c_order: bool
    """Whether the signal axes are the fastest. If not, shapes are those of the axes as stored."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """All axes as stored, slowest first."""
        return self.image.dims[::-1]

    def transposed(self) -> DMFacts:
        """The same with the signal axes first, which are the slowest if the order is not C."""
        sig_dims = len(self.sig_shape)
        sig_shape = self.stored_shape[:sig_dims]
        nav_shape = self.stored_shape[sig_dims:] or (1,)
        layout = TransposedLayout(self.data_offset, self.dtype, nav_shape, sig_shape, is_reversed=False)
        return replace(
            self, nav_shape=nav_shape, sig_shape=sig_shape, image_count=prod(nav_shape), layout=layout
        )


def inspect_file(path: str, dataset_index: int | None = None) -> DMFacts:
    """Facts about the data in a file, whatever the order of their axes.

    Parameters
    ----------
    path : str
        The file.
    dataset_index : int, optional
        Which of the images; by default the first one that has at least two axes and is no thumbnail.

    Raises
    ------
    DataSetException
        If the file has no such image, or it cannot be read.
    """
    images = read_images(path)
    candidates = [image for image in images if len(image.dims) >= 2 and not image.is_thumbnail]
    image = _choose(images, candidates, dataset_index, path)
    dtype, data_offset = image.locate(path=path)
    c_order, sig_dims = _find_order(image, path)
    stored = image.dims[::-1]
    nav_shape = stored[: len(stored) - sig_dims] or (1,)
    notices = []
    if dataset_index is None and len(candidates) > 1:
        others = ", ".join(str(other.index) for other in candidates)
        notices.append(f"{path}: found several datasets ({others}): using the first; pass dataset_index")
    if image.has_tags and image.format not in KNOWN_FORMATS:
        known = ", ".join(KNOWN_FORMATS)
        found = "Unknown" if image.format is None else image.format[:100]
        notices.append(
            f"{path}: unrecognized format '{found}', expected one of {known}: the tags may be misread"
        )
    return DMFacts(
        dtype=dtype,
        image_count=prod(nav_shape),
        nav_shape=nav_shape,
        sig_shape=stored[len(stored) - sig_dims :],
        notices=tuple(notices),
        image=image,
        data_offset=data_offset,
        c_order=c_order,
    )


def _choose(
    images: tuple[DMImage, ...], candidates: list[DMImage], dataset_index: int | None, path: str
) -> DMImage:
    kinds = ", ".join(
        f"{image.index}: " + ("thumbnail" if image.is_thumbnail else f"shape {image.dims[::-1]}")
        for image in images[:20]
    )
    if not candidates:
        raise DataSetException(
            "unable to find any 2/3/4D datasets in the DM file", path=path, found=kinds or "no images"
        )
    if dataset_index is None:
        return candidates[0]
    for image in candidates:
        if image.index == dataset_index:
            return image
    raise DataSetException(
        f"dataset_index {dataset_index} is not the index of a 2/3/4D dataset",
        path=path,
        found=kinds,
        expected=f"one of {[image.index for image in candidates]}",
    )


def _find_order(image: DMImage, path: str) -> tuple[bool, int]:
    """Whether the signal axes are the fastest, and how many there are."""
    n_dims = len(image.dims)
    c_order, sig_dims = n_dims <= 3, 2
    if image.is_spectrum_image:
        if n_dims > 3:
            raise HeaderError(
                "spectrum images have two or three axes",
                path=path,
                found=f"the shape {image.dims[::-1]}",
                hint="the tags contradict each other; export the data in another format",
            )
        c_order, sig_dims = n_dims == 2, 1
    return c_order if image.order_flag is None else image.order_flag, sig_dims


class DMDatasetParams(FrameFileParams):
    """JSON parameters of DM files."""

    SCHEMA = FrameFileParams.make_schema("DM")


class DMDataSet(FrameFileDataSet):
    """Read DM3 and DM4 files: makes the data set that fits the arguments.

    A list of files as first argument or as `files` makes a `StackedDMDataSet`, anything else a
    `SingleDMDataSet`; see there for the other parameters.
    """

    _kinds: ClassVar[dict[str, type[DMDataSet]]] = {}
    # Filled by the subclasses: one of them is in a module that builds on this one.

    def __init_subclass__(cls, *, takes: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if takes is not None:
            DMDataSet._kinds[takes] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> DMDataSet:
        """An object of the subclass; of this class itself there are none."""
        if cls is DMDataSet:
            cls = DMDataSet._kinds[_kind_for(args, kwargs)]
        return super().__new__(cls)

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.dm3`` and ``.dm4``."""
        return {"dm3", "dm4"}

    @classmethod
    def get_msg_converter(cls) -> type[DMDatasetParams]:
        """Converter of JSON parameters."""
        return DMDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Extension, then tags. Spectrum images are refused, they are better read by other software."""
        check_extension(path, cls.get_supported_extensions())
        facts = executor.run_function(inspect_file, path)
        if facts.image.is_spectrum_image:
            raise DataSetException(
                "a spectrum image is not detected", path=path, hint='use ctx.load("dm", ...)'
            )
        nav_shape = facts.nav_shape if len(facts.nav_shape) > 1 else (1, *facts.nav_shape)
        answer = cls._detected(path, facts, nav_shape)
        answer["parameters"]["sync_offset"] = 0
        return answer


def _kind_for(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    if "path" in kwargs or "files" in kwargs:
        return "path" if "path" in kwargs else "files"
    return "files" if args and isinstance(args[0], list | tuple) else "path"


class SingleDMDataSet(TransposableDataSet, DMDataSet, takes="path"):
    """Read one image of a DM3 or DM4 file: 4D-STEM, stacks of images, line scans, single images.

    Digital Micrograph stores scans in two orders; the flag "Data Order Swapped" of the file tells which.
    Files without whole frames are read only if `transposed` asks for it, or after a conversion with
    `libertem.contrib.convert_transposed`.

    Parameters
    ----------
    path : str or path-like
        The file.
    nav_shape : sequence of int, optional
        Shape of the scan, by default as in the file. May have fewer scan positions, but not more.
    sig_shape : sequence of int, optional
        Shape of a frame, by default as in the file. Pixels are read in the order of the file in all cases: a
        frame of another size is no crop.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    force_c_order : bool
        Take the axes as stored, even if the file says that they are in the other order.
    dataset_index : int, optional
        Which image of the file, counted from 0, thumbnail included. By default the first one that can be
        read.
    num_partitions : int, optional
        Overrides the number of partitions.
    transposed : 'direct', optional
        Also read files that do not hold whole frames, by putting these together. `sig_shape` then has to have
        as many pixels as in the file. No effect on other files.
    transposed_bytes : int
        Memory in which frames are put together, per worker. More makes reading such files faster.

    Raises
    ------
    ValueError
        If both `force_c_order` and `transposed` are given, or one of the last two makes no sense.
    DataSetException
        If this is no DM3 or DM4 file, has no data that can be read, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("dm", path="scan.dm4")  # doctest: +SKIP
    """

    _facts: DMFacts | None

    def __init__(
        self,
        path: Any,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        force_c_order: bool = False,
        dataset_index: int | None = None,
        num_partitions: int | None = None,
        *,
        transposed: Literal["direct"] | None = None,
        transposed_bytes: int = DEFAULT_BYTES,
    ) -> None:
        super().__init__(
            path,
            nav_shape,
            sig_shape,
            sync_offset,
            io_backend,
            num_partitions,
            transposed=transposed,
            transposed_bytes=transposed_bytes,
        )
        if force_c_order and transposed is not None:
            raise ValueError("force_c_order and transposed contradict each other, found both")
        self._force_c_order = force_c_order
        self._dataset_index = None if dataset_index is None else operator.index(dataset_index)

    def _inspect(self) -> DMFacts:
        facts = inspect_file(self._path, self._dataset_index)
        if not facts.c_order and self._transposed is not None:
            return self._fit(facts.transposed())
        if not facts.c_order and not self._force_c_order:
            raise DataSetException(
                "cannot identify the DM file as C-ordered from its metadata: frames may be spread over it",
                path=self._path,
                found=f"axes {facts.stored_shape}, order flag {_flag_text(facts.image)}",
                expected="the flag 'Data Order Swapped'",
                hint="use transposed='direct' to put frames together while reading, or convert the file"
                " with libertem.contrib.convert_transposed; force_c_order=True reads the axes as they are",
            )
        return self._fit(facts)

    def _fit(self, facts: DMFacts) -> DMFacts:
        """Check the shapes that the user gave, and count the frames that there are with these."""
        if facts.layout is not None:
            self._fit_sig_shape(facts)
        nav_shape = facts.nav_shape if self._nav_shape is None else self._nav_shape
        if prod(nav_shape) > facts.image_count:
            raise ShapeError(
                "nav_shape has more scan positions than the file has frames",
                path=self._path,
                found=f"{nav_shape} = {prod(nav_shape)} positions",
                expected=f"{facts.image_count} at most",
                hint=f"leave nav_shape out to use {facts.nav_shape} from the file",
            )
        if self._sig_shape is None:
            return facts
        file_px, sig_px = facts.image_count * prod(facts.sig_shape), prod(self._sig_shape)
        if sig_px * prod(nav_shape) > file_px:
            raise ShapeError(
                "sig_shape and nav_shape have more pixels than the file",
                path=self._path,
                found=f"{nav_shape} x {self._sig_shape} = {sig_px * prod(nav_shape)} px",
                expected=f"{file_px} px at most",
                hint=f"leave sig_shape out to use {facts.sig_shape} from the file",
            )
        return replace(facts, image_count=min(facts.image_count, file_px // sig_px))

    def _fit_sig_shape(self, facts: FrameFacts) -> tuple[int, ...]:
        if self._sig_shape is None or (isinstance(facts, DMFacts) and facts.layout is not None):
            return super()._fit_sig_shape(facts)
        # Has been checked on the worker: another number of pixels is allowed here.
        return self._sig_shape

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        facts = self._facts
        return read_metadata(
            self._path,
            facts.image.index,
            sig_dims=len(facts.sig_shape),
            is_transposed=facts.layout is not None,
        )

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        if self._facts.layout is not None:
            return self._transposed_fileset(self._facts.layout)
        file = File(
            path=self._path,
            start_idx=0,
            end_idx=self._image_count,
            native_dtype=self._facts.dtype,
            sig_shape=self.shape.sig,
            file_header=self._facts.data_offset,
        )
        return FileSet([file])

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, and what the tags say."""
        assert self._facts is not None
        image = self._facts.image
        return [
            *super().get_diagnostics(),
            {"name": "DM version", "value": image.version},
            {"name": "Dataset index", "value": image.index},
            {"name": "DataType", "value": str(image.data_type)},
            {"name": "Format", "value": image.format or "not given"},
            {"name": "Data Order Swapped", "value": _flag_text(image)},
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """What all file formats have, and where the pixels start."""
        assert self._facts is not None
        return {**super().get_cache_key(), "offset": self._facts.data_offset}

    def __repr__(self) -> str:
        name = f"<DMFileDataset {self._path}>"
        return name if self._meta is None else f"{name} - {self.shape}"


def _flag_text(image: DMImage) -> str:
    return "not given" if image.order_flag is None else str(int(image.order_flag))
