"""From declared buffers to results: use, dtype kinds, shapes and valid masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.common.buffers import BufferWrapper
from libertem.exceptions import InvalidMaskError, UDFException
from libertem.udf import UDF

ROI = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool)


class Declared(UDF):
    """Declares `buffers` and returns `results`; processing does nothing."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {name: self.buffer(**how) for name, how in self.params.buffers.items()}

    def process_frame(self, frame: Any) -> None:
        pass

    def merge(self, dest: Any, src: Any) -> None:
        pass

    def get_results(self) -> Any:
        results = self.params.get("results")
        return super().get_results() if results is None else results(self)


def run(ctx: Any, ds: Any, buffers: Any, results: Any = None, **kwargs: Any) -> Any:
    return ctx.run_udf(dataset=ds, udf=Declared(buffers=buffers, results=results), **kwargs)


# --- use ---


def test_buffers_pass_through_by_default(ctx: Any, ds: Any) -> None:
    result = run(ctx, ds, {"a": {"kind": "nav"}, "b": {"kind": "sig"}, "c": {"kind": "single"}})
    assert list(result) == ["a", "b", "c"]
    assert all(isinstance(buffer, BufferWrapper) for buffer in result.values())
    assert [buffer.data.shape for buffer in result.values()] == [(2, 3), (4, 4), (1,)]
    assert all((buffer.data == 0).all() for buffer in result.values())


def test_every_result_has_to_be_declared(inline: Any, ds: Any) -> None:
    with pytest.raises(UDFException, match="returned 'b', which get_result_buffers does not declare"):
        run(inline, ds, {"a": {"kind": "nav"}}, lambda udf: {"b": np.zeros(6)})


def test_private_buffers_are_not_part_of_the_result(inline: Any, ds: Any) -> None:
    buffers = {"a": {"kind": "nav"}, "p": {"kind": "nav", "use": "private"}}
    assert list(run(inline, ds, buffers)) == ["a"]
    with pytest.raises(UDFException, match="'p', which is declared with use='private'"):
        run(inline, ds, buffers, lambda udf: {"p": udf.results.p})


def test_result_only_buffers_need_get_results(inline: Any, ds: Any) -> None:
    buffers = {"late": {"kind": "nav", "use": "result_only"}}
    message = "don't know how to set use='result_only' buffer 'late'; please implement `get_results`"
    with pytest.raises(UDFException, match=message):
        run(inline, ds, buffers)
    assert list(run(inline, ds, buffers, lambda udf: {})) == []
    result = run(inline, ds, buffers, lambda udf: {"late": np.arange(6.0)})
    np.testing.assert_array_equal(result["late"].data, np.arange(6).reshape((2, 3)))


def test_returned_results_come_first_then_the_rest_in_declared_order(inline: Any, ds: Any) -> None:
    buffers = {name: {"kind": "single"} for name in "abcd"}
    result = run(inline, ds, buffers, lambda udf: {"d": np.ones(1), "b": np.full(1, 2.0)})
    assert list(result) == ["d", "b", "a", "c"]
    assert [buffer.data[0] for buffer in result.values()] == [1, 2, 0, 0]


# --- content ---


def test_only_the_kind_of_the_dtype_is_compared(inline: Any, ds: Any) -> None:
    buffers = {"a": {"kind": "nav", "dtype": "float32"}}
    result = run(inline, ds, buffers, lambda udf: {"a": np.arange(6, dtype=np.float64)})["a"]
    assert result.dtype == np.float32
    assert result.data.dtype == np.float64
    message = r"the returned ndarray 'a' has a different dtype kind \(i\) than declared \(f\)"
    with pytest.raises(UDFException, match=message):
        run(inline, ds, buffers, lambda udf: {"a": np.arange(6)})


def test_lists_are_taken_for_arrays(inline: Any, ds: Any) -> None:
    result = run(inline, ds, {"a": {"kind": "single", "extra_shape": (2,)}}, lambda udf: {"a": [1.0, 2.0]})
    assert result["a"].data.tolist() == [1.0, 2.0]


def test_results_of_the_scan_can_be_flat_or_in_its_shape(inline: Any, ds: Any) -> None:
    buffers = {"a": {"kind": "nav", "extra_shape": (2,)}}
    values = np.arange(12.0)
    for shape in ((6, 2), (2, 3, 2)):
        result = run(inline, ds, buffers, lambda udf, shape=shape: {"a": values.reshape(shape)})["a"]
        np.testing.assert_array_equal(result.data, values.reshape((2, 3, 2)))
        np.testing.assert_array_equal(result.raw_data, values.reshape((6, 2)))


def test_results_of_a_roi_can_be_compressed_or_complete(inline: Any, ds: Any) -> None:
    buffers = {"a": {"kind": "nav"}}
    result = run(inline, ds, buffers, lambda udf: {"a": np.arange(4.0)}, roi=ROI)["a"]
    np.testing.assert_array_equal(result.raw_data, np.arange(4))
    np.testing.assert_array_equal(result.data, [[0, np.nan, 1], [np.nan, 2, 3]])
    full = np.arange(6.0).reshape((2, 3))
    result = run(inline, ds, buffers, lambda udf: {"a": full}, roi=ROI)["a"]
    np.testing.assert_array_equal(result.data, full)
    np.testing.assert_array_equal(result.valid_mask, ROI)


def test_a_wrong_number_of_elements_fails(inline: Any, ds: Any) -> None:
    with pytest.raises(ValueError, match="reshape"):
        run(inline, ds, {"a": {"kind": "nav"}}, lambda udf: {"a": np.zeros(5)})


@pytest.mark.parametrize("dtype", ["object", "S3", "U5", "M8[s]", [("x", "f4"), ("y", "i2")], "c8", "bool"])
@pytest.mark.parametrize("kind", ["nav", "sig", "single"])
def test_any_dtype_starts_zero_filled(ctx: Any, ds: Any, dtype: Any, kind: str) -> None:
    result = run(ctx, ds, {"a": {"kind": kind, "dtype": dtype}})["a"]
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result.data, np.zeros(result.data.shape, dtype=dtype))


def test_an_extra_shape_may_be_empty(ctx: Any, ds: Any) -> None:
    assert run(ctx, ds, {"a": {"kind": "nav", "extra_shape": (0, 3)}})["a"].data.shape == (2, 3, 0, 3)


def test_an_unknown_kind_is_a_value_error(inline: Any, ds: Any) -> None:
    with pytest.raises(ValueError, match="unknown kind: frame"):
        run(inline, ds, {"a": {"kind": "frame"}})


def test_an_array_of_another_library_stays_on_the_device_of_the_worker_only(ctx: Any, ds: Any) -> None:
    class Device(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"a": self.buffer(kind="nav", where="device")}

        def process_frame(self, frame: Any) -> None:
            assert isinstance(self.results.a, self.xp.ndarray)
            self.results.a[:] = self.xp.sum(frame)

    assert type(ctx.run_udf(dataset=ds, udf=Device())["a"].data) is np.ndarray


# --- masks ---


def test_positions_that_were_merged_are_valid(inline: Any, ds: Any) -> None:
    buffers = {"nav": {"kind": "nav", "extra_shape": (2,)}, "sig": {"kind": "sig"}}
    result = run(inline, ds, buffers, roi=ROI)
    np.testing.assert_array_equal(result["nav"].valid_mask, np.repeat(ROI[..., np.newaxis], 2, axis=-1))
    assert result["sig"].valid_mask.all()
    assert result["nav"].masked_data.mask.sum() == 2 * 2
    assert result["nav"].raw_masked_data.mask.sum() == 0
    assert result["sig"].masked_data.shape == (4, 4)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (64, 64, 1), (64, 64, 3)])
def test_masks_that_broadcast_to_the_data_are_accepted(shape: tuple[int, ...]) -> None:
    result = UDF.with_mask(np.zeros((64, 64, 3)), np.ones(shape, dtype=bool))
    assert result.mask.shape == (64, 64, 3)


@pytest.mark.parametrize("shape", [(64, 64), (32, 32), (1, 1, 4), (1, 1, 1, 1)])
def test_masks_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidMaskError, match="does not broadcast"):
        UDF.with_mask(np.zeros((64, 64, 3)), np.ones(shape, dtype=bool))


@pytest.mark.parametrize("mask", [1, np.ones((2, 3)), [0, 1, 1]])
def test_masks_have_to_be_boolean(mask: Any) -> None:
    with pytest.raises(InvalidMaskError, match="dtype bool"):
        UDF.with_mask(np.zeros((2, 3)), mask)


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_can_be_one_truth_value(inline: Any, ds: Any, value: bool) -> None:
    buffers = {"nav": {"kind": "nav"}, "sig": {"kind": "sig"}}
    result = run(
        inline,
        ds,
        buffers,
        lambda udf: {name: udf.with_mask(getattr(udf.results, name), value) for name in ("nav", "sig")},
    )
    assert result["nav"].valid_mask.tolist() == [[value] * 3] * 2
    assert result["sig"].valid_mask.tolist() == [[value] * 4] * 4


def test_a_given_mask_replaces_that_of_the_merged_positions(inline: Any, ds: Any) -> None:
    mask = np.array([[0, 1, 0], [1, 1, 0]], dtype=bool)
    buffers = {"a": {"kind": "nav"}}
    result = run(inline, ds, buffers, lambda udf: {"a": udf.with_mask(udf.results.a, mask.reshape(-1))})
    np.testing.assert_array_equal(result["a"].valid_mask, mask)
    full = np.zeros((2, 3))
    result = run(inline, ds, buffers, lambda udf: {"a": udf.with_mask(full, mask)})
    np.testing.assert_array_equal(result["a"].valid_mask, mask)


@pytest.mark.parametrize("nav_shape", [(6,), (2, 3)])
def test_a_mask_can_be_given_for_the_complete_scan_of_a_roi(
    inline: Any, make_ds: Any, data: Any, nav_shape: tuple[int, ...]
) -> None:
    ds = make_ds(data.reshape((*nav_shape, 4, 4)))
    roi = ROI.reshape(nav_shape)
    mask = np.array([0, 1, 0, 1, 1, 0], dtype=bool).reshape(nav_shape)
    values = np.arange(6.0).reshape(nav_shape)
    result = run(inline, ds, {"a": {"kind": "nav"}}, lambda udf: {"a": udf.with_mask(values, mask)}, roi=roi)
    np.testing.assert_array_equal(result["a"].data, values)
    np.testing.assert_array_equal(result["a"].valid_mask, mask)


def test_a_mask_for_the_positions_of_a_roi_is_false_outside(inline: Any, ds: Any) -> None:
    mask = np.array([True, False, True, True])
    result = run(
        inline, ds, {"a": {"kind": "nav"}}, lambda udf: {"a": udf.with_mask(udf.results.a, mask)}, roi=ROI
    )
    assert result["a"].valid_mask.tolist() == [[True, False, False], [False, True, True]]


def test_masks_work_with_extra_shapes_and_rois(inline: Any, ds: Any) -> None:
    mask = np.array([[True, False], [True, True], [False, False], [True, True]])
    buffers = {"a": {"kind": "nav", "extra_shape": (2,)}}
    result = run(inline, ds, buffers, lambda udf: {"a": udf.with_mask(udf.results.a, mask)}, roi=ROI)["a"]
    assert result.valid_mask.shape == (2, 3, 2)
    np.testing.assert_array_equal(result.valid_mask[ROI], mask)
    assert not result.valid_mask[~ROI].any()


# --- merging ---


def test_default_merging_is_for_scan_positions_only(inline: Any, ds: Any) -> None:
    class Sig(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"a": self.buffer(kind="sig", use=self.params.use)}

        def process_frame(self, frame: Any) -> None:
            pass

        def get_results(self) -> Any:
            return {}

    with pytest.raises(NotImplementedError, match="Default merging only works for kind='nav' buffers"):
        inline.run_udf(dataset=ds, udf=Sig(use=None))
    with pytest.raises(NotImplementedError, match="Default merging only works for kind='nav' buffers"):
        inline.run_udf(dataset=ds, udf=Sig(use="private"))
    assert inline.run_udf(dataset=ds, udf=Sig(use="result_only")) == {}


def test_default_merging_only_casts_safely(inline: Any, ds: Any) -> None:
    class Differs(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            on_worker = self.meta.array_backend is not None
            return {"a": self.buffer(kind="nav", dtype=self.params.dtypes[on_worker])}

        def process_frame(self, frame: Any) -> None:
            self.results.a[:] = 3

    with pytest.raises(TypeError, match="Unsafe automatic casting from float64 to int32"):
        inline.run_udf(dataset=ds, udf=Differs(dtypes=("int32", "float64")))
    result = inline.run_udf(dataset=ds, udf=Differs(dtypes=("float64", "int32")))
    assert result["a"].data.tolist() == [[3.0] * 3] * 2


def test_merge_is_called_with_keywords(inline: Any, ds: Any) -> None:
    class Swapped(Declared):
        def merge(self, src: Any, dest: Any) -> None:  # type: ignore[override]  # other order on purpose
            dest.a[:] = 1
            assert (src.a == 0).all()

    result = inline.run_udf(dataset=ds, udf=Swapped(buffers={"a": {"kind": "nav"}}))
    assert (result["a"].data == 1).all()


def test_an_empty_roi_gives_empty_results(ctx: Any, ds: Any) -> None:
    class Unmerged(Declared):
        def merge(self, dest: Any, src: Any) -> None:
            raise AssertionError("nothing to merge")

    buffers = {"nav": {"kind": "nav"}, "sig": {"kind": "sig"}}
    roi = np.zeros((2, 3), dtype=bool)
    result = ctx.run_udf(dataset=ds, udf=Unmerged(buffers=buffers), roi=roi)
    assert result["nav"].raw_data.shape == (0,)
    assert np.isnan(result["nav"].data).all()
    assert not result["nav"].valid_mask.any()
    assert (result["sig"].data == 0).all()
    assert len(list(ctx.run_udf_iter(dataset=ds, udf=Unmerged(buffers=buffers), roi=roi))) == 1
