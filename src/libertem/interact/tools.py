"""What `Context.load` puts into a data set, so that it can be used directly.

Each wish is fulfilled by a module of its own, which is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["ContextTools"]


class ContextTools:
    """Works on data sets with a context; implements `libertem.io.dataset.base.interactive.Interactive`.

    Parameters
    ----------
    ctx : Context
        Kept alive by the data sets that it has opened.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def _open(self) -> Any:
        """The context, if it still can do something."""
        # Subclasses of other packages may have a constructor of their own.
        if getattr(self._ctx, "_closed", False):
            raise RuntimeError(
                "the Context that opened this data set has been closed "
                "(keep it open while you work with the data set, or load the data set with another one)"
            )
        return self._ctx

    def __reduce__(self) -> tuple[Any, ...]:
        # Data sets travel to workers, where there is no context: they arrive without.
        return _no_tools, ()

    def get(self, dataset: DataSet, key: Any) -> npt.NDArray[Any]:
        """``dataset[key]``."""
        from libertem.interact.indexing import get

        return get(self._open(), dataset, key)

    def as_array(self, dataset: DataSet, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
        """All of it."""
        from libertem.interact.indexing import as_array

        return as_array(self._open(), dataset, dtype)

    def reduce(
        self, dataset: DataSet, over: Literal["nav", "sig"], *, mean: bool, roi: Any, progress: Any
    ) -> npt.NDArray[Any]:
        """Sum or mean."""
        from libertem.interact.reductions import reduce

        return reduce(self._open(), dataset, over, mean=mean, roi=roi, progress=progress)

    def virtual_image(self, dataset: DataSet, mask: Any, **options: Any) -> npt.NDArray[Any]:
        """Virtual detector."""
        from libertem.interact.reductions import virtual_image

        return virtual_image(self._open(), dataset, mask, **options)

    def plot(self, dataset: DataSet, position: Any, **options: Any) -> Any:
        """Figure."""
        from libertem.interact.figure import plot

        return plot(self._open(), dataset, position, **options)

    def save(self, dataset: DataSet, path: Any, **options: Any) -> None:
        """File."""
        from libertem.interact.saving import save

        save(self._open(), dataset, path, **options)

    def to_dask(self, dataset: DataSet, **options: Any) -> Any:
        """Lazy array."""
        from libertem.interact.lazy import to_dask

        return to_dask(dataset, **options)

    def html(self, dataset: DataSet) -> str:
        """What a notebook shows."""
        from libertem.interact.html import html

        return html(self._ctx, dataset)


def _no_tools() -> None:
    return None
