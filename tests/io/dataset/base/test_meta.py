from __future__ import annotations

import json
import pickle

import jsonschema
import numpy as np
import pytest

from libertem.common import Shape
from libertem.io.dataset.base import DataSetMeta, PartitionStructure
from libertem.io.dataset.memory import MemoryDataSet

SHAPE = Shape((2, 4, 4, 5), sig_dims=2)
MESSAGE = {
    "version": 1,
    "slices": [[0, 4], [4, 8]],
    "shape": [2, 4, 4, 5],
    "sig_dims": 2,
    "dtype": "uint16",
}


def test_meta_has_numpy_backends_unless_told_otherwise() -> None:
    assert DataSetMeta(shape=SHAPE).array_backends == ("numpy", "cuda")
    assert DataSetMeta(shape=SHAPE, array_backends=["sparse.COO"]).array_backends == ["sparse.COO"]


@pytest.mark.parametrize(
    ("given", "raw_dtype", "dtype"),
    [
        ({}, "f8", "f8"),
        ({"raw_dtype": ">u2"}, ">u2", ">u2"),
        ({"dtype": "u2"}, "u2", "u2"),
        ({"raw_dtype": "u1", "dtype": "f4"}, "u1", "f4"),
    ],
)
def test_meta_completes_its_dtypes(given: dict[str, str], raw_dtype: str, dtype: str) -> None:
    meta = DataSetMeta(shape=SHAPE, **given)
    assert (meta.raw_dtype, meta.dtype) == (np.dtype(raw_dtype), np.dtype(dtype))
    assert isinstance(meta.raw_dtype, np.dtype)
    assert isinstance(meta.dtype, np.dtype)


def test_meta_looks_up_keys_in_its_metadata() -> None:
    assert DataSetMeta(shape=SHAPE, metadata={"voltage": 3e5})["voltage"] == 3e5


def test_meta_survives_pickling() -> None:
    meta = pickle.loads(pickle.dumps(DataSetMeta(SHAPE, image_count=7, raw_dtype=">u2", sync_offset=-2)))
    assert (meta.shape, meta.image_count, meta.raw_dtype, meta.sync_offset) == (SHAPE, 7, ">u2", -2)


def test_structure_has_the_documented_schema() -> None:
    assert PartitionStructure.SCHEMA == {
        "$id": "http://libertem.org/PartitionStructure.schema.json",
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "dtype": {"type": "string"},
            "shape": {"items": {"minimum": 1, "type": "number"}, "minItems": 2, "type": "array"},
            "sig_dims": {"type": "number"},
            "slices": {
                "items": {"items": {"maxItems": 2, "minItems": 2, "type": "number"}, "type": "array"},
                "minItems": 1,
                "type": "array",
            },
            "version": {"const": 1},
        },
        "required": ["version", "slices", "shape", "sig_dims", "dtype"],
        "title": "PartitionStructure",
        "type": "object",
    }


def test_structure_of_a_data_set_has_one_slice_per_partition() -> None:
    ds = MemoryDataSet(data=np.zeros((2, 4, 4, 5), dtype=np.uint16), num_partitions=2)
    structure = PartitionStructure.from_ds(ds)
    assert structure.serialize() == MESSAGE
    json.dumps(structure.serialize())


def test_structure_is_read_from_json() -> None:
    structure = PartitionStructure.from_json(MESSAGE)
    assert structure.slices == [(0, 4), (4, 8)]
    assert structure.shape == SHAPE
    assert structure.dtype == np.dtype("uint16")
    assert structure.serialize() == MESSAGE


def test_structure_keeps_the_byte_order() -> None:
    structure = PartitionStructure(SHAPE, [(0, 8)], ">u2")
    assert structure.serialize()["dtype"] == ">u2"
    assert PartitionStructure.from_json(structure.serialize()).dtype == np.dtype(">u2")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"slices": []},
        {"slices": [[0, 4, 8]]},
        {"slices": [[0]]},
        {"slices": [["a", "b"]]},
        {"shape": [2]},
        {"shape": [0, 2]},
        {"sig_dims": "2"},
        {"dtype": None},
    ],
)
def test_structure_refuses_what_does_not_fit_the_schema(change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        PartitionStructure.from_json({**MESSAGE, **change})


@pytest.mark.parametrize("missing", sorted(MESSAGE))
def test_structure_refuses_incomplete_messages(missing: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=missing):
        PartitionStructure.from_json({key: value for key, value in MESSAGE.items() if key != missing})
