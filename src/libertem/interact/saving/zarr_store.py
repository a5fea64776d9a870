"""Zarr: a folder with one file per chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from libertem.common.new_file import complete_folder_or_nothing
from libertem.interact.saving.chunks import check_chunks, default_chunks
from libertem.interact.saving.contract import Box, Output, Put, Writer, in_usual_unit

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ZarrWriter"]

COMPRESSIONS = ("gzip", "zstd", "lz4", "blosc")


class ZarrWriter(Writer):
    """Zarr format 2, which all programs read; one array, with names of axes as xarray has them.

    Parameters
    ----------
    output : Output
        What will be written.
    compression : str, optional
        ``'gzip'``, ``'zstd'``, ``'lz4'``, ``'blosc'``; none by default.
    chunks : tuple of int, optional
        Whole frames by default.
    """

    options = ("compression", "chunks")

    def __init__(self, output: Output, compression: str | None = None, chunks: Any = None) -> None:
        super().__init__(output)
        try:
            import_module("zarr")
            numcodecs: Any = import_module("numcodecs")
        except ImportError as err:
            raise ImportError(
                "saving Zarr folders needs the package zarr (pip install zarr, or libertem[save])"
            ) from err
        if compression is not None and compression not in COMPRESSIONS:
            raise ValueError(
                f"compression of Zarr: found {compression!r}, "
                f"expected None or one of {', '.join(COMPRESSIONS)}"
            )
        codecs: dict[str, Any] = {
            "gzip": numcodecs.GZip,
            "zstd": numcodecs.Zstd,
            "lz4": numcodecs.LZ4,
            "blosc": numcodecs.Blosc,
        }
        self._compressor = None if compression is None else codecs[compression]()
        self._chunks = default_chunks(output) if chunks is None else check_chunks(chunks, output)

    @property
    def granularity(self) -> tuple[int, ...]:
        """No chunk is written twice."""
        return self._chunks[: len(self.output.nav_shape)]

    @property
    def min_bytes(self) -> int:
        """Unknown if compressed."""
        return self.output.n_bytes if self._compressor is None else 0

    @contextmanager
    def new_target(self, target: str, *, overwrite: bool) -> Iterator[str]:
        """A folder."""
        with complete_folder_or_nothing(target, self.min_bytes, overwrite=overwrite) as path:
            yield path

    @contextmanager
    def open(self, path: str) -> Iterator[Put]:
        """An array in the root."""
        # Untyped: the arguments of versions 2 and 3 differ.
        zarr: Any = import_module("zarr")
        new = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
        array: Any = zarr.open_array(
            store=path,
            mode="w",
            shape=self.output.shape,
            chunks=self._chunks,
            dtype=self.output.dtype,
            compressor=self._compressor,
            fill_value=0,
            **new,
        )
        usual = [in_usual_unit(axis) for axis in self.output.axes]
        array.attrs.update(
            {
                "_ARRAY_DIMENSIONS": [axis.name for axis in self.output.axes],
                "scale": [step for step, _, _ in usual],
                "offset": [offset for _, offset, _ in usual],
                "units": [unit for _, _, unit in usual],
                "libertem": self.output.description(),
            }
        )

        def put(box: Box, frames: npt.NDArray[Any]) -> None:
            array[box] = frames

        yield put
