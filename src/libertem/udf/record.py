"""Save a data set as NumPy file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import prod
from libertem.common.new_file import complete_or_nothing
from libertem.udf.contract import UDF

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["RecordUDF", "export_npy"]


class RecordUDF(UDF):
    """Write all frames to a ``.npy`` file, in the shape and the native dtype of the data set.

    The file is created when the run starts; an existing one is overwritten. All workers write to it and
    therefore need to share its file system. Positions that have no frame are zero.

    Parameters
    ----------
    filename : str or path-like
        The file.

    Raises
    ------
    RuntimeError
        When it is run with a ROI.
    """

    def __init__(self, filename: str | os.PathLike[str]) -> None:
        super().__init__(filename=filename)

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """Native."""
        return self.USE_NATIVE_DTYPE

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """No results beside the file."""
        return {}

    def preprocess(self) -> None:
        """Create the file, on the main process."""
        if self.meta.slice is not None:
            return
        if self.meta.roi is not None:
            raise RuntimeError("Recording with ROI is not supported.")
        np.lib.format.open_memmap(
            self.params.filename,
            mode="w+",
            dtype=self.meta.input_dtype,
            shape=self.meta.dataset_shape.to_tuple(),
        )

    def get_task_data(self) -> dict[str, Any]:
        """The file, in memory, with a flat navigation axis."""
        frames = np.lib.format.open_memmap(self.params.filename, mode="r+")
        return {"frames": frames.reshape(self.meta.dataset_shape.flatten_nav().to_tuple())}

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Write a tile."""
        assert self.meta.slice is not None
        self.meta.slice.get(self.task_data.frames)[...] = tile


def export_npy(
    ctx: Any, dataset: Any, *, path: str | os.PathLike[str], progress: Any = False, overwrite: bool = False
) -> None:
    """Write a data set to a new file, see `libertem.api.Context.export_dataset`."""
    target = os.fspath(path)
    suffix = os.path.splitext(target)[1]
    if suffix.lower() != ".npy":
        raise ValueError(f"Unrecognized file extension {suffix} only .npy is currently supported.")
    if os.path.exists(target) and not overwrite:
        raise FileExistsError(
            f"Cannot export dataset to existing path {target} (use overwrite=True to replace the file)"
        )
    # Beside the target, which may be the very file that the data set is read from.
    n_bytes = prod(dataset.shape) * np.dtype(dataset.dtype).itemsize
    with complete_or_nothing(target, n_bytes, overwrite=overwrite) as unfinished:
        ctx.run_udf(dataset=dataset, udf=RecordUDF(unfinished), progress=progress)
