"""Which dtype UDFs receive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.io.corrections import CorrectionSet
from libertem.udf import UDF

# dataset: float32 (default), native, uint8, float64, complex64, native + corrections
TABLE = {
    "bool": "float32 bool uint8 float64 complex64 float32",
    "uint8": "float32 uint8 uint8 float64 complex64 float32",
    "int8": "float32 int8 int16 float64 complex64 float32",
    "uint16": "float32 uint16 uint16 float64 complex64 float32",
    "int16": "float32 int16 int16 float64 complex64 float32",
    "uint32": "float64 uint32 uint32 float64 complex128 float64",
    "int32": "float64 int32 int32 float64 complex128 float64",
    "uint64": "float64 uint64 uint64 float64 complex128 float64",
    "int64": "float64 int64 int64 float64 complex128 float64",
    "float16": "float32 float16 float16 float64 complex64 float32",
    "float32": "float32 float32 float32 float64 complex64 float32",
    "float64": "float64 float64 float64 float64 complex128 float64",
    "complex64": "complex64 complex64 complex64 complex128 complex64 complex64",
    ">u2": "float32 uint16 uint16 float64 complex64 float32",
}
PREFERENCES = (None, UDF.USE_NATIVE_DTYPE, "uint8", "float64", "complex64", UDF.USE_NATIVE_DTYPE)


class Dtypes(UDF):
    """Checks the dtype of tiles, and keeps frames."""

    def get_preferred_input_dtype(self) -> Any:
        preferred = self.params.preferred
        return super().get_preferred_input_dtype() if preferred is None else preferred

    def get_result_buffers(self) -> dict[str, Any]:
        sig = self.meta.dataset_shape.sig
        return {"frames": self.buffer(kind="nav", extra_shape=sig, dtype=self.meta.input_dtype)}

    def process_tile(self, tile: Any) -> None:
        assert tile.dtype == self.meta.input_dtype
        assert tile.dtype.isnative
        self.results.frames[:] = tile


@pytest.fixture
def values() -> Any:
    return np.random.default_rng(5).integers(0, 2, (2, 2, 3, 3))


@pytest.mark.parametrize("column", range(6))
@pytest.mark.parametrize("stored", TABLE)
def test_the_input_dtype_is_that_of_the_table(
    inline: Any, make_ds: Any, values: Any, stored: str, column: int
) -> None:
    expected = TABLE[stored].split()[column]
    corrections = CorrectionSet(dark=np.zeros((3, 3))) if column == 5 else None
    result = inline.run_udf(
        dataset=make_ds(values.astype(stored)),
        udf=Dtypes(preferred=PREFERENCES[column]),
        corrections=corrections,
    )["frames"]
    assert result.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result.data, values)


@pytest.mark.parametrize(("other", "expected"), [("uint8", "u2"), ("float32", "f4"), ("float64", "f8")])
def test_all_udfs_of_a_run_get_the_same_dtype(
    ctx: Any, make_ds: Any, values: Any, other: str, expected: str
) -> None:
    udfs = [Dtypes(preferred=UDF.USE_NATIVE_DTYPE), Dtypes(preferred=other)]
    results = ctx.run_udf(dataset=make_ds(values.astype("u2")), udf=udfs)
    for result in results:
        assert result["frames"].dtype == np.dtype(expected)
        np.testing.assert_array_equal(result["frames"].data, values)


def test_the_neutral_dtype_is_bool() -> None:
    assert UDF.USE_NATIVE_DTYPE is bool
