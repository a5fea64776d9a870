from __future__ import annotations

import json
import os
import pickle
import struct
import threading
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.exceptions import (
    DataSetException,
    HeaderError,
    MissingFileError,
    ShapeError,
    SizeMismatchError,
)
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.dm import DMDataSet, StackedDMDataSet
from libertem.io.dataset.dm_single import DMDatasetParams, SingleDMDataSet, inspect_file
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import assert_delivered
from libertem.testing.suite.reading import read as read_tiles
from libertem.testing.suite.transposed import TransposedTests
from libertem.testing.writers.dm import (
    array,
    image_tags,
    make_dm,
    number,
    string,
    text,
    thumbnail_tags,
    write_dm,
    write_tags,
)

EXECUTOR = InlineJobExecutor(debug=True)
DTYPES = ("<u2", "u1", "i1", "<i2", "<i4", "<u4", "<f4", "<f8", "<c8", "<c16")

# --- the common suite ---


class TestDM4(DataSetTests):
    filetype = "dm"
    dtypes = (*DTYPES, ">u2", ">f4", ">c16")
    # Frames larger than all tags behind them, so that damage at the end of the file hits a frame.
    sig_shape = (16, 24)
    larger_nav_shape = "refused"
    sig_shape_override = "reinterpret"
    version: ClassVar[int] = 4

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        path = folder / f"scan.dm{self.version}"
        order: Any = ">" if frames.dtype.str[0] == ">" else "<"
        write_dm(path, image_tags(frames), version=self.version, byte_order=order)
        return {"path": str(path)}

    def test_sig_shape_of_other_size(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Reads the pixels from the start in frames of that size, but never more frames than there were."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        n, width = self.n_frames, self.sig_shape[-1]
        cut = [((1, width), n), ((3, 7), n), ((5, 2, 4), n), ((1, 1), 3)]
        for sig_shape, n_shown in [*cut, ((2 * self.sig_shape[0], width), n // 2), ((frames.size,), 1)]:
            arguments = {"nav_shape": (n_shown,), "sig_shape": sig_shape}
            ds = self.load(ctx, kwargs, io_backend=io_backend, **arguments)
            n_px = n_shown * int(np.prod(sig_shape))
            expected = frames.astype("float64").reshape(-1)[:n_px].reshape(n_shown, *sig_shape)
            assert_delivered(read_tiles(ds, dest_dtype="float64"), expected, None, repr(ds))
        for nav_shape, sig_shape in (((n + 1,), (1, 1)), ((n,), (17, 24)), ((2,), (frames.size,))):
            with pytest.raises(ShapeError, match=r"scan\.dm.*found .* expected .* at most"):
                self.load(ctx, kwargs, nav_shape=nav_shape, sig_shape=sig_shape)


class TestDM3(TestDM4):
    dtypes = ("<i2",)
    version = 3


class SiblingsDataSet(StackedDMDataSet):
    """A stack that is opened by its first file, as the common suite wants it."""

    def __init__(self, path: Any, **kwargs: Any) -> None:
        super().__init__(sorted(Path(path).parent.glob("*.dm3")) or [path], **kwargs)


class TestStack(DataSetTests):
    """Files with other offsets and numbers of frames."""

    filetype = SiblingsDataSet
    dtypes = ("<u2", ">f4", "<c8")
    sig_shape = (20, 32)
    nav_shape = (4, 6)
    detectable = False
    max_pickle_bytes = 4096
    large_file_bytes = 4 << 20

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        order: Any = ">" if frames.dtype.str[0] == ">" else "<"
        for number_, piece in enumerate(np.split(frames, (1, 6, 8))):
            image = image_tags(piece if len(piece) > 1 else piece[0])
            before = {"Comment": text("x" * number_)}
            write_dm(folder / f"{number_}.dm3", image, version=3, byte_order=order, before=before)
        return {"path": str(folder / "0.dm3")}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return max(Path(kwargs["path"]).parent.glob("*.dm3"), key=lambda path: path.stat().st_size)

    def test_no_other_type_claims_own_files(self, tmp_path: Path) -> None:
        """One file is recognized for what it is, but not as a stack."""
        path = self.write_frames(tmp_path, self.make_frames(self.n_frames))["path"]
        assert DMDataSet.detect_params(path, EXECUTOR)
        assert StackedDMDataSet.detect_params(path, EXECUTOR) is False


class TestTransposed(TransposedTests):
    """Files without whole frames."""

    filetype = "dm"
    dtypes = ("<u2", "u1", "<i2", "<f4", "<c8", "<c16", ">u2", ">f4")
    sig_shape = (16, 24)
    larger_nav_shape = "refused"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        order: Any = ">" if frames.dtype.str[0] == ">" else "<"
        stored = np.moveaxis(frames[np.newaxis], (0, 1), (-2, -1))
        path = write_dm(folder / "scan.dm4", image_tags(stored), byte_order=order)
        return {"path": str(path), "transposed": "direct"}


# --- helpers ---


def load_dm(*args: Any, **kwargs: Any) -> Any:
    return load("dm", *args, executor=EXECUTOR, **kwargs)


def read(ds: Any) -> npt.NDArray[Any]:
    """All frames, blanks as zeros."""
    return read_tiles(ds).pixels.reshape(tuple(ds.shape))


def make_frames(*shape: int, dtype: str = "<u2") -> npt.NDArray[Any]:
    return (np.arange(np.prod(shape)) % 250).astype(dtype).reshape(shape)


def write_scan(folder: Path, *shape: int, dtype: str = "<u2", **kwargs: Any) -> Path:
    """File with one image of that shape, as stored, and a thumbnail."""
    return write_dm(folder / "x.dm4", image_tags(make_frames(*shape, dtype=dtype), **kwargs))


def warnings_of_load(*args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = load_dm(*args, **kwargs)
    return ds, [str(warning.message) for warning in caught if warning.category is RuntimeWarning]


# --- what the axes mean ---

SPECTRA = "Spectrum image"


@pytest.mark.parametrize(
    ("stored", "format_", "flag", "nav_shape", "sig_shape"),
    [
        ((4, 5), None, None, (1,), (4, 5)),
        ((1, 5), None, None, (1,), (1, 5)),
        ((3, 4, 5), None, None, (3,), (4, 5)),
        ((3, 4, 5), "Image", True, (3,), (4, 5)),
        ((2, 3, 4, 5), None, True, (2, 3), (4, 5)),
        ((2, 3, 4, 5), "Diffraction image", True, (2, 3), (4, 5)),
        ((2, 3, 4, 5), None, None, None, None),
        ((2, 3, 4, 5), "Image", False, None, None),
        ((3, 4, 5), "Image", False, None, None),
        ((4, 5), None, False, None, None),
        ((2, 3, 2, 4, 5), None, True, (2, 3, 2), (4, 5)),
        ((2, 3, 2, 4, 5), None, None, None, None),
        ((3, 9), SPECTRA, None, (3,), (9,)),
        ((3, 9), " SPECTRUM IMAGE ", True, (3,), (9,)),
        ((2, 3, 9), SPECTRA, True, (2, 3), (9,)),
        ((2, 3, 9), SPECTRA, None, None, None),
        ((2, 3, 9), SPECTRA, False, None, None),
    ],
)
def test_axes_are_those_that_the_tags_tell(
    stored: tuple[int, ...],
    format_: str | None,
    flag: bool | None,
    nav_shape: tuple[int, ...] | None,
    sig_shape: tuple[int, ...] | None,
    tmp_path: Path,
) -> None:
    path = write_scan(tmp_path, *stored, format=format_, order_flag=flag)
    if nav_shape is None:
        with pytest.raises(DataSetException, match=r"x\.dm4.*C-ordered.*force_c_order=True"):
            load_dm(path)
        ds, _ = warnings_of_load(path, force_c_order=True)
        assert tuple(ds.shape)[-len(stored) :] == stored
        check_transposed(path)
    else:
        ds, _ = warnings_of_load(path)
        assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == (nav_shape, sig_shape)
        assert all(type(extent) is int for extent in ds.shape)
    assert ds.meta.image_count == ds.shape.nav.size
    np.testing.assert_array_equal(read(ds).reshape(stored), make_frames(*stored))


def check_transposed(path: Path) -> None:
    ds, _ = warnings_of_load(path, transposed="direct")
    facts = inspect_file(os.fspath(path))
    stored, sig_dims = facts.stored_shape, len(facts.sig_shape)
    assert ds.shape.sig.to_tuple() == stored[:sig_dims]
    assert ds.shape.nav.to_tuple() == (stored[sig_dims:] or (1,))
    frames = np.moveaxis(make_frames(*stored), range(sig_dims), range(-sig_dims, 0))
    np.testing.assert_array_equal(read(ds).reshape(frames.shape), frames)


def test_files_with_whole_frames_do_not_mind_being_read_transposed(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 3, 4, 5, order_flag=True, format="Image")
    ds = load_dm(path, transposed="direct", sig_shape=(5,))
    np.testing.assert_array_equal(read(ds).reshape(-1), make_frames(30).reshape(-1))
    assert ds.get_cache_key() == load_dm(path, sig_shape=(5,)).get_cache_key()


def test_transposed_files_allow_no_frames_of_another_size(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 4, 6, 2, 3)
    assert tuple(load_dm(path, transposed="direct", sig_shape=(3, 8)).shape) == (2, 3, 3, 8)
    for kwargs in ({"sig_shape": (3, 4)}, {"nav_shape": (7,)}):
        with pytest.raises(ShapeError, match=r"x\.dm4.*found"):
            load_dm(path, transposed="direct", **kwargs)


def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 4, 6, 2, 3)
    for kwargs, message in (
        ({"transposed": "yes"}, "None or 'direct', found 'yes'"),
        ({"transposed": "direct", "transposed_bytes": 0}, "has to be positive, found 0"),
        ({"transposed": "direct", "force_c_order": True}, "contradict each other"),
    ):
        with pytest.raises(ValueError, match=message):
            SingleDMDataSet(path, **kwargs)


def test_a_spectrum_image_with_four_axes_is_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 3, 4, 5, format=SPECTRA, order_flag=True)
    for kwargs in ({}, {"force_c_order": True}):
        with pytest.raises(DataSetException, match="two or three axes"):
            load_dm(path, **kwargs)


def test_forced_spectra_have_one_signal_axis(tmp_path: Path) -> None:
    ds = load_dm(write_scan(tmp_path, 9, 2, 3, format=SPECTRA), force_c_order=True)
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == ((9, 2), (3,))


@pytest.mark.parametrize(
    ("kwargs", "n_warnings"),
    [
        ({"format": "Image"}, 0),
        ({"format": "Diffraction image"}, 0),
        ({"format": "image"}, 1),
        ({"format": "Spectrum"}, 1),
        ({"order_flag": True}, 1),
        ({"tags": {"Acquisition": {}}}, 1),
        ({}, 0),
    ],
)
def test_an_unknown_format_is_warned_of(kwargs: dict[str, Any], n_warnings: int, tmp_path: Path) -> None:
    _, messages = warnings_of_load(write_scan(tmp_path, 2, 3, 4, **kwargs))
    assert len(messages) == n_warnings
    assert all("unrecognized format" in message and "x.dm4" in message for message in messages)


def test_the_facts_say_how_a_file_is_stored(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 4, 5, 2, 3, dtype="<f4")
    facts = inspect_file(str(path))
    assert (facts.c_order, facts.stored_shape, facts.dtype) == (False, (4, 5, 2, 3), np.dtype("<f4"))
    pixels = np.frombuffer(path.read_bytes(), "<f4", 120, facts.data_offset)
    np.testing.assert_array_equal(pixels, make_frames(4, 5, 2, 3, dtype="<f4").ravel())


@pytest.mark.parametrize("version", [3, 4])
def test_ncempy_and_this_reader_agree(version: int, tmp_path: Path) -> None:
    from ncempy.io import dm as ncempy_dm

    for dtype in DTYPES:
        path = tmp_path / f"{dtype[1:]}.dm{version}"
        write_dm(path, image_tags(make_frames(3, 4, 5, dtype=dtype)), version=version)
        with ncempy_dm.fileDM(path) as other:
            np.testing.assert_array_equal(other.getDataset(0)["data"], read(load_dm(path)))


# --- which image ---


def write_several(folder: Path, *, thumbnail: bool) -> Path:
    images = [make_frames(9)[None][0], make_frames(2, 3), make_frames(5, 2, 3), make_frames(4, 4)]
    return write_dm(folder / "x.dm4", *(image_tags(image) for image in images), thumbnail=thumbnail)


def test_the_first_image_with_two_axes_is_read(tmp_path: Path) -> None:
    path = write_several(tmp_path, thumbnail=True)
    ds, messages = warnings_of_load(path)
    np.testing.assert_array_equal(read(ds), make_frames(1, 2, 3))
    (message,) = messages
    assert "several datasets (2, 3, 4): using the first" in message


@pytest.mark.parametrize("thumbnail", [True, False])
def test_an_image_can_be_chosen(thumbnail: bool, tmp_path: Path) -> None:
    path = write_several(tmp_path, thumbnail=thumbnail)
    ds, messages = warnings_of_load(path, dataset_index=2 + thumbnail)
    np.testing.assert_array_equal(read(ds), make_frames(5, 2, 3))
    assert not messages


@pytest.mark.parametrize("index", [0, 1, 5, 1000, -1])
def test_an_image_that_is_no_candidate_is_refused(index: int, tmp_path: Path) -> None:
    path = write_several(tmp_path, thumbnail=True)
    with pytest.raises(
        DataSetException, match=r"x\.dm4: dataset_index .*thumbnail.*expected one of \[2, 3, 4\]"
    ):
        load_dm(path, dataset_index=index)


def test_an_index_that_is_no_integer_is_refused(tmp_path: Path) -> None:
    path = write_several(tmp_path, thumbnail=True)
    with pytest.raises(TypeError):
        load_dm(path, dataset_index="1")


def test_more_images_than_a_byte_can_count_are_told_apart(tmp_path: Path) -> None:
    images = [image_tags(np.full((1, 2), i, dtype="<u2")) for i in range(300)]
    path = write_dm(tmp_path / "x.dm3", *images, version=3)
    for index in (1, 128, 257, 300):
        assert (read(load_dm(path, dataset_index=index)) == index - 1).all()


@pytest.mark.parametrize("images", [[], [image_tags(make_frames(9))]])
def test_a_file_without_data_is_refused(images: list[Any], tmp_path: Path) -> None:
    for thumbnail in (True, False):
        path = write_dm(tmp_path / "x.dm4", *images, thumbnail=thumbnail)
        with pytest.raises(DataSetException, match="unable to find any 2/3/4D datasets"):
            load_dm(path)
        assert DMDataSet.detect_params(path, EXECUTOR) is False


@pytest.mark.parametrize("code", [0, 4, 5, 8, 14, 23, 27, 28, 99, 2**32 - 1])
def test_pixels_of_an_unsupported_type_are_refused(code: int, tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 2, dtype="<i4", patches={"DataType": number(5, code)})
    with pytest.raises(DataSetException, match=rf"x\.dm4: .*found DataType {code} "):
        load_dm(path)
    with pytest.raises(DataSetException, match=rf"x\.dm4: .*found DataType {code} "):
        load_dm(files=[path])
    assert DMDataSet.detect_params(path, EXECUTOR) is False


@pytest.mark.parametrize(
    "patches",
    [
        {"Data": array(4, np.zeros(23))},
        {"Data": array(4, np.zeros(25))},
        {"Data": array(4, [])},
        {"Data": number(5, 1)},
        {"Data": [array(4, np.zeros(24))]},
        {"DataType": number(5, 11)},
        {"Dimensions": [number(5, 4), number(5, 3)]},
        {"Dimensions": [number(5, 2**32 - 1)] * 9},
    ],
)
def test_pixels_of_another_size_are_refused(patches: dict[str, Any], tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 3, 4, patches=patches)
    with pytest.raises(DataSetException, match=r"x\.dm4: the pixels do not have the size"):
        load_dm(path)
    with pytest.raises(DataSetException, match=r"x\.dm4"):
        load_dm(files=[path])


@pytest.mark.parametrize(
    "patches",
    [{"Dimensions": []}, {"Dimensions": [number(5, 0), number(5, 3)]}, {"Dimensions": [text("2")] * 2}],
)
def test_an_image_without_extents_is_no_candidate(patches: dict[str, Any], tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 3, 4, patches=patches)
    with pytest.raises(DataSetException, match="unable to find any"):
        load_dm(path)


# --- files that are not what they seem ---


def test_the_version_counts_rather_than_the_extension(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "x.dm4", image_tags(make_frames(3, 4, 5)), version=3)
    ds = load_dm(path)
    np.testing.assert_array_equal(read(ds), make_frames(3, 4, 5))
    assert {"name": "DM version", "value": 3} in ds.diagnostics
    assert DMDataSet.detect_params(path, EXECUTOR)


@pytest.mark.parametrize("version", [3, 4])
def test_tags_of_other_images_do_not_matter(version: int, tmp_path: Path) -> None:
    decoy = {"Data": array(10, np.zeros(5000)), "DataType": number(5, 1), "Dimensions": [number(5, 7)] * 3}
    tags = {"Parent": {"ImageData": decoy, "Meta Data": {"Format": text(SPECTRA)}}, **decoy, "s": string("x")}
    path = tmp_path / "x.dm4"
    image = image_tags(make_frames(3, 4, 5), tags=tags, calibrated=False)
    write_dm(path, image, version=version, before={"Data": decoy}, after={"ImageData": decoy})
    ds, _ = warnings_of_load(path)
    np.testing.assert_array_equal(read(ds), make_frames(3, 4, 5))


@pytest.mark.parametrize("backend", ["mmap", "buffered", "direct"])
@pytest.mark.parametrize("n_bytes", range(8))
def test_pixels_may_start_at_any_byte(n_bytes: int, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "x.dm4"
    write_dm(path, image_tags(make_frames(3, 4, 5, dtype="<f8")), before={"x": string("." * n_bytes)})
    np.testing.assert_array_equal(read(load_dm(path, io_backend=backend)), make_frames(3, 4, 5, dtype="<f8"))


def test_a_size_that_is_a_multiple_of_frames_misleads_nobody(tmp_path: Path) -> None:
    for n_bytes in range(40):
        path = tmp_path / f"{n_bytes}.dm3"
        image = image_tags(make_frames(3, 4, 5))
        write_dm(path, image, version=3, after={"x": string("." * n_bytes)})
        np.testing.assert_array_equal(read(load_dm(path)), make_frames(3, 4, 5))


@pytest.mark.parametrize("version", [3, 4])
def test_every_truncation_is_refused(version: int, tmp_path: Path) -> None:
    path = write_dm(tmp_path / "x.dm3", image_tags(make_frames(2, 3, 4)), version=version)
    raw = path.read_bytes()
    for n_bytes in {*range(0, len(raw) - 8, 7), *range(len(raw) - 40, len(raw) - 8)}:
        path.write_bytes(raw[:n_bytes])
        with pytest.raises(HeaderError, match=r"x\.dm3"):
            load_dm(path)
        assert DMDataSet.detect_params(str(path), EXECUTOR) is False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\0\0\0\3", b"\0\0\0\4", b"\0\0\0\3\0\0\0\0\0\0\0\1"]))
@example(b"0" * 1000, b"")
def test_noise_is_refused(tmp_path: Path, content: bytes, head: bytes) -> None:
    path = tmp_path / "x.dm4"
    path.write_bytes(head + content)
    assert DMDataSet.detect_params(str(path), EXECUTOR) is False
    for kwargs in ({"path": path}, {"files": [path]}):
        with pytest.raises(DataSetException, match=r"x\.dm4"):
            load_dm(**kwargs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.sampled_from([3, 4]), st.integers(0, 1500), st.binary(min_size=1, max_size=9))
def test_damage_gives_an_error_or_an_array(tmp_path: Path, version: int, at: int, patch: bytes) -> None:
    path = tmp_path / "x.dm4"
    raw = make_dm({"ImageList": [thumbnail_tags(), image_tags(make_frames(3, 4, 5))]}, version=version)
    path.write_bytes((raw[:at] + patch + raw[at + len(patch) :])[: len(raw)])
    try:
        ds, _ = warnings_of_load(path)
    except DataSetException as err:
        assert "x.dm4" in str(err)
    else:
        assert read(ds).nbytes <= 120


# --- parameters ---


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"nav_shape": (7,)}, ShapeError, r"nav_shape.*found \(7,\) = 7 positions, expected 6 at most"),
        ({"nav_shape": (2, 4)}, ShapeError, r"found \(2, 4\) = 8 positions"),
        ({"sig_shape": (4, 6)}, ShapeError, "144 px, expected 120 px at most"),
        ({"sig_shape": (4, -5)}, ShapeError, "sig_shape has to consist of positive integers"),
        ({"sync_offset": 6}, ShapeError, r"sync_offset should be in \(-6, 6\), which is \(-image_count,"),
        ({"sync_offset": -6}, ShapeError, "sync_offset should be in"),
        ({"scan_size": (2, 3)}, TypeError, "scan_size"),
        ({"io_backend": "doesn't exist"}, DataSetException, "not an I/O backend"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    kwargs: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_dm(write_scan(tmp_path, 6, 4, 5), **kwargs)


def test_a_frame_of_another_size_cuts_the_pixels_anew(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 6, 4, 5)
    pixels = make_frames(120)
    ds = load_dm(path, sig_shape=(7,))
    assert (tuple(ds.shape), ds.shape.sig.dims, ds.meta.image_count) == ((6, 7), 1, 6)
    np.testing.assert_array_equal(read(ds).ravel(), pixels[:42])
    ds = load_dm(path, sig_shape=(5, 8), nav_shape=(2,), sync_offset=1)
    assert ds.meta.image_count == 3
    np.testing.assert_array_equal(read(ds).ravel(), pixels[40:120])


def test_other_axes_can_be_given_to_spectra(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 2, 3, 12, format=SPECTRA, order_flag=True)
    ds = load_dm(path, nav_shape=(6,), sig_shape=(3, 4))
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == ((6,), (3, 4))
    np.testing.assert_array_equal(read(ds).ravel(), make_frames(72))


# --- detection ---


@pytest.mark.parametrize(
    ("stored", "nav_shape"), [((4, 5), (1, 1)), ((3, 4, 5), (1, 3)), ((2, 3, 4, 5), (2, 3))]
)
def test_detection_tells_shapes_whatever_the_order(
    stored: tuple[int, ...], nav_shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = str(write_scan(tmp_path, *stored))
    n = int(np.prod(nav_shape))
    for cls in (DMDataSet, SingleDMDataSet):
        assert cls.detect_params(path, EXECUTOR) == {
            "parameters": {"path": path, "nav_shape": nav_shape, "sig_shape": (4, 5), "sync_offset": 0},
            "info": {"image_count": n, "native_sig_shape": (4, 5)},
        }
    assert StackedDMDataSet.detect_params(path, EXECUTOR) is False


def test_spectra_are_not_detected(tmp_path: Path) -> None:
    for stored in ((3, 9), (2, 3, 9)):
        path = write_scan(tmp_path, *stored, format=SPECTRA, order_flag=True)
        assert DMDataSet.detect_params(path, EXECUTOR) is False
        with pytest.raises(DataSetException, match="a spectrum image is not detected"):
            load("auto", path=path, executor=EXECUTOR)


def test_detected_stacks_are_loaded_as_they_are(tmp_path: Path) -> None:
    ds = load("auto", path=write_scan(tmp_path, 3, 4, 5), executor=EXECUTOR)
    assert tuple(ds.shape) == (3, 4, 5)


@pytest.mark.parametrize("name", ["x.DM4", "x.Dm3"])
def test_the_case_of_the_extension_does_not_matter(name: str, tmp_path: Path) -> None:
    path = write_dm(tmp_path / name, image_tags(make_frames(3, 4, 5)))
    assert DMDataSet.detect_params(path, EXECUTOR)


def test_a_file_with_another_extension_is_loaded_but_not_detected(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "x.gtg", image_tags(make_frames(3, 4, 5)))
    before = io_counts()
    assert DMDataSet.detect_params(path, EXECUTOR) is False
    assert io_counts() == before
    np.testing.assert_array_equal(read(load_dm(path)), make_frames(3, 4, 5))


@pytest.mark.parametrize("version", [3, 4])
def test_large_thumbnails_and_many_tags_are_not_read_for_detection(version: int, tmp_path: Path) -> None:
    noise = {f"tag {i}": array(4, np.zeros(2000)) for i in range(100)}
    images = [thumbnail_tags((300, 300)), image_tags(make_frames(3, 200, 200), tags={"Acquisition": noise})]
    path = write_tags(tmp_path / "x.dm4", {"a": noise, "ImageList": images, "z": noise}, version=version)
    before = io_counts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert DMDataSet.detect_params(path, EXECUTOR)
    assert path.stat().st_size > 20 * PROBE_BYTES
    n_bytes = (io_counts() - before).read_bytes
    # Without sizes, version 3 has to be walked through tag by tag.
    assert n_bytes <= (PROBE_BYTES if version == 4 else path.stat().st_size)


# --- the factory ---


def test_the_arguments_tell_which_data_set_is_meant(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 3, 4, 5)
    for single in (DMDataSet(path), DMDataSet(str(path)), DMDataSet(path=path), DMDataSet(path, (3,))):
        assert type(single) is SingleDMDataSet
    for stack in (DMDataSet([path]), DMDataSet((path, path)), DMDataSet(files=[path])):
        assert type(stack) is StackedDMDataSet
    for cls in (SingleDMDataSet, StackedDMDataSet):
        assert issubclass(cls, DMDataSet)
        assert cls.get_supported_extensions() == {"dm3", "dm4"}
    with pytest.raises(TypeError, match="path"):
        DMDataSet()


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_both_kinds_survive_pickling(dumps: Any, tmp_path: Path) -> None:
    path = write_scan(tmp_path, 3, 4, 5)
    for fresh in (DMDataSet(path), DMDataSet([path, path])):
        copy = pickle.loads(dumps(fresh))
        assert type(copy) is type(fresh)
        again = pickle.loads(dumps(copy.initialize(EXECUTOR)))
        assert again.check_valid()
        np.testing.assert_array_equal(read(again).reshape(-1, 4, 5)[:3], make_frames(3, 4, 5))


# --- stacks ---


def write_stack(folder: Path, shapes: list[tuple[int, ...]], **kwargs: Any) -> list[Path]:
    """Files whose pixels continue those of the file before, each at another offset."""
    files = []
    start = 0
    for i, shape in enumerate(shapes):
        n = int(np.prod(shape))
        pixels = np.arange(start, start + n).astype(kwargs.get("dtype", "<u2")).reshape(shape)
        files.append(
            write_dm(folder / f"{i}.dm3", image_tags(pixels), version=3, before={"x": text("x" * i)})
        )
        start += n
    return files


def test_frames_of_all_files_follow_each_other(tmp_path: Path) -> None:
    files = write_stack(tmp_path, [(4, 5), (3, 4, 5), (1, 4, 5)])
    ds = load_dm(files=files)
    assert (tuple(ds.shape), ds.meta.image_count) == ((5, 4, 5), 5)
    np.testing.assert_array_equal(read(ds).ravel(), np.arange(100))
    assert ds.diagnostics[1] == {"name": "Number of files", "value": 3}


def test_the_order_is_that_of_the_list(tmp_path: Path) -> None:
    a, b, c = write_stack(tmp_path, [(4, 5)] * 3)
    ds = load_dm([str(c), a, c, b])
    assert ds.meta.image_count == 4
    np.testing.assert_array_equal(read(ds)[:, 0, 0], [40, 0, 40, 20])


@pytest.mark.parametrize("nav_shape", [(2, 2), (3, 5), (1,)])
def test_a_stack_may_have_more_or_fewer_scan_positions(nav_shape: tuple[int, ...], tmp_path: Path) -> None:
    ds = load_dm(files=write_stack(tmp_path, [(4, 5)] * 4), nav_shape=nav_shape)
    n = int(np.prod(nav_shape))
    expected = np.concatenate([np.arange(80), np.zeros(20 * n)])[: 20 * n]
    np.testing.assert_array_equal(read(ds), expected.reshape(*nav_shape, 4, 5))


def test_the_second_image_of_each_file_is_used(tmp_path: Path) -> None:
    images = [image_tags(np.full((2, 2), value, "<u2")) for value in (1, 2, 3)]
    several = write_dm(tmp_path / "0.dm4", *images, thumbnail=False)
    single = write_dm(tmp_path / "1.dm4", images[0], thumbnail=False)
    with_thumbnail = write_dm(tmp_path / "2.dm4", *images)
    np.testing.assert_array_equal(read(load_dm([several, single, with_thumbnail]))[:, 0, 0], [2, 1, 1])


def test_order_flags_do_not_matter_for_stacks(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 3, 4, 5, order_flag=False, format=SPECTRA)
    np.testing.assert_array_equal(read(load_dm([path])), make_frames(3, 4, 5))


@pytest.mark.parametrize("same_offset", [False, True])
def test_files_of_the_same_layout_can_be_read_without_their_tags(same_offset: bool, tmp_path: Path) -> None:
    files = [write_dm(tmp_path / f"{i}.dm4", image_tags(np.full((2, 2, 2), i, "<u2"))) for i in range(40)]
    before = io_counts()
    ds = load_dm(files=files, same_offset=same_offset)
    assert ((io_counts() - before).reads <= 2) == same_offset
    np.testing.assert_array_equal(read(ds)[:, 1, 1], np.repeat(np.arange(40), 2))


def test_a_promise_of_the_same_offset_that_cannot_hold_is_noticed(tmp_path: Path) -> None:
    long, short = write_stack(tmp_path, [(50, 60), (4, 5)])
    with pytest.raises(
        SizeMismatchError, match=r"1\.dm3: the file is too short .* \(leave out same_offset\)"
    ):
        load_dm(files=[long, short], same_offset=True)
    with pytest.raises(MissingFileError, match=r"gone\.dm3"):
        load_dm(files=[long, tmp_path / "gone.dm3"], same_offset=True)


@pytest.mark.parametrize("other", [((4, 6), "<u2"), ((5, 4), "<u2"), ((4, 5), "<i2")])
def test_files_that_do_not_fit_the_first_are_refused(other: tuple[Any, str], tmp_path: Path) -> None:
    files = write_stack(tmp_path, [(4, 5)] * 3)
    write_dm(files[1], image_tags(make_frames(*other[0], dtype=other[1])))
    with pytest.raises(SizeMismatchError, match=r"1\.dm3: .*found frames of .*expected \(4, 5\) uint16"):
        load_dm(files=files)


@pytest.mark.parametrize("shape", [(9,), (2, 3, 4, 5)])
def test_files_of_a_stack_hold_images(shape: tuple[int, ...], tmp_path: Path) -> None:
    files = write_stack(tmp_path, [(4, 5), shape])
    with pytest.raises(DataSetException, match=r"1\.dm3: .*found the shape"):
        load_dm(files=files)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match=r"x\.dm4: the DM file has no images"):
        load_dm(files=[write_dm(tmp_path / "x.dm4", thumbnail=False)])


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((), {"files": "x.dm3"}, DataSetException, r"received <class 'str'>"),
        ((), {"files": None}, DataSetException, r"received <class 'NoneType'>"),
        ((), {"files": iter(["x.dm3"])}, DataSetException, "received"),
        ((), {"files": []}, DataSetException, "need at least one file as input"),
        (([],), {}, DataSetException, "need at least one file as input"),
        ((), {"files": [5]}, TypeError, "int"),
        ((), {"files": ["gone.dm3"]}, MissingFileError, r"gone\.dm3"),
        (([b"x.dm3"],), {}, TypeError, "bytes"),
    ],
)
def test_what_is_no_list_of_files_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dm(*args, **kwargs)


def test_the_old_name_of_nav_shape_still_works(tmp_path: Path) -> None:
    files = write_stack(tmp_path, [(4, 5)] * 6)
    with pytest.warns(FutureWarning, match="scan_size"):
        ds = load_dm(files=files, scan_size=(2, 3))
    assert tuple(ds.shape) == (2, 3, 4, 5)
    with (
        pytest.warns(FutureWarning, match="scan_size"),
        pytest.raises(ValueError, match="cannot specify both"),
    ):
        load_dm(files=files, scan_size=(2, 3), nav_shape=(2, 3))


def test_a_frame_of_another_size_is_refused_in_stacks(tmp_path: Path) -> None:
    files = write_stack(tmp_path, [(4, 5)] * 6)
    with pytest.raises(ShapeError, match="sig_shape must be of size: 20"):
        load_dm(files=files, sig_shape=(4, 6))
    assert tuple(load_dm(files=files, sig_shape=(20,)).shape) == (6, 20)


def test_an_error_ends_the_search_and_leaves_no_threads(tmp_path: Path) -> None:
    path = write_stack(tmp_path, [(4, 5)])[0]
    threads = set(threading.enumerate())
    start = time.perf_counter()
    with pytest.raises(MissingFileError):
        load_dm(files=[path, tmp_path / "gone.dm3", *[path] * 5_000])
    assert time.perf_counter() - start < 10
    assert set(threading.enumerate()) == threads


def test_more_files_than_may_be_open_are_read(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    files = [write_dm(tmp_path / f"{i}.dm4", image_tags(np.full((2, 2), i, "<u2"))) for i in range(150)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 90, limits[1]))
    try:
        np.testing.assert_array_equal(read(load_dm(files=files, num_partitions=1))[:, 0, 0], range(150))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- facts ---


def test_diagnostics_show_the_tags(tmp_path: Path) -> None:
    ds = load_dm(write_scan(tmp_path, 2, 3, 4, 5, format="Image", order_flag=True))
    facts = {item["name"]: item["value"] for item in ds.diagnostics}
    assert facts["dtype"] == "uint16"
    assert (facts["DM version"], facts["Dataset index"], facts["DataType"]) == (4, 1, "10")
    assert (facts["Format"], facts["Data Order Swapped"]) == ("Image", "1")


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_scan(tmp_path, 3, 4, 5)
    assert repr(DMDataSet(path)) == f"<DMFileDataset {path}>"
    assert repr(load_dm(path)) == f"<DMFileDataset {path}> - (3, 4, 5)"
    assert repr(DMDataSet([path, path])) == "<DMDataSet for a stack of 2 files>"
    images = [image_tags(np.full((3, 4, 5), value, "<u2")) for value in (1, 2)]
    both = write_dm(tmp_path / "both.dm4", *images)
    keys = [
        json.dumps(ds.get_cache_key())
        for ds in (load_dm(both, dataset_index=1), load_dm(both, dataset_index=2), load_dm([both]))
    ]
    assert len(set(keys)) == 3


def test_json_parameters_become_arguments() -> None:
    converter = DMDataSet.get_msg_converter()()
    assert isinstance(converter, DMDatasetParams)
    params = converter.to_python({"type": "DM", "path": "x.dm4", "nav_shape": [2, 3], "sync_offset": 1})
    assert params == {"path": "x.dm4", "nav_shape": (2, 3), "sync_offset": 1}
    assert converter.from_python(params) == {
        "type": "DM",
        "path": "x.dm4",
        "nav_shape": [2, 3],
        "sync_offset": 1,
    }


def test_the_worked_example_of_version_3_is_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "x.dm3"
    image = {
        "ImageData": {
            "Calibrations": {"Dimension": [{"Scale": number(6, 1)}]},
            "Data": array(10, np.arange(12)),
            "DataType": number(5, 6),
            "Dimensions": [number(5, extent) for extent in (3, 2, 2, 1)],
        },
        "ImageTags": {"Meta Data": {"Data Order Swapped": number(8, 1), "Format": text("Image")}},
    }
    path.write_bytes(make_dm({"ImageList": [image]}, version=3))
    ds = load_dm(path)
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple(), ds.dtype) == ((1, 2), (2, 3), np.uint8)
    np.testing.assert_array_equal(read(ds), np.arange(12).reshape(1, 2, 2, 3))
    assert struct.unpack(">II", path.read_bytes()[:8]) == (3, 397)
