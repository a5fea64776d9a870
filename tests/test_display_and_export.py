"""Looking at a UDF without running it, and writing data sets as NumPy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context, DataSet
from libertem.udf import UDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF

DATA = np.arange(96, dtype=np.uint16).reshape((2, 3, 4, 4))


@pytest.fixture
def ctx() -> Context:
    return Context.make_with("inline")


@pytest.fixture
def ds(ctx: Context, tmp_path: Path) -> DataSet:
    np.save(tmp_path / "in.npy", DATA)
    return ctx.load("npy", path=tmp_path / "in.npy")


# --- display ---


def test_a_udf_is_shown_with_its_results(ctx: Context, ds: DataSet) -> None:
    def forbidden(*args: Any) -> None:
        raise AssertionError("nothing may be read")

    ds.get_partitions = forbidden  # type: ignore[method-assign, assignment]  # on purpose
    shown = ctx.display(ds, ApplyMasksUDF([lambda: np.ones((4, 4))]))
    assert shown.title == "ApplyMasksUDF"
    assert list(shown.buffers) == ["intensity"]
    assert shown.buffers["intensity"].shape == (6, 1)
    html = shown._repr_html_()
    for text in ("ApplyMasksUDF", "tile", "scipy.sparse.csr_matrix", "numpy", "float32"):
        assert text in html
    row = "".join(f"<td>{text}</td>" for text in ("intensity", "nav", "(1,)", "(6, 1)", "float64"))
    assert f"<tr>{row}</tr>" in html


def test_shapes_follow_the_roi(ctx: Context, ds: DataSet) -> None:
    assert ctx.display(ds, PickUDF(), roi=(1, 2)).buffers["intensity"].shape == (1, 4, 4)
    assert "native" in ctx.display(ds, PickUDF())._repr_html_()


def test_names_are_not_taken_for_markup(ctx: Context, ds: DataSet) -> None:
    class Strange(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"<b>": self.buffer(kind="nav"), "hidden": self.buffer(kind="nav", use="private")}

        def process_frame(self, frame: Any) -> None: ...

        def get_backends(self) -> str:
            return "numpy"

    html = ctx.display(ds, Strange())._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "hidden" not in html


# --- export ---


@pytest.mark.parametrize("name", ["out.npy", "OUT.NPY"])
def test_a_data_set_is_written_as_it_is(ctx: Context, ds: DataSet, tmp_path: Path, name: str) -> None:
    ctx.export_dataset(ds, path=tmp_path / name)
    written = np.load(tmp_path / name)
    assert written.dtype == np.uint16
    assert written.tolist() == DATA.tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.npy", name])


def test_big_endian_data_is_written_in_native_order(ctx: Context, tmp_path: Path) -> None:
    DATA.astype(">u2").tofile(tmp_path / "in.raw")
    ds = ctx.load("raw", path=tmp_path / "in.raw", dtype=">u2", nav_shape=(2, 3), sig_shape=(4, 4))
    ctx.export_dataset(ds, path=str(tmp_path / "out.npy"))
    written = np.load(tmp_path / "out.npy")
    assert written.dtype.isnative
    assert written.tolist() == DATA.tolist()


def test_other_types_of_files_are_refused(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    message = r"^Unrecognized file extension \.txt only \.npy is currently supported\.$"
    with pytest.raises(ValueError, match=message):
        ctx.export_dataset(ds, path=tmp_path / "out.txt")


def test_files_are_only_overwritten_on_demand(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    target = tmp_path / "out.npy"
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"out\.npy .*overwrite=True"):
        ctx.export_dataset(ds, path=target)
    assert target.read_bytes() == b"precious"
    ctx.export_dataset(ds, path=target, overwrite=True)
    assert np.load(target).tolist() == DATA.tolist()


def test_a_data_set_can_replace_its_own_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    before = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data.tolist()
    ctx.export_dataset(ds, path=tmp_path / "in.npy", overwrite=True)
    again = ctx.load("npy", path=tmp_path / "in.npy")
    assert ctx.run_udf(dataset=again, udf=SumUDF())["intensity"].data.tolist() == before


def test_a_run_that_fails_leaves_no_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    def broken() -> Any:
        raise OSError("the disk is gone")

    ds.get_partitions = broken  # type: ignore[method-assign]  # on purpose
    with pytest.raises(OSError, match="the disk is gone"):
        ctx.export_dataset(ds, path=tmp_path / "out.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["in.npy"]
