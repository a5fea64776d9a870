"""What the frames of a data set look like, found out in a moment.

Some frames are read in a thread. When the time is over, what is there is shown, be it nothing: whoever looks
at a data set does not want to wait for a slow disk, for the network, or for a chunk that is compressed.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from libertem.common.math import prod
from libertem.common.taskcomm import NoopCommHandler
from libertem.interact.recipe import type_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["mean_of_some"]

SECONDS = 0.15
"""For reading. Drawing the picture takes some hundredths more."""

N_FRAMES = 9

LARGEST_FRAME_BYTES = 64 << 20
"""Reading one that is larger takes too long anyway, and the thread would go on with it."""

_known: WeakKeyDictionary[Any, npt.NDArray[np.float64]] = WeakKeyDictionary()
"""By data set; pictures that came too late once are there when it is looked at again."""


def mean_of_some(dataset: DataSet, seconds: float = SECONDS) -> npt.NDArray[np.float64] | None:
    """Mean of a few frames, spread over the scan.

    Parameters
    ----------
    dataset : DataSet
        Initialized.
    seconds : float, optional
        Give up after that time. It is kept whatever the data set does.

    Returns
    -------
    numpy.ndarray or None
        Of signal shape. None if no frame could be read in time, and for data that is not there before
        somebody starts an acquisition or a computation.
    """
    try:
        if dataset in _known:
            return _known[dataset]
        if not _lies_there(dataset):
            return None
    except Exception:  # a picture is not worth an error
        return None
    sampler = _Sampler(dataset, time.monotonic() + seconds)
    sampler.start()
    sampler.join(seconds)
    return sampler.mean()


def _lies_there(dataset: DataSet) -> bool:
    """Whether frames can be read without setting anything in motion: live data and lazy arrays cannot."""
    name = type_name(dataset)
    return (
        name is not None
        and name != "dask"
        and dataset.meta is not None
        and isinstance(dataset.get_task_comm_handler(), NoopCommHandler)
        and prod(dataset.shape.sig) * np.dtype(dataset.dtype).itemsize <= LARGEST_FRAME_BYTES
    )


class _Sampler(threading.Thread):
    """Reads frames until it has enough or the time is over."""

    def __init__(self, dataset: DataSet, deadline: float) -> None:
        # A daemon: a file that does not answer must not keep Python from ending.
        super().__init__(name="libertem-thumbnail", daemon=True)
        self._dataset = dataset
        self._deadline = deadline
        self._lock = threading.Lock()
        self._total: npt.NDArray[np.float64] | None = None
        self._n_read = 0

    def run(self) -> None:
        try:
            self._read()
        except Exception:  # a picture is not worth an error
            return
        mean = self.mean()
        if mean is not None:
            _known[self._dataset] = mean

    def _read(self) -> None:
        dataset = self._dataset
        nav_shape = dataset.shape.nav.to_tuple()
        n_positions = prod(nav_shape)
        with warnings.catch_warnings():
            # About how the data are cut, which has nothing to do with looking at them.
            warnings.simplefilter("ignore")
            partitions = list(dataset.get_partitions())
        corrections = dataset.get_correction_data()
        for position in _spread(n_positions, N_FRAMES):
            roi = np.zeros(n_positions, dtype=bool)
            roi[position] = True
            for partition in partitions:
                start = partition.slice.origin[0]
                if start <= position < start + partition.slice.shape[0]:
                    partition.set_corrections(corrections)
                    tile = partition.get_macrotile(
                        dest_dtype=_dtype(dataset), roi=roi.reshape(nav_shape), array_backend="numpy"
                    )
                    self._add(np.asarray(tile.data))
                    break
            # At least one, however long it takes: it will be there when somebody looks again.
            if time.monotonic() > self._deadline:
                return

    def _add(self, frames: npt.NDArray[Any]) -> None:
        # Blanks that the sync offset has put in are not delivered.
        if not len(frames):
            return
        frame = np.abs(frames[0]) if np.iscomplexobj(frames) else np.asarray(frames[0], dtype=np.float64)
        with self._lock:
            self._total = frame if self._total is None else self._total + frame
            self._n_read += 1

    def mean(self) -> npt.NDArray[np.float64] | None:
        """Of what has been read so far; None if that is nothing."""
        with self._lock:
            return None if self._total is None else self._total / self._n_read


def _dtype(dataset: DataSet) -> np.dtype[Any]:
    """Corrections need floats."""
    native = np.dtype(dataset.dtype)
    corrected = dataset.get_correction_data().have_corrections()
    return np.result_type(native, np.float32) if corrected else native


def _spread(n_positions: int, n_wanted: int) -> list[int]:
    """Some positions; the first is the middle, and any first part of them is spread, too."""
    wanted = min(n_positions, n_wanted)
    # Steps of the golden ratio leave no part of the scan out for long.
    order = sorted(range(wanted), key=lambda i: (i - wanted // 2) * 0.6180339887 % 1)
    return [(2 * i + 1) * n_positions // (2 * wanted) for i in order]
