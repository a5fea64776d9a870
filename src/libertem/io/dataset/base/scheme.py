"""`TilingScheme`: how frames are cut into tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from libertem.common.shape import Shape
from libertem.common.slice import Slice

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import PartitionProtocol

__all__ = ["TilingIntent", "TilingScheme"]

TilingIntent: TypeAlias = Literal["partition", "frame", "tile"] | None


class TilingScheme:
    """Signal slices and a depth, the same for all partitions of a run.

    Parameters
    ----------
    slices : list of Slice
        Signal-only slices that cover a frame.
    tileshape : Shape
        Regular shape of the tiles, with a flat navigation axis. Tiles at borders can be smaller.
    dataset_shape : Shape
        Shape of the whole data set.
    intent : {'partition', 'frame', 'tile'}, optional
        What the tiles will be used for.
    debug : dict, optional
        Intermediate results of the negotiation.
    """

    def __init__(
        self,
        slices: list[Slice],
        tileshape: Shape,
        dataset_shape: Shape,
        intent: TilingIntent = None,
        debug: Any = None,
    ) -> None:
        if tileshape.nav.dims != 1:
            raise ValueError(f"tileshape should have flat navigation dimensions, found {tileshape}")
        self._slices = slices
        self._tileshape = tileshape
        self._dataset_shape = dataset_shape
        self._intent = intent
        self._debug = {} if debug is None else debug

    @classmethod
    def make_for_shape(
        cls, tileshape: Shape, dataset_shape: Shape, intent: TilingIntent = None, debug: Any = None
    ) -> TilingScheme:
        """Cut frames of `dataset_shape` into a grid of `tileshape`, in C order."""
        frame = Slice.from_shape(dataset_shape.sig, sig_dims=dataset_shape.sig.dims)
        return cls(
            slices=list(frame.subslices(tuple(tileshape.sig))),
            tileshape=tileshape,
            dataset_shape=dataset_shape,
            intent=intent,
            debug=debug,
        )

    def adjust_for_partition(self, partition: PartitionProtocol) -> TilingScheme:
        """With the intent ``'partition'``, a scheme as deep as the partition; otherwise this one."""
        n_frames = partition.shape[0]
        if self._intent != "partition" or self.depth == n_frames:
            return self
        return TilingScheme(
            slices=self._slices,
            tileshape=Shape((n_frames, *self._tileshape.sig), sig_dims=self._tileshape.sig.dims),
            dataset_shape=self._dataset_shape,
            intent=self._intent,
            debug=self._debug,
        )

    @property
    def slices(self) -> list[tuple[int, Slice]]:
        """``(index, signal slice)`` pairs."""
        return list(enumerate(self._slices))

    @property
    def slices_array(self) -> npt.NDArray[np.int64]:
        """Int64 array ``(n, 2, sig_dims)``: origin and shape of each signal slice."""
        return np.array([(s.origin, s.shape.to_tuple()) for s in self._slices], dtype=np.int64)

    @property
    def shape(self) -> Shape:
        """Regular shape of the tiles."""
        return self._tileshape

    @property
    def dataset_shape(self) -> Shape:
        """Shape of the whole data set."""
        return self._dataset_shape

    @property
    def depth(self) -> int:
        """Frames per tile."""
        return self._tileshape.nav[0]

    @property
    def intent(self) -> TilingIntent:
        """What the tiles will be used for."""
        return self._intent

    def __getitem__(self, idx: int) -> Slice:
        return self._slices[idx]

    def __len__(self) -> int:
        return len(self._slices)

    def __repr__(self) -> str:
        return f"<TilingScheme (depth={self.depth}) tileshape={self._tileshape} intent={self._intent}>"
