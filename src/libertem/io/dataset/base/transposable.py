"""Data sets in one file that may be transposed, which only the user can ask for; see `transposed`."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from libertem.exceptions import UnsupportedBackendError
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet
from libertem.io.dataset.base.transposed import (
    LONG_RUN,
    TransposedFileSet,
    TransposedLayout,
    TransposedPartition,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from libertem.common.protocols import CorrectionsProtocol, ExecutorProtocol
    from libertem.io.dataset.base.backends.contract import IOBackend

__all__ = ["DEFAULT_BYTES", "TransposableDataSet", "TransposableFacts"]

DEFAULT_BYTES = 256 << 20
"""Memory per worker in which frames are put together."""


@dataclass(frozen=True, kw_only=True)
class TransposableFacts(FrameFacts):
    """What a file holds that may be transposed."""

    layout: TransposedLayout | None = None
    """Where pixels are in a transposed file; None if it holds whole frames."""


class TransposableDataSet(FrameFileDataSet):
    """Data set in one file that may be transposed, which only the user can ask for.

    A format gives the layout in its facts, and a `TransposedFileSet`.

    Parameters
    ----------
    path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions
        As for `FrameFileDataSet`.
    transposed : 'direct', optional
        How to read a transposed file.
    transposed_bytes : int
        Memory in which frames are put together, per worker.

    Raises
    ------
    ValueError
        If one of the last two makes no sense.
    """

    _facts: TransposableFacts | None

    def __init__(
        self,
        path: Any,
        nav_shape: Any,
        sig_shape: Any,
        sync_offset: int | None,
        io_backend: IOBackend | None,
        num_partitions: int | None,
        *,
        transposed: Literal["direct"] | None,
        transposed_bytes: int,
    ) -> None:
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        if transposed not in (None, "direct"):
            raise ValueError(f"transposed has to be None or 'direct', found {transposed!r}")
        self._transposed = transposed
        self._transposed_bytes = operator.index(transposed_bytes)
        if self._transposed_bytes < 1:
            raise ValueError(f"transposed_bytes has to be positive, found {transposed_bytes}")

    @property
    def _layout(self) -> TransposedLayout | None:
        return None if self._facts is None else self._facts.layout

    def initialize(self, executor: ExecutorProtocol) -> TransposableDataSet:
        """Read headers on a worker and set up `meta`."""
        super().initialize(executor)
        if self._layout is not None:
            self.partition_class = TransposedPartition
            backend = self.get_io_backend()
            if backend.get_impl().block_source() is None:
                raise UnsupportedBackendError(
                    "transposed files need one of the library's own I/O backends",
                    path=self._path,
                    found=backend,
                )
        return self

    def _transposed_fileset(self, layout: TransposedLayout) -> TransposedFileSet:
        return TransposedFileSet(self._path, layout, self._transposed_bytes)

    def get_num_partitions(self) -> int:
        """As usual, but where planes are short no more than there are workers, for the sake of long reads."""
        n = super().get_num_partitions()
        if self._layout is None or self._user_num_partitions is not None:
            return n
        return max(min(n, self._layout.plane_bytes // LONG_RUN), self._cores)

    def need_decode(
        self,
        read_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        corrections: CorrectionsProtocol | None,
    ) -> bool:
        """Transposed pixels are always copies."""
        return self._layout is not None or super().need_decode(read_dtype, roi, corrections)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """What all file formats have, and whether the file is transposed."""
        facts = super().get_diagnostics()
        if self._layout is not None:
            facts.append({"name": "Order of axes", "value": "transposed, frames are put together"})
        return facts

    def get_cache_key(self) -> dict[str, Any]:
        """What all file formats have, and whether the file is transposed."""
        key = super().get_cache_key()
        return key if self._layout is None else {**key, "transposed": True}
