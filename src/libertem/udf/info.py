"""What a UDF will do, to be looked at in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libertem.common.html import Html, box, facts, table
from libertem.udf.describe import input_dtype
from libertem.udf.runner import UDFRunner

if TYPE_CHECKING:
    from libertem.common.buffers import BufferWrapper
    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF

__all__ = ["UDFInfo"]


@dataclass(frozen=True)
class UDFInfo:
    """Description of a UDF and its results, for one data set. Notebooks show it as tables."""

    title: str
    """Name of the class."""
    method: str
    """How it receives the data."""
    backends: tuple[str, ...]
    """Kinds of arrays that it can process, best first."""
    dtype: str
    """Preferred input dtype."""
    buffers: Mapping[str, BufferWrapper]
    """Results with their shapes."""

    @classmethod
    def of(cls, udf: UDF, dataset: DataSet, roi: Any = None) -> UDFInfo:
        """Ask a UDF. Nothing is read."""
        declared = UDFRunner.inspect_udf(udf=udf, dataset=dataset, roi=roi)
        backends = udf.get_backends()
        return cls(
            title=type(udf).__name__,
            method=udf.get_method().value,
            backends=(backends,) if isinstance(backends, str) else tuple(backends),
            dtype=input_dtype(udf),
            buffers={name: buffer for name, buffer in declared.items() if buffer.use != "private"},
        )

    def _repr_html_(self) -> str:
        general = [
            ("Processing method", self.method),
            ("Compute backends", ", ".join(self.backends)),
            ("Preferred input dtype", self.dtype),
        ]
        results = table(
            ("Name", "Kind", "Extra shape", "Concrete shape", "dtype"),
            [
                (name, buffer.kind, buffer.extra_shape, buffer.shape, buffer.dtype)
                for name, buffer in self.buffers.items()
            ],
        )
        note = Html('<div style="margin:8px 0 2px">Results, for this data set</div>')
        return box(self.title, facts(general), note, results)
