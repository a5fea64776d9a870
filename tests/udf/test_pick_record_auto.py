"""Picking frames, recording data sets, and functions of one frame."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from libertem.io.corrections import CorrectionSet
from libertem.udf import AutoUDF
from libertem.udf import raw as raw_module
from libertem.udf.raw import PickUDF
from libertem.udf.record import RecordUDF
from libertem.udf.runner import UDFRunner

# --- picking ---


def test_picking_one_frame_follows_the_worked_example(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=PickUDF(), roi=(1, 2))["intensity"]
    assert result.kind == "single"
    assert result.data.shape == (1, 4, 4)
    assert result.data.dtype == np.uint16
    assert result.data[0, 0].tolist() == [80, 81, 82, 83]


@pytest.mark.parametrize("stored", ["u2", ">u2", "bool", "f4", "c16"])
def test_picked_frames_come_in_the_order_of_the_roi(ctx: Any, make_ds: Any, data: Any, stored: str) -> None:
    values = data.astype(stored)
    roi = np.array([[0, 1, 0], [1, 0, 1]], dtype=bool)
    result = ctx.run_udf(dataset=make_ds(values), udf=PickUDF(), roi=roi)["intensity"]
    assert result.data.dtype == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(result.data, values[roi])


@pytest.mark.parametrize("stored", ["u2", "f4"])
def test_picked_frames_are_corrected(ctx: Any, make_ds: Any, data: Any, stored: str) -> None:
    corrections = CorrectionSet(dark=np.full((4, 4), 0.5, dtype="f4"))
    result = ctx.run_udf(dataset=make_ds(data.astype(stored)), udf=PickUDF(), corrections=corrections)
    np.testing.assert_array_equal(result["intensity"].data, data.reshape((6, 4, 4)) - np.float32(0.5))


def test_all_frames_can_be_picked(ctx: Any, ds: Any, data: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=PickUDF())["intensity"]
    np.testing.assert_array_equal(result.data, data.reshape((6, 4, 4)))


def test_picking_much_is_logged(
    inline: Any, ds: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        inline.run_udf(dataset=ds, udf=PickUDF())
        assert not caplog.records
        monkeypatch.setattr(raw_module, "LARGE_BYTES", 6 * 32 - 1)
        inline.run_udf(dataset=ds, udf=PickUDF())
    assert "PickUDF is about to load 192 bytes" in caplog.text


# --- recording ---


@pytest.mark.parametrize("stored", ["u2", ">u2", "bool", "c8", "i8"])
def test_a_recording_has_the_shape_and_the_native_dtype(
    ctx: Any, make_ds: Any, data: Any, stored: str, tmp_path: Any
) -> None:
    values = (data % 2).astype(stored)
    path = tmp_path / "recorded.npy"
    assert ctx.run_udf(dataset=make_ds(values), udf=RecordUDF(str(path))) == {}
    recorded = np.load(path)
    assert recorded.dtype == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(recorded, values)


def test_a_recording_replaces_an_older_file(inline: Any, ds: Any, data: Any, tmp_path: Any) -> None:
    path = tmp_path / "recorded.npy"
    np.save(path, np.ones((100, 100)))
    inline.run_udf(dataset=ds, udf=RecordUDF(path))
    np.testing.assert_array_equal(np.load(path), data)


def test_a_recording_of_large_frames_is_complete(ctx: Any, make_ds: Any, tmp_path: Any) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (3, 3, 300, 500)).astype(">u2")
    ctx.run_udf(dataset=make_ds(values), udf=RecordUDF(tmp_path / "large.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "large.npy"), values)


def test_blank_positions_are_recorded_as_zero(ctx: Any, make_ds: Any, data: Any, tmp_path: Any) -> None:
    ctx.run_udf(dataset=make_ds(data + 1, sync_offset=-2), udf=RecordUDF(tmp_path / "blank.npy"))
    recorded = np.load(tmp_path / "blank.npy").reshape((6, 4, 4))
    assert (recorded[:2] == 0).all()
    np.testing.assert_array_equal(recorded[2:], data.reshape((6, 4, 4))[:4] + 1)


def test_recording_with_a_roi_is_refused_before_the_file_is_touched(ctx: Any, ds: Any, tmp_path: Any) -> None:
    path = tmp_path / "recorded.npy"
    with pytest.raises(RuntimeError, match=r"^Recording with ROI is not supported\.$"):
        ctx.run_udf(dataset=ds, udf=RecordUDF(path), roi=ds.roi[0])
    assert not path.exists()


# --- functions of one frame ---


@pytest.mark.parametrize(
    ("f", "shape", "dtype"),
    [
        (lambda frame: frame.sum(axis=0), (2, 3, 4), "f4"),
        (np.sum, (2, 3), "f4"),
        (lambda frame: frame.astype("i8") // 2, (2, 3, 4, 4), "i8"),
        (lambda frame: float(frame[0, 0]), (2, 3), "f8"),
        (lambda frame: [frame.min(), frame.max()], (2, 3, 2), "f4"),
        (lambda frame: bool(frame.sum() > 500), (2, 3), "bool"),
    ],
)
def test_a_function_decides_shape_and_dtype(
    ctx: Any, ds: Any, data: Any, f: Any, shape: tuple[int, ...], dtype: str
) -> None:
    result = ctx.run_udf(dataset=ds, udf=AutoUDF(f))
    assert list(result) == ["result"]
    assert result["result"].data.shape == shape
    assert result["result"].data.dtype == np.dtype(dtype)
    expected = [[f(frame) for frame in row] for row in data.astype("f4")]
    np.testing.assert_array_equal(result["result"].data, expected)


def test_a_function_may_return_objects(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=AutoUDF(lambda frame: {"first": int(frame[0, 0])}))["result"]
    assert result.dtype == np.dtype(object)
    assert result.data[1, 2] == {"first": 80}


def test_the_function_sees_ones_when_buffers_are_declared(inline: Any, ds: Any) -> None:
    seen = []

    def f(frame: Any) -> Any:
        seen.append(frame.copy())
        return frame.sum()

    UDFRunner.inspect_udf(AutoUDF(f), ds)
    (frame,) = seen
    np.testing.assert_array_equal(frame, np.ones((4, 4), dtype=np.float32), strict=True)


def test_the_monitor_shows_the_last_valid_result(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=AutoUDF(f=lambda frame: frame[0], monitor=True))
    monitors = [step.buffers[0]["monitor"].data.tolist() for step in steps]
    assert monitors == [[32, 33, 34, 35], [80, 81, 82, 83]]


def test_the_monitor_of_a_number_has_one_element(inline: Any, ds: Any) -> None:
    result = inline.run_udf(dataset=ds, udf=AutoUDF(np.sum, monitor=True), roi=ds.roi[:, 0])
    assert result["monitor"].kind == "single"
    assert result["monitor"].data.tolist() == [888]


def test_the_monitor_shows_the_first_entry_if_nothing_is_valid(inline: Any, ds: Any) -> None:
    udf = AutoUDF(np.sum, monitor=True)
    assert UDFRunner.dry_run([udf], ds).buffers[0]["monitor"].data.tolist() == [0]
    result = inline.run_udf(dataset=ds, udf=udf, roi=np.zeros((2, 3), dtype=bool))
    assert result["monitor"].data.tolist() == [0]


def test_map_applies_a_function(ctx: Any, ds: Any, data: Any) -> None:
    result = ctx.map(dataset=ds, f=np.sum)
    np.testing.assert_array_equal(result.data, data.sum(axis=(2, 3)))
    result = ctx.map(ds, lambda frame: frame.max(), roi=ds.roi[0])
    np.testing.assert_array_equal(result.raw_data, data[0].max(axis=(1, 2)))
