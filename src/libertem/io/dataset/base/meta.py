"""What a data set knows about itself: `DataSetMeta`, and its cut into partitions: `PartitionStructure`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CUDA, NUMPY
from libertem.common.shape import Shape

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import DataSetProtocol

__all__ = ["DataSetMeta", "PartitionStructure"]


class DataSetMeta:
    """Facts about an initialized data set. Small and picklable: every partition carries one.

    Parameters
    ----------
    shape : Shape
        Shape as the user sees it, any number of axes.
    array_backends : sequence of str, optional
        Kinds of arrays that partitions deliver, best first. NumPy by default.
    image_count : int
        Number of frames that are physically present.
    raw_dtype : dtype, optional
        How pixels are stored; decides the sizes of reads.
    dtype : dtype, optional
        What pixels naturally are after reading. `raw_dtype` by default.
    metadata : mapping, optional
        Anything else the format offers; ``meta[key]`` looks into it.
    sync_offset : int
        Frames skipped (> 0) or blanks inserted (< 0) at the start.
    """

    def __init__(
        self,
        shape: Shape,
        array_backends: Sequence[str] | None = None,
        image_count: int = 0,
        raw_dtype: npt.DTypeLike | None = None,
        dtype: npt.DTypeLike | None = None,
        metadata: Any | None = None,
        sync_offset: int = 0,
    ) -> None:
        self.shape = shape
        self.array_backends: Sequence[str] = (NUMPY, CUDA) if array_backends is None else array_backends
        self.image_count = image_count
        self.raw_dtype = np.dtype(dtype if raw_dtype is None else raw_dtype)
        self.dtype = self.raw_dtype if dtype is None else np.dtype(dtype)
        self.metadata = metadata
        self.sync_offset = sync_offset

    def __getitem__(self, key: Any) -> Any:
        return self.metadata[key]  # type: ignore[index]  # a data set without metadata has no keys


class PartitionStructure:
    """How a data set is cut into partitions along its flat navigation axis, for exchange as JSON.

    Parameters
    ----------
    shape : Shape
        Shape of the whole data set.
    slices : list of (int, int)
        Half-open ranges of frames.
    dtype : dtype
        Native dtype, byte order included.
    """

    SCHEMA = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://libertem.org/PartitionStructure.schema.json",
        "title": "PartitionStructure",
        "type": "object",
        "properties": {
            "version": {"const": 1},
            "slices": {
                "type": "array",
                "items": {
                    "type": "array",
                    "items": {"type": "number", "minItems": 2, "maxItems": 2},
                },
                "minItems": 1,
            },
            "shape": {"type": "array", "items": {"type": "number", "minimum": 1}, "minItems": 2},
            "sig_dims": {"type": "number"},
            "dtype": {"type": "string"},
        },
        "required": ["version", "slices", "shape", "sig_dims", "dtype"],
    }

    def __init__(self, shape: Shape, slices: Sequence[tuple[int, ...]], dtype: npt.DTypeLike) -> None:
        self.slices = slices
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def serialize(self) -> dict[str, Any]:
        """Plain data that validates against `SCHEMA`."""
        data = {
            "version": 1,
            "slices": [[int(start), int(stop)] for start, stop in self.slices],
            "shape": [int(extent) for extent in self.shape],
            "sig_dims": int(self.shape.sig.dims),
            "dtype": str(self.dtype),
        }
        self._validate(data)
        return data

    @classmethod
    def _validate(cls, data: dict[str, Any]) -> None:
        import jsonschema

        jsonschema.validate(instance=data, schema=cls.SCHEMA)
        for item in data["slices"]:
            # The published schema fails to say so.
            if len(item) != 2:
                raise jsonschema.ValidationError(f"a slice is a (start, stop) pair, found {item}")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PartitionStructure:
        """Build from plain data.

        Raises
        ------
        jsonschema.ValidationError
            If `data` does not follow `SCHEMA`.
        """
        cls._validate(data)
        return cls(
            slices=[tuple(item) for item in data["slices"]],
            shape=Shape(tuple(data["shape"]), sig_dims=data["sig_dims"]),
            dtype=np.dtype(data["dtype"]),
        )

    @classmethod
    def from_ds(cls, ds: DataSetProtocol) -> PartitionStructure:
        """Structure of an initialized data set, one slice per partition."""
        slices = []
        for partition in ds.get_partitions():
            start = partition.slice.origin[0]
            slices.append((start, start + partition.slice.shape[0]))
        return cls(shape=ds.shape, slices=slices, dtype=ds.dtype)
