"""Files of a data set: where each frame lies."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.common.math import flat_nonzero, prod
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.ranges import ReadRanges, default_get_read_ranges

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["File", "FileSet", "FileTree", "OffsetsSizes", "PartedFileSet"]


class OffsetsSizes(NamedTuple):
    """How to cut a mapped file into frames."""

    file_offset: int
    """Bytes of the file header."""
    skip_end: int
    """Bytes to ignore at the end of the file."""
    frame_offset: int
    """Items (of the native dtype) to ignore at the start of each frame."""
    frame_size: int
    """Items per frame, without frame header and footer."""


class File:
    """Frames ``[start_idx, end_idx)`` of a data set, stored back to back in one file.

    Parameters
    ----------
    path : str
        Where the file is, as the workers see it.
    start_idx, end_idx : int
        Half-open range of image numbers.
    native_dtype : dtype
        As stored; ``uint8`` where pixels are packed.
    sig_shape : Shape or tuple of int
        Shape of one frame.
    frame_footer, frame_header, file_header : int
        Bytes to skip after each frame, before each frame, and once at the start.
    """

    def __init__(
        self,
        path: str,
        start_idx: int,
        end_idx: int,
        native_dtype: npt.DTypeLike,
        sig_shape: Shape | tuple[int, ...],
        frame_footer: int = 0,
        frame_header: int = 0,
        file_header: int = 0,
    ) -> None:
        self._path = path
        self._start_idx = int(start_idx)
        self._end_idx = int(end_idx)
        self._native_dtype = np.dtype(native_dtype)
        self._sig_shape = tuple(sig_shape)
        self._frame_footer = frame_footer
        self._frame_header = frame_header
        self._file_header = file_header

    @property
    def path(self) -> str:
        """Where the file is."""
        return self._path

    @property
    def start_idx(self) -> int:
        """First image of this file."""
        return self._start_idx

    @property
    def end_idx(self) -> int:
        """Image after the last one of this file."""
        return self._end_idx

    @property
    def num_frames(self) -> int:
        """Number of frames in this file."""
        return self._end_idx - self._start_idx

    @property
    def sig_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self._sig_shape

    @property
    def native_dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return self._native_dtype

    @property
    def file_header_bytes(self) -> int:
        """Bytes before the first frame."""
        return self._file_header

    @property
    def frame_stride_bytes(self) -> int:
        """Bytes from one frame to the next, header and footer included."""
        return prod(self._sig_shape) * self._native_dtype.itemsize + self._frame_header + self._frame_footer

    @property
    def min_file_bytes(self) -> int:
        """Size that the file needs for its last pixel to be there; the last footer may be missing."""
        return self._file_header + self.num_frames * self.frame_stride_bytes - self._frame_footer

    @property
    def frames_fit_items(self) -> bool:
        """Whether frame headers and footers have whole items, so that the file can be viewed as an array."""
        itemsize = self._native_dtype.itemsize
        return self._frame_header % itemsize == 0 and self._frame_footer % itemsize == 0

    def get_offsets_sizes(self, size: int) -> OffsetsSizes:
        """How to cut a file of `size` bytes into frames.

        Raises
        ------
        DataSetException
            If the file is too small for its frames.
        """
        itemsize = self._native_dtype.itemsize
        assert self.frames_fit_items
        expected = self._file_header + self.num_frames * self.frame_stride_bytes
        if size < expected:
            raise DataSetException(
                "the file is shorter than its frames",
                path=self._path,
                found=f"{size} bytes",
                expected=f"{expected} bytes for {self.num_frames} frames",
                hint="was it truncated after the data set was loaded?",
            )
        return OffsetsSizes(
            file_offset=self._file_header,
            skip_end=size - expected,
            frame_offset=self._frame_header // itemsize,
            frame_size=prod(self._sig_shape),
        )

    def get_array_from_memview(self, mem: memoryview, slicing: OffsetsSizes) -> npt.NDArray[Any]:
        """View `mem`, the whole file, as an array ``(num_frames, frame_size)`` of native dtype."""
        stop = len(mem) - slicing.skip_end
        payload = np.frombuffer(mem[slicing.file_offset : stop], dtype=np.uint8)
        frames = payload.view(self._native_dtype).reshape(self.num_frames, -1)
        frames = frames[:, slicing.frame_offset : slicing.frame_offset + slicing.frame_size]
        assert frames.shape == (self.num_frames, slicing.frame_size)
        return frames

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._start_idx}:{self._end_idx}>"


class FileTree:
    """Balanced search tree that finds the file of a frame.

    Parameters
    ----------
    low, high : int
        Half-open range of frames in this node.
    value : File
        The file of this node.
    idx : int
        Its index in the file set.
    left, right : FileTree or None
        Nodes with lower and higher frames.
    """

    def __init__(
        self, low: int, high: int, value: Any, idx: int, left: FileTree | None, right: FileTree | None
    ) -> None:
        if low >= high:
            raise ValueError("low should be < high")
        self.low = low
        self.high = high
        self.value = value
        self.idx = idx
        self.left = left
        self.right = right

    @classmethod
    def make(cls, files: Sequence[Any]) -> FileTree | None:
        """Build a tree from files sorted by `start_idx`. None if there are none."""
        return cls._make(list(enumerate(files)))

    @classmethod
    def _make(cls, files: list[tuple[int, Any]]) -> FileTree | None:
        if not files:
            return None
        mid = len(files) // 2
        idx, value = files[mid]
        return cls(
            low=value.start_idx,
            high=value.end_idx,
            value=value,
            idx=idx,
            left=cls._make(files[:mid]),
            right=cls._make(files[mid + 1 :]),
        )

    def search_start(self, value: int) -> tuple[int, Any]:
        """``(index, file)`` of the file that holds frame `value`.

        Raises
        ------
        IndexError
            If no file holds that frame.
        """
        node: FileTree | None = self
        while node is not None:
            if value < node.low:
                node = node.left
            elif value >= node.high:
                node = node.right
            else:
                return node.idx, node.value
        raise IndexError(f"no file holds frame {value}")

    def __repr__(self) -> str:
        return f"<FileTree {self.low}:{self.high}>"


class FileSet:
    """Files of a data set or partition, sorted by frame and without overlap.

    Parameters
    ----------
    files : list of File
        At least one.
    frame_header_bytes, frame_footer_bytes : int
        Bytes to skip before and after each frame, the same in all files.
    """

    def __init__(self, files: list[File], frame_header_bytes: int = 0, frame_footer_bytes: int = 0) -> None:
        assert len(files) > 0
        self._files = files
        self._frame_header_bytes = frame_header_bytes
        self._frame_footer_bytes = frame_footer_bytes
        self._starts: list[int] | None = None

    @property
    def parts(self) -> tuple[FileSet, ...]:
        """File sets that hold one part of each frame; just this one, unless frames are spread over files."""
        return (self,)

    def _find(self, frame: int) -> int:
        if self._starts is None:
            # Not a `FileTree`: there may be a million files, and a list is made in no time.
            self._starts = [file.start_idx for file in self._files]
        idx = bisect_right(self._starts, frame) - 1
        if idx < 0 or frame >= self._files[idx].end_idx:
            raise IndexError(f"no file holds frame {frame}")
        return idx

    def _clone(self, files: list[File]) -> FileSet:
        # A copy, so that whatever a subclass keeps besides its files travels along.
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone._files = files
        clone._starts = None
        return clone

    def get_for_range(self, start: int, stop: int) -> FileSet:
        """Files that hold frames from `start` to `stop`, both included."""
        files = []
        for file in self.files_from(start):
            if file.start_idx > stop:
                break
            files.append(file)
        return self._clone(files)

    def files_from(self, start: int) -> Iterator[File]:
        """The file that holds frame `start`, and all after it."""
        for idx in range(self._find(start), len(self._files)):
            yield self._files[idx]

    def get_as_arr(self) -> npt.NDArray[np.int64]:
        """Int64 array ``(n_files, 4)``: start_idx, end_idx, index in this set, file header bytes."""
        rows = [(f.start_idx, f.end_idx, i, f.file_header_bytes) for i, f in enumerate(self._files)]
        return np.array(rows, dtype=np.int64)

    def get_read_ranges(
        self,
        start_at_frame: int,
        stop_before_frame: int,
        dtype: npt.DTypeLike,
        tiling_scheme: TilingScheme,
        sync_offset: int = 0,
        roi: npt.NDArray[np.bool_] | None = None,
    ) -> ReadRanges:
        """Byte ranges that make up each tile; formats with other layouts override this.

        Frames are image numbers (sync offset included), `roi` refers to scan positions.
        See `default_get_read_ranges` for the result.
        """
        return default_get_read_ranges(
            start_at_frame=start_at_frame,
            stop_before_frame=stop_before_frame,
            roi_nonzero=None if roi is None else flat_nonzero(roi),
            depth=tiling_scheme.depth,
            slices_arr=tiling_scheme.slices_array,
            fileset_arr=self.get_as_arr(),
            sig_shape=tuple(tiling_scheme.dataset_shape.sig),
            bpp=np.dtype(dtype).itemsize * 8,
            sync_offset=sync_offset,
            frame_header_bytes=self._frame_header_bytes,
            frame_footer_bytes=self._frame_footer_bytes,
        )

    def __iter__(self) -> Iterator[File]:
        return iter(self._files)

    def __getitem__(self, idx: int) -> File:
        return self._files[idx]

    def __len__(self) -> int:
        return len(self._files)

    def __getstate__(self) -> dict[str, Any]:
        # Cheap to make again and large to send.
        return {**self.__dict__, "_starts": None}


class PartedFileSet(FileSet):
    """Files of frames that are spread over several files: each of these has a part of every frame.

    Iterating goes through all files, part by part.

    Parameters
    ----------
    parts : sequence of FileSet
        One for each part of a frame, all for the same frames. See `Packing.n_parts`.
    """

    def __init__(self, parts: Sequence[FileSet]) -> None:
        super().__init__([file for part in parts for file in part])
        self._parts = tuple(parts)

    @property
    def parts(self) -> tuple[FileSet, ...]:
        """One file set for each part of a frame."""
        return self._parts

    def get_for_range(self, start: int, stop: int) -> PartedFileSet:
        """Files that hold frames from `start` to `stop`, both included."""
        return PartedFileSet([part.get_for_range(start, stop) for part in self._parts])
