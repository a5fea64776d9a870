"""Face: `DataSetException` at its historic path."""

from libertem.exceptions import DataSetException

__all__ = ["DataSetException"]
