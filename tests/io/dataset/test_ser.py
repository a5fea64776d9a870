from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.exceptions import DataSetException, HeaderError, ShapeError, UnsupportedBackendError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base import BufferedBackend, IOBackend
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.ser import ElementHeader, SERDataSet, SERDatasetParams, parse_header
from libertem.io.dataset.ser.dataset import ElementPacking
from libertem.io.dataset.ser.kernels import copy_rows_upwards
from libertem.testing import DataSetTests
from libertem.testing.writers.ser import make_ser_header, write_ser
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)
OLD: Literal[0x0210] = 0x0210
NEW: Literal[0x0220] = 0x0220


def load_ser(path: Path, **kwargs: Any) -> Any:
    return load("ser", path=path, executor=EXECUTOR, **kwargs)


def read(ds: Any) -> npt.NDArray[Any]:
    """All frames, blanks as zeros, put together from the partitions."""
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=ds.dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=ds.dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


def make_frames(shape: tuple[int, ...] = (6, 4, 5), dtype: str = "u2") -> npt.NDArray[Any]:
    return np.random.default_rng(3).integers(0, 120, size=shape).astype(dtype)


def patch(path: Path, offset: int, content: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


# --- the common suite ---


class TestSER(DataSetTests):
    """A series, as written since TIA 4.7.3."""

    filetype = "ser"
    dtypes: ClassVar[tuple[str, ...]] = ("<u2", "u1", "<u4", "i1", "<i2", "<i4", "<f4", "<f8", "<c8", "<c16")
    io_backends = ()
    # The offsets of 9000 small frames.
    max_load_bytes = 96 << 10

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"path": str(write_ser(folder / "series_1.ser", frames))}


class TestOldScan(DataSetTests):
    """A scan with 32 bit offsets and tags that have positions."""

    filetype = "ser"
    dtypes = ("<i4", "<f4")
    io_backends = ()

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        nav_shape = self.nav_shape if len(frames) == self.n_frames else None
        path = folder / "scan_1.ser"
        return {"path": str(write_ser(path, frames, version=OLD, tags="position", nav_shape=nav_shape))}


class TestSpectra(DataSetTests):
    """Elements of one dimension."""

    filetype = "ser"
    dtypes = ("<i4", "u1")
    sig_shape = (80,)
    io_backends = ()

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"path": str(write_ser(folder / "spectra_1.ser", frames, tags="position"))}


class TestScatteredElements(DataSetTests):
    """Elements that lie in another order than they are numbered, so that several runs have to be read."""

    filetype = "ser"
    io_backends = ()
    # Places of all runs.
    max_pickle_bytes = 4096
    max_load_bytes = 96 << 10

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        order = np.roll(np.arange(len(frames)), 5)
        order[:2] = order[1::-1]
        return {"path": str(write_ser(folder / "x_1.ser", frames, order=order.tolist(), gap=13))}


class TestOnWindows(TestSER):
    """Where files are not mapped by default."""

    dtypes = ("<u2",)

    @pytest.fixture(autouse=True)
    def windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read as on Windows."""
        monkeypatch.setattr(SERDataSet, "get_default_io_backend", classmethod(lambda cls: BufferedBackend()))


# --- layout ---

OLD_EXAMPLE = """
4949 9701 1002  22410000 52410000  02000000 02000000  44000000 01000000
02000000 0000000000000000 000000000000f03f 00000000  06000000 4e756d626572 00000000
54000000 9a000000  92000000 d8000000
{calibration} {calibration} 0200 03000000 02000000
0100 0200 0300 0400 0500 0600  5241 0000 002f6859
{calibration} {calibration} 0200 03000000 02000000
0700 0800 0900 0a00 0b00 0c00  5241 0000 012f6859
"""
NEW_EXAMPLE = """
4949 9701 2002  22410000 52410000  02000000 02000000  4800000000000000 01000000
02000000 0000000000000000 000000000000f03f 00000000  06000000 4e756d626572 00000000
6800000000000000 ae00000000000000  a600000000000000 ec00000000000000
{calibration} {calibration} 0200 03000000 02000000
0100 0200 0300 0400 0500 0600  5241 0000 002f6859
{calibration} {calibration} 0200 03000000 02000000
0700 0800 0900 0a00 0b00 0c00  5241 0000 012f6859
"""
EXAMPLE_FRAMES = np.array([[[4, 5, 6], [1, 2, 3]], [[10, 11, 12], [7, 8, 9]]], dtype="<u2")


def example(text: str) -> bytes:
    calibration = struct.pack("<ddi", 0.0, 1e-10, 0).hex()
    return bytes.fromhex(text.format(calibration=calibration))


@pytest.mark.parametrize(("text", "version", "size"), [(OLD_EXAMPLE, OLD, 224), (NEW_EXAMPLE, NEW, 244)])
def test_the_worked_example(text: str, version: Literal[0x0210, 0x0220], size: int, tmp_path: Path) -> None:
    path = tmp_path / "x_1.ser"
    path.write_bytes(example(text))
    assert path.stat().st_size == size
    ds = load_ser(path)
    assert tuple(ds.shape) == (2, 2, 3)
    np.testing.assert_array_equal(read(ds), EXAMPLE_FRAMES)
    # And of the writer, which all other tests rely on.
    assert write_ser(tmp_path / "y_1.ser", EXAMPLE_FRAMES, version=version).read_bytes() == example(text)


def test_the_header_of_the_worked_example() -> None:
    header = parse_header(example(OLD_EXAMPLE), path="x.ser", file_size=224)
    assert (header.version, header.element_dims, header.tags) == (OLD, 2, "time")
    assert (header.n_planned, header.n_valid, header.nav_shape) == (2, 2, (2,))
    assert (header.header_stop, header.table_offset, header.table_stop) == (68, 68, 84)
    (dimension,) = header.dimensions
    assert (dimension.size, dimension.step, dimension.description, dimension.units) == (2, 1.0, "Number", "")


@pytest.mark.parametrize("tags", ["time", "position"])
@pytest.mark.parametrize("sig_shape", [(4, 7), (11,)])
def test_the_first_dimension_is_the_fast_one(
    sig_shape: tuple[int, ...], tags: Literal["time", "position"], tmp_path: Path
) -> None:
    frames = make_frames((6, *sig_shape))
    ds = load_ser(write_ser(tmp_path / "x_1.ser", frames, nav_shape=(2, 3), tags=tags))
    assert tuple(ds.shape) == (2, 3, *sig_shape)
    assert ds.shape.sig.dims == len(sig_shape)
    np.testing.assert_array_equal(read(ds), frames.reshape(2, 3, *sig_shape))


def test_there_may_be_three_dimensions_or_none(tmp_path: Path) -> None:
    frames = make_frames((24, 2, 3))
    ds = load_ser(write_ser(tmp_path / "x_1.ser", frames, nav_shape=(2, 3, 4)))
    assert tuple(ds.shape) == (2, 3, 4, 2, 3)
    path = write_ser(tmp_path / "y_1.ser", frames, header=make_ser_header((), 24, total=24), nav_shape=(24,))
    ds = load_ser(path)
    assert tuple(ds.shape) == (24, 2, 3)
    np.testing.assert_array_equal(read(ds), frames)


def test_a_stopped_acquisition_keeps_the_planned_shape(tmp_path: Path) -> None:
    frames = make_frames((5, 4, 5))
    path = write_ser(
        tmp_path / "x_1.ser", frames, nav_shape=(4, 3), header=make_ser_header((3, 4), 5), trailing=b"more"
    )
    ds = load_ser(path)
    assert tuple(ds.shape) == (4, 3, 4, 5)
    assert ds.meta.image_count == 5
    assert ds.get_sync_offset_info()["frames_inserted_end"] == 7
    expected = np.concatenate([frames, np.zeros((7, 4, 5), "u2")])
    np.testing.assert_array_equal(read(ds).reshape(12, 4, 5), expected)
    np.testing.assert_array_equal(read(load_ser(path, nav_shape=(5,))), frames)


@pytest.mark.parametrize("gap", [1, 3, 4000])
@pytest.mark.parametrize("version", [OLD, NEW])
def test_elements_may_start_anywhere(version: Literal[0x0210, 0x0220], gap: int, tmp_path: Path) -> None:
    frames = make_frames()
    path = write_ser(
        tmp_path / "x_1.ser",
        frames,
        version=version,
        gap=gap,
        header=make_ser_header((6,), 6, version=version, gap=gap),
    )
    np.testing.assert_array_equal(read(load_ser(path)), frames)


@pytest.mark.parametrize(
    "order", [[5, 4, 3, 2, 1, 0], [0, 1, 3, 2, 4, 5], [3, 4, 5, 0, 1, 2], [1, 5, 0, 4, 2, 3]]
)
def test_elements_may_lie_in_any_order(order: list[int], tmp_path: Path) -> None:
    frames = make_frames()
    ds = load_ser(write_ser(tmp_path / "x_1.ser", frames, order=order))
    np.testing.assert_array_equal(read(ds), frames)
    np.testing.assert_array_equal(read(pickle.loads(pickle.dumps(ds))), frames)


def test_a_scan_of_many_runs_is_read_piecewise(tmp_path: Path) -> None:
    frames = make_frames((300, 4, 5))
    order = np.random.default_rng(1).permutation(300).tolist()
    ds = load_ser(write_ser(tmp_path / "x_1.ser", frames, order=order), num_partitions=4)
    np.testing.assert_array_equal(read(ds), frames)
    (fact,) = [fact for fact in ds.diagnostics if fact["name"] == "Equal distances"]
    assert fact["value"].startswith("no, ")


def test_elements_without_tags_can_be_read(tmp_path: Path) -> None:
    frames = make_frames()
    path = write_ser(tmp_path / "x_1.ser", frames, header=make_ser_header((6,), 6))
    stripped = bytearray(path.read_bytes())
    start = parse_header(bytes(stripped), path="x", file_size=len(stripped)).table_offset
    first = start + 2 * 6 * 8
    elements = [bytes(stripped[first + 98 * i : first + 98 * i + 90]) for i in range(6)]
    offsets = np.arange(6, dtype="<u8") * 90 + first
    path.write_bytes(bytes(stripped[:start]) + offsets.tobytes() + bytes(48) + b"".join(elements))
    np.testing.assert_array_equal(read(load_ser(path)), frames)


def test_the_last_tag_may_be_missing(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    os.truncate(path, path.stat().st_size - 8)
    np.testing.assert_array_equal(read(load_ser(path)), make_frames())


@pytest.mark.parametrize("content", [b"", b"garbage", b"<ObjectInfo>" * 20])
def test_the_emi_file_does_not_matter(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.emi").write_bytes(content)
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    np.testing.assert_array_equal(read(load_ser(path)), make_frames())
    with pytest.raises(
        HeaderError, match=r"x\.emi: not a SER file.*open the \.ser file beside it|ends inside"
    ):
        load_ser(tmp_path / "x.emi")


# --- kernel ---


def flip(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows from the last to the first, in plain NumPy."""
    return values[:, ::-1]


@settings(max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(1, 70),
    st.integers(0, 20),
    st.data(),
)
def test_rows_are_turned_upside_down(n: int, height: int, row_bytes: int, header: int, data: Any) -> None:
    rng = np.random.default_rng(height * row_bytes)
    check = rng.integers(0, 256, 6, dtype=np.uint8)
    values = rng.integers(0, 256, (n, height, row_bytes), dtype=np.uint8)
    gap = data.draw(st.integers(0, 9))
    elements = [bytes(header) + check.tobytes() + v.tobytes() + b"\xee" * gap for v in values]
    stored = np.frombuffer(b"".join(elements), dtype=np.uint8)
    selected = data.draw(st.lists(st.integers(0, n - 1), max_size=5))
    first_row = data.draw(st.integers(0, height - 1))
    n_rows = data.draw(st.integers(1, height - first_row))
    out = np.full((len(selected), n_rows, row_bytes), 7, dtype=np.uint8)
    starts = np.array(selected, dtype=np.int64) * len(elements[0])
    assert copy_rows_upwards(stored, starts, header, check, height, first_row, out) == -1
    np.testing.assert_array_equal(out, flip(values)[selected, first_row : first_row + n_rows])


def test_pixels_of_another_byte_order_are_swapped() -> None:
    # Seen from the other side: as on a big-endian machine, the file has another byte order than the pixels.
    packing = ElementPacking(ElementHeader(np.dtype(">u2"), (2, 3)), "x.ser")
    values = np.arange(6, dtype=">u2").reshape(2, 3)
    element = bytes(40) + struct.pack("<Hii", 2, 3, 2) + values[::-1].tobytes()
    out = np.empty((1, 2, 3), dtype="u2")
    packing.unpack(0, np.frombuffer(element, dtype=np.uint8), np.zeros(1, dtype=np.int64), 0, out)
    np.testing.assert_array_equal(out[0], values)


# --- damage ---

BIG = [-(2**31), -1, 2**31 - 1]


class TestDamage:
    """A scan (2, 3) of images (4, 5) of uint16. Damage is refused, or leaves what is left of the file."""

    N, ELEMENT, STRIDE = 6, 50 + 40, 58 + 40
    FRAMES = make_frames()

    @pytest.fixture(params=[OLD, NEW])
    def version(self, request: Any) -> int:
        version: int = request.param
        return version

    @pytest.fixture
    def path(self, tmp_path: Path, version: Any) -> Path:
        return write_ser(tmp_path / "x_1.ser", self.FRAMES, nav_shape=(2, 3), version=version)

    def offset_bytes(self, version: int) -> int:
        return 4 if version == OLD else 8

    def dimension(self, version: int, number: int) -> int:
        """Where a dimension starts."""
        return 26 + self.offset_bytes(version) + 38 * number

    def table(self, version: int) -> int:
        """Where the offset arrays start."""
        return self.dimension(version, 2)

    def first(self, version: int) -> int:
        """Where the first element starts."""
        return self.table(version) + 2 * self.N * self.offset_bytes(version)

    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(DataSetException, match=rf"x_1\.ser.*{message}"):
            load_ser(path)

    @pytest.mark.parametrize("less", [0, 1])
    def test_files_cut_in_the_header_are_refused(self, path: Path, version: int, less: int) -> None:
        dimension = self.dimension(version, 0)
        cuts = [0, 1, 4, 6, 10, 14, 18, 22, dimension - 4, dimension, dimension + 24, dimension + 28]
        cuts += [self.dimension(version, 1), self.table(version)]
        for cut in sorted({max(0, cut - less) for cut in cuts}, reverse=True):
            os.truncate(path, cut)
            self.refused(path, "not a SER file|the file ends inside its header|the offset arrays do not fit")
            assert SERDataSet.detect_params(str(path), EXECUTOR) is False

    def test_files_cut_in_the_offset_arrays_are_refused(self, path: Path, version: int) -> None:
        for cut in (self.first(version) - 1, self.table(version) + self.N * self.offset_bytes(version)):
            os.truncate(path, cut)
            self.refused(path, "offset arrays do not fit the file.*end of the header.* that of the file at")

    @pytest.mark.parametrize(
        ("n_bytes", "message"), [(0, "lies outside"), (49, "lies outside"), (89, "no whole")]
    )
    def test_files_cut_in_the_first_element_are_refused(
        self, path: Path, version: int, n_bytes: int, message: str
    ) -> None:
        os.truncate(path, self.first(version) + n_bytes)
        self.refused(path, message)

    @pytest.mark.parametrize(
        ("number", "n_bytes", "left"),
        [(1, 0, 1), (2, 49, 2), (2, 50, 2), (3, 89, 3), (3, 90, 4), (3, 97, 4), (5, 89, 5)],
    )
    def test_files_cut_later_are_read_as_far_as_they_go(
        self, path: Path, version: int, number: int, n_bytes: int, left: int
    ) -> None:
        os.truncate(path, self.first(version) + number * self.STRIDE + n_bytes)
        with pytest.warns(RuntimeWarning, match=rf"x_1\.ser: the header promises 6 .* holds {left} whole"):
            ds = load_ser(path)
        assert ds.meta.image_count == left
        assert tuple(ds.shape) == (2, 3, 4, 5)
        expected = self.FRAMES * (np.arange(6) < left)[:, np.newaxis, np.newaxis]
        np.testing.assert_array_equal(read(ds).reshape(6, 4, 5), expected)

    @pytest.mark.parametrize(
        ("offset", "layout", "value", "message"),
        [
            (0, "H", 0x4D4D, "not a SER file: found .*, expected .*name the type yourself"),
            (2, "H", 0x0196, "not a SER file"),
            *(
                (4, "H", value, "unknown version: found 0x.*, expected 0x0210 or 0x0220")
                for value in (0, 0x0221)
            ),
            *((6, "I", value, r"unknown kind of elements .*0x4120 or 0x4122") for value in (0, 2**32 - 1)),
            (14, "i", 0, "found 6 valid of 0 planned"),
            (14, "i", 5, "found 6 valid of 5 planned"),
            (14, "i", -1, "found 6 valid of -1 planned"),
            (14, "i", 2**31 - 1, "the offset arrays do not fit the file"),
            (
                14,
                "i",
                7,
                "element 0 is not where the file says: found byte .* the offset arrays, which end at",
            ),
            (18, "i", 7, "found 7 valid of 6 planned"),
            (18, "i", -1, "found -1 valid of 6 planned"),
            (18, "i", 2**31 - 1, "valid of 6 planned"),
            (18, "i", 0, "no data found in file: found 0 valid of 6 planned.*single spectrum in the .emi"),
            (22, "I", 0, "the offset arrays do not fit"),
            (22, "I", 2**32 - 1, "the offset arrays do not fit"),
        ],
    )
    def test_impossible_headers_are_refused(
        self, path: Path, offset: int, layout: str, value: int, message: str
    ) -> None:
        patch(path, offset, struct.pack(f"<{layout}", value))
        self.refused(path, message)

    def test_impossible_dimensions_are_refused(self, path: Path, version: int) -> None:
        dimension = self.dimension(version, 0)
        intact = path.read_bytes()
        for offset, values, message in (
            (dimension - 4, [*BIG, 17], "no possible number of dimensions: found .*, expected 0 to 16"),
            (
                dimension - 4,
                [1],
                r"do not fit the number of elements: found sizes \[3\], expected a product of 6",
            ),
            (dimension - 4, [3], "ends inside its header|do not fit"),
            (dimension, [*BIG, 0, 4], r"found sizes \[.*, 2\], expected a product of 6 \(pass nav_shape"),
            (dimension + 24, BIG, "ends inside its header, or the header is too long"),
            (dimension + 34, BIG, "ends inside its header, or the header is too long"),
        ):
            for value in values:
                path.write_bytes(intact)
                patch(path, offset, struct.pack("<i", value))
                self.refused(path, message)

    def test_negative_dimensions_with_a_positive_product_are_refused(self, path: Path, version: int) -> None:
        patch(path, self.dimension(version, 0), struct.pack("<i", -3))
        patch(path, self.dimension(version, 1), struct.pack("<i", -2))
        self.refused(
            path, r"do not fit the number of elements: found sizes \[-3, -2\], expected a product of 6"
        )

    @pytest.mark.parametrize(("tag_type", "shown"), [(0x4152, "time"), (0, "unknown (0x0000)")])
    def test_the_kind_of_tags_does_not_matter(self, path: Path, tag_type: int, shown: str) -> None:
        patch(path, 10, struct.pack("<I", tag_type))
        ds = load_ser(path)
        np.testing.assert_array_equal(read(ds).reshape(6, 4, 5), self.FRAMES)
        assert {"name": "Tags", "value": shown} in ds.diagnostics

    def test_nav_shape_overrules_impossible_dimensions(self, path: Path, version: int) -> None:
        patch(path, self.dimension(version, 0), struct.pack("<i", 2**31 - 1))
        np.testing.assert_array_equal(read(load_ser(path, nav_shape=(6,))), self.FRAMES)
        ds = load("auto", path=path, nav_shape=(2, 3), executor=EXECUTOR)
        assert tuple(ds.shape) == (2, 3, 4, 5)

    def test_impossible_first_elements_are_refused(self, path: Path, version: int) -> None:
        first = self.first(version)
        intact = path.read_bytes()
        for offset, layout, values in (
            (40, "H", [0, 11, 65535]),
            (42, "i", [*BIG[:2], 0]),
            (46, "i", [*BIG[:2], 0]),
        ):
            for value in values:
                path.write_bytes(intact)
                patch(path, first + offset, struct.pack(f"<{layout}", value))
                self.refused(path, f"element 0 at byte {first} has no possible type or size: found type")
                assert SERDataSet.detect_params(str(path), EXECUTOR) is False

    @pytest.mark.parametrize(("data_type", "itemsize"), [(1, 1), (2, 2), (10, 16)])
    def test_elements_larger_than_the_file_are_refused(
        self, path: Path, version: int, data_type: int, itemsize: int
    ) -> None:
        patch(path, self.first(version) + 40, struct.pack("<H2i", data_type, *BIG[2:] * 2))
        expected = 50 + itemsize * (2**31 - 1) ** 2
        self.refused(path, rf"no whole element: found \d+ bytes, expected {expected} bytes")

    @pytest.mark.parametrize("number", [1, 3, 5])
    @pytest.mark.parametrize(
        ("offset", "content", "found"),
        [
            (40, struct.pack("<H", 5), r"\(4, 5\) int16"),
            (42, struct.pack("<2i", 4, 5), r"\(5, 4\) uint16"),
            (42, struct.pack("<2i", 5, 3), r"\(3, 5\) uint16"),
        ],
    )
    def test_elements_have_to_be_alike(
        self, path: Path, version: int, number: int, offset: int, content: bytes, found: str
    ) -> None:
        at = self.first(version) + number * self.STRIDE
        patch(path, at + offset, content)
        differs = rf"element {number} at byte {at} differs from the first one"
        self.refused(path, rf"{differs}: found {found}, expected \(4, 5\) uint16")

    @pytest.mark.parametrize("value", [0, 20, "size", "most"])
    def test_missing_offsets_at_the_end_leave_the_frames_before(
        self, path: Path, version: int, value: Any
    ) -> None:
        n = self.offset_bytes(version)
        value = {"size": path.stat().st_size, "most": 2 ** (8 * n) - 1}.get(value, value)
        for number in (4, 5):
            patch(path, self.table(version) + number * n, value.to_bytes(n, "little"))
        with pytest.warns(RuntimeWarning, match="holds 4 whole"):
            ds = load_ser(path)
        np.testing.assert_array_equal(read(ds).reshape(6, 4, 5)[:4], self.FRAMES[:4])

    @pytest.mark.parametrize("value", [0, 20, "table", "most"])
    def test_offsets_that_lead_elsewhere_are_refused(self, path: Path, version: int, value: Any) -> None:
        n = self.offset_bytes(version)
        value = {"table": self.first(version) - 1, "most": 2 ** (8 * n) - 1}.get(value, value)
        patch(path, self.table(version) + 3 * n, value.to_bytes(n, "little"))
        self.refused(
            path, f"element 3 is not where the file says: found byte {value}, expected all of it between"
        )

    @pytest.mark.parametrize("number", [0, 1])
    def test_elements_may_not_overlap(self, path: Path, version: int, number: int) -> None:
        n = self.offset_bytes(version)
        at = self.first(version) + number * self.STRIDE
        patch(path, self.table(version) + 5 * n, at.to_bytes(n, "little"))
        self.refused(path, f"elements {number} and 5 overlap: found a distance of 0 bytes from byte {at} on")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
    @given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
    @pytest.mark.filterwarnings("ignore:.*whole ones")
    def test_any_damage_is_refused_or_leaves_pixels(self, path: Path, offset: int, content: bytes) -> None:
        intact = path.read_bytes()
        patch(path, offset, content)
        try:
            ds = load_ser(path)
            if ds.shape.nav.size < 1000 and ds.shape.sig.size < 1000:
                read(ds)
        except DataSetException as err:
            assert "x_1.ser" in str(err)
        finally:
            path.write_bytes(intact)


@settings(max_examples=100)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"II\x97\x01", *(make_ser_header((2, 3), 6)[:n] for n in (6, 22, 34))]),
)
def test_any_bytes_parse_or_raise_the_family(raw: bytes, start: bytes) -> None:
    try:
        header = parse_header(start + raw, path="x.ser", file_size=1000)
    except HeaderError as err:
        assert "x.ser" in str(err)
    else:
        assert header.table_stop <= 1000


def test_a_difference_that_shows_later_is_named_then(tmp_path: Path) -> None:
    # Of the same size as all others, so that nothing is unusual about its place.
    path = write_ser(tmp_path / "x_1.ser", make_frames((200, 4, 5)))
    header = parse_header(path.read_bytes(), path="x", file_size=path.stat().st_size)
    at = header.table_stop + 100 * 98
    patch(path, at + 42, struct.pack("<2i", 4, 5))
    ds = load_ser(path)
    message = rf"x_1\.ser: element 100 at byte {at} differs from the first one: found \(5, 4\) uint16"
    with pytest.raises(DataSetException, match=message):
        read(ds)
    with Context.make_with("threads") as ctx, pytest.raises(DataSetException, match=message):
        ctx.run_udf(dataset=ds, udf=SumUDF())
    roi = np.arange(200) < 100
    with Context(executor=EXECUTOR) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF(), roi=roi)["intensity"].data
    np.testing.assert_array_equal(total, make_frames((200, 4, 5))[:100].sum(axis=0))


@pytest.mark.parametrize("number", [1, 70, 117, 199])
def test_an_element_of_another_size_is_found_when_loading(number: int, tmp_path: Path) -> None:
    elements = list(make_frames((200, 4, 5)))
    elements[number] = elements[number][:3]
    path = write_ser(tmp_path / "x_1.ser", elements)
    with pytest.raises(
        DataSetException, match=rf"element {number} at byte \d+ differs .* found \(3, 5\) uint16"
    ):
        load_ser(path)


def test_a_change_after_loading_is_noticed(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    ds = load_ser(path)
    write_ser(path, make_frames((6, 5, 4)))
    with pytest.raises(DataSetException, match=r"x_1\.ser: an element differs .*was the file changed"):
        read(ds)


def test_opening_a_large_scan_reads_little_more_than_its_offsets(tmp_path: Path) -> None:
    n = 20_000
    path = write_ser(tmp_path / "x_1.ser", np.zeros((n, 2, 3), "u1"), nav_shape=(100, 200))
    before = io_counts()
    ds = load_ser(path)
    assert (io_counts() - before).read_bytes < 8 * n + 16_000
    assert (io_counts() - before).reads < 100
    assert len(pickle.dumps(next(iter(ds.get_partitions())))) < 2048


# --- parameters and facts ---


def test_the_path_of_the_emi_file_is_ignored(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    with pytest.warns(DeprecationWarning, match="emipath"):
        ds = load_ser(path, emipath="missing.emi")
    np.testing.assert_array_equal(read(ds), make_frames())


@pytest.mark.parametrize("io_backend", ["mmap", "buffered", BufferedBackend(), BufferedBackend, "nonsense"])
def test_there_is_no_choice_of_backends(io_backend: Any, tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    with pytest.raises(UnsupportedBackendError, match=r"alternative I/O backends|not an I/O backend") as err:
        load_ser(path, io_backend=io_backend)
    assert isinstance(err.value, ValueError)


def test_backends_of_others_are_refused_too(tmp_path: Path) -> None:
    class Other(IOBackend):
        """Not registered."""

    with pytest.raises(ValueError, match="SERDataSet does not support alternative I/O backends"):
        SERDataSet(tmp_path / "x_1.ser", io_backend=Other())


@pytest.mark.parametrize("sig_shape", [(20,), (2, 2, 5), (5, 4)])
def test_another_shape_is_given_to_upright_frames(sig_shape: tuple[int, ...], tmp_path: Path) -> None:
    ds = load_ser(write_ser(tmp_path / "x_1.ser", make_frames()), sig_shape=sig_shape)
    np.testing.assert_array_equal(read(ds), make_frames().reshape(6, *sig_shape))
    with pytest.raises(ShapeError, match="sig_shape must be of size: 20"):
        load_ser(tmp_path / "x_1.ser", sig_shape=(3, 7))


def test_the_sync_offset_is_limited(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames())
    with pytest.raises(ShapeError, match=r"sync_offset should be in \(-6, 6\), which is \(-image_count"):
        load_ser(path, sync_offset=6)


@pytest.mark.parametrize("name", ["x_1.ser", "x_1.SER"])
def test_detection_answers_with_the_planned_shape(name: str, tmp_path: Path) -> None:
    header = make_ser_header((3, 4), 5)
    path = str(write_ser(tmp_path / name, make_frames((5, 4, 5)), nav_shape=(4, 3), header=header))
    assert SERDataSet.detect_params(path, EXECUTOR) == {
        "parameters": {"path": path, "nav_shape": (4, 3), "sig_shape": (4, 5)},
        "info": {"image_count": 12, "native_sig_shape": (4, 5)},
    }


def test_detection_does_not_touch_files_with_another_extension(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x.emi", make_frames())
    before = io_counts()
    assert SERDataSet.detect_params(path, EXECUTOR) is False
    assert io_counts() == before


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_ser(tmp_path / "x_1.ser", make_frames(dtype="f4"), nav_shape=(2, 3), tags="position")
    ds = load_ser(path, sync_offset=1)
    assert repr(ds) == f"<SERDataSet for {path}>"
    assert ds.get_cache_key() == {"path": str(path), "shape": (2, 3, 4, 5), "sync_offset": 1}
    json.dumps(ds.get_cache_key())
    facts = {fact["name"]: fact["value"] for fact in ds.get_diagnostics()}
    assert facts == {
        "dtype": "float32",
        "SER version": "0x0220",
        "Elements": "images, 6 of 6 planned",
        "Tags": "time and position",
        "Dimensions, fast axis first": [
            {"name": "Position", "value": "3, step 1 meters"},
            {"name": "Position", "value": "2, step 1 meters"},
        ],
        "Equal distances": "yes",
    }
    assert SERDataSet.get_supported_extensions() == {"ser"}


def test_json_parameters_become_arguments() -> None:
    converter = SERDataSet.get_msg_converter()()
    assert isinstance(converter, SERDatasetParams)
    message = {"type": "SER", "path": "x_1.ser", "nav_shape": [2, 3], "sync_offset": 1}
    params = converter.to_python(message)
    assert params == {"path": "x_1.ser", "nav_shape": (2, 3), "sync_offset": 1}
    assert converter.from_python(params) == message
