"""Do nothing with all data, for example to measure how fast it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libertem.common.buffers import BufferWrapper
from libertem.udf.contract import UDF

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["NoOpUDF"]


class NoOpUDF(UDF):
    """Receive tiles and do nothing with them.

    Parameters
    ----------
    preferred_input_dtype : dtype
        Preferred input dtype; by default that of the data set.
    """

    def __init__(self, preferred_input_dtype: npt.DTypeLike = bool) -> None:
        super().__init__(preferred_input_dtype=preferred_input_dtype)

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """As given to the constructor."""
        preferred: npt.DTypeLike = self.params.preferred_input_dtype
        return preferred

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """No results."""
        return {}

    def process_tile(self, tile: Any) -> None:
        """Nothing."""
