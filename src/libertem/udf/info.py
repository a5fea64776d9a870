"""What a UDF will do, to be looked at in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

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
        dtype = udf.get_preferred_input_dtype()
        return cls(
            title=type(udf).__name__,
            method=udf.get_method().value,
            backends=(backends,) if isinstance(backends, str) else tuple(backends),
            dtype="native" if dtype is udf.USE_NATIVE_DTYPE else str(np.dtype(dtype)),
            buffers={name: buffer for name, buffer in declared.items() if buffer.use != "private"},
        )

    def _repr_html_(self) -> str:
        general = {
            "Processing method": self.method,
            "Compute backends": ", ".join(self.backends),
            "Preferred input dtype": self.dtype,
        }
        facts = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in general.items()
        )
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in self._row(name)) + "</tr>"
            for name in self.buffers
        )
        heads = "".join(
            f"<th>{name}</th>" for name in ("Name", "Kind", "Extra shape", "Concrete shape", "dtype")
        )
        return (
            f"<h2>{escape(self.title)}</h2>"
            f"<h3>General</h3><table><tbody>{facts}</tbody></table>"
            "<h3>Result types</h3><p>Note: these may vary with different data sets</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _row(self, name: str) -> tuple[Any, ...]:
        buffer = self.buffers[name]
        return name, buffer.kind, buffer.extra_shape, buffer.shape, buffer.dtype
