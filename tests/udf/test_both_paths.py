"""Compiled UDFs give the same on frames where they lie in a file as on tiles, and what NumPy gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base.backends.buffered import BufferedBackend
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.direct import DirectBackend
from libertem.io.dataset.base.backends.mmap import MMapBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = np.ndarray[Any, Any]

SIG = (12, 10)
RNG = np.random.default_rng(7)
MASKS = RNG.random((5, *SIG)).astype(np.float32)

KERNEL_DTYPES = ("bool", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i4", ">i4", "<f4", "<f8")
OTHER_DTYPES = ("<u8", ">i8", "<f2", ">f4", ">f8", "<c8", ">c16")


# --- both paths ---


class CountsBlocks:
    """Notes in `blocks`, a class attribute, how often the compiled path was taken."""

    blocks = 0

    def _process_block(self, block: Any) -> None:
        CountsBlocks.blocks += 1
        super()._process_block(block)  # type: ignore[misc]  # of the UDF it is mixed with


class ThroughTiles:
    """Overrides the process method, as users do, which forces the public path."""

    def process_tile(self, tile: Any) -> None:
        super().process_tile(tile)  # type: ignore[misc]  # of the UDF it is mixed with

    def _process_block(self, block: Any) -> None:
        raise AssertionError("the process method was passed over")

    def _can_process_blocks(self, stored_dtype: Any) -> bool:
        return False


def make_udfs(path: type) -> list[UDF]:
    kinds: list[Any] = [SumUDF, SumSigUDF, StdDevUDF, ApplyMasksUDF, PickUDF, CoMUDF]
    sums, sumsig, stddev, masks, pick, com = (
        type(f"{path.__name__}{kind.__name__}", (path, kind), {}) for kind in kinds
    )
    return [
        sums(),
        sumsig(),
        stddev(),
        masks(lambda: MASKS, mask_count=len(MASKS), mask_dtype=np.float32),
        pick(),
        com.with_params(r=5.0, ri=1.0, regression=1),
    ]


def run_both(ctx: Any, ds: Any, *, compiled: bool, **kwargs: Any) -> tuple[Any, Any]:
    CountsBlocks.blocks = 0
    blocks = ctx.run_udf(dataset=ds, udf=make_udfs(CountsBlocks), **kwargs)
    assert (CountsBlocks.blocks > 0) == compiled
    return blocks, ctx.run_udf(dataset=ds, udf=make_udfs(ThroughTiles), **kwargs)


def check(blocks: Any, tiles: Any, frames: Array, filled: slice = slice(None)) -> None:
    """Compare both paths with each other and with NumPy.

    `frames` are those selected, in order; outside of `filled` they are blanks.
    """
    exact = frames.dtype.kind in "biu"
    for mine, other in zip(blocks, tiles, strict=True):
        for name, buffer in mine.items():
            assert buffer.data.dtype == other[name].data.dtype, name
            np.testing.assert_allclose(
                buffer.raw_data, other[name].raw_data, rtol=2e-6, atol=2e-5, err_msg=name
            )
    if exact:
        for i in (0, 1, 4):
            np.testing.assert_array_equal(blocks[i]["intensity"].data, tiles[i]["intensity"].data)
    wide = frames.astype(np.complex128 if frames.dtype.kind == "c" else np.float64)
    real = wide[filled]
    for sums, sumsig, stddev, masks, pick, com in (blocks, tiles):
        np.testing.assert_allclose(sums["intensity"].data, wide.sum(axis=0), rtol=1e-6)
        np.testing.assert_allclose(sumsig["intensity"].raw_data, wide.sum(axis=(1, 2)), rtol=1e-6)
        assert stddev["num_frames"].data[0] == len(real)
        np.testing.assert_allclose(stddev["sum"].data, real.sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(stddev["mean"].data, real.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(stddev["var"].data, real.var(axis=0), rtol=1e-10)
        products = np.einsum("fij,mij->fm", wide, MASKS.astype(np.float64))
        np.testing.assert_allclose(masks["intensity"].raw_data, products, rtol=3e-6)
        np.testing.assert_array_equal(pick["intensity"].data, frames)
        np.testing.assert_allclose(com["raw_com"].raw_data, centres(wide), rtol=1e-4)


def centres(frames: Array) -> Array:
    y, x = np.indices(SIG)
    d2 = (y - SIG[0] // 2) ** 2 + (x - SIG[1] // 2) ** 2
    weights = frames * ((d2 <= 25) & ~(d2 <= 1))
    total = weights.sum(axis=(1, 2))
    blank = total == 0
    found = [(weights * c).sum(axis=(1, 2)) / np.where(blank, 1, total) for c in (y, x)]
    found = [np.where(blank, size // 2, part) for size, part in zip(SIG, found, strict=True)]
    return np.stack(found, axis=-1)


# --- data ---


def make_images(n: int, dtype: str, sig: tuple[int, ...] = SIG) -> Array:
    """Random images that use the range of their dtype."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(11)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        # Positive in the mean, so that relative errors make sense.
        low = max(info.min // 4, -(2**40))
        return rng.integers(low, min(info.max, 2**45), (n, *sig), dtype=kind.newbyteorder("=")).astype(kind)
    if kind.kind == "c":
        return (rng.random((n, *sig)) + 1j * rng.random((n, *sig))).astype(kind)
    values = rng.random((n, *sig))
    return (values > 0.5).astype(kind) if kind.kind == "b" else (100 + values).astype(kind)


@dataclass
class Layout:
    """How images are stored in files."""

    n_per_file: Sequence[int]
    file_header: int = 0
    frame_header: int = 0
    frame_footer: int = 0


LAYOUTS = {
    "plain": Layout([40]),
    "files": Layout([7, 1, 12, 20]),
    "headers": Layout([40], file_header=24, frame_header=8, frame_footer=64),
    "files with headers": Layout([13, 27], file_header=512, frame_footer=16),
    "small": Layout([4, 2]),
    "odd headers": Layout([19, 21], file_header=3, frame_header=5, frame_footer=2),
}


def store(folder: Path, images: Array, layout: Layout) -> list[File]:
    files, start = [], 0
    for i, n in enumerate(layout.n_per_file):
        path = folder / f"part{i}.bin"
        with open(path, "wb") as file:
            file.write(b"\xff" * layout.file_header)
            for image in images[start : start + n]:
                file.write(b"\xee" * layout.frame_header + image.tobytes() + b"\xdd" * layout.frame_footer)
        files.append(
            File(
                path=str(path),
                start_idx=start,
                end_idx=start + n,
                native_dtype=images.dtype,
                sig_shape=images.shape[1:],
                frame_footer=layout.frame_footer,
                frame_header=layout.frame_header,
                file_header=layout.file_header,
            )
        )
        start += n
    return files


class Stack(FrameFileDataSet):
    """Images in files of any layout."""

    def __init__(self, files: list[File], images: Array, layout: Layout, **kwargs: Any) -> None:
        super().__init__(path=files[0].path, **kwargs)
        self._files, self._layout = files, layout
        self._stored = FrameFacts(
            dtype=images.dtype, image_count=len(images), nav_shape=(), sig_shape=images.shape[1:]
        )

    def _inspect(self) -> FrameFacts:
        return self._stored

    def _get_fileset(self) -> FileSet:
        return FileSet(
            self._files,
            frame_header_bytes=self._layout.frame_header,
            frame_footer_bytes=self._layout.frame_footer,
        )


def load(ctx: Any, folder: Path, images: Array, layout: str = "plain", **kwargs: Any) -> Any:
    files = store(folder, images, LAYOUTS[layout])
    arguments: dict[str, Any] = {"nav_shape": (5, 8), "num_partitions": 3, **kwargs}
    return ctx.load(Stack, files, images, LAYOUTS[layout], **arguments)


def shown(images: Array, n: int, sync_offset: int) -> Array:
    """What a scan of `n` positions shows: blanks are zero."""
    frames = np.zeros((n, *images.shape[1:]), dtype=images.dtype)
    for position in range(n):
        if 0 <= position + sync_offset < len(images):
            frames[position] = images[position + sync_offset]
    return frames


BACKENDS: dict[str, IOBackend] = {
    "mmap": MMapBackend(),
    "buffered": BufferedBackend(),
    # Blocks that hold only a part of each frame.
    "buffered, small": BufferedBackend(max_buffer_size=1024),
    "direct": DirectBackend(),
    "direct, small": DirectBackend(max_buffer_size=16384),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> IOBackend:
    found = BACKENDS[request.param]
    if not found.platform_supported():
        pytest.skip(f"{request.param} is not offered on this platform")
    return found


# --- tests ---


@pytest.mark.parametrize("dtype", KERNEL_DTYPES + OTHER_DTYPES)
def test_all_dtypes(inline: Any, tmp_path: Path, dtype: str) -> None:
    images = make_images(40, dtype)
    ds = load(inline, tmp_path, images)
    check(*run_both(inline, ds, compiled=dtype in KERNEL_DTYPES), images)


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if sum(layout.n_per_file) == 40])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4"])
def test_all_layouts(inline: Any, tmp_path: Path, backend: IOBackend, layout: str, dtype: str) -> None:
    images = make_images(40, dtype)
    ds = load(inline, tmp_path, images, layout, io_backend=backend)
    check(*run_both(inline, ds, compiled=True), images)


@pytest.mark.parametrize("sync_offset", [-39, -11, -1, 1, 17])
def test_sync_offsets(inline: Any, tmp_path: Path, backend: IOBackend, sync_offset: int) -> None:
    images = make_images(40, "<u2")
    ds = load(inline, tmp_path, images, "files", io_backend=backend, sync_offset=sync_offset)
    frames = shown(images, 40, sync_offset)
    filled = slice(-sync_offset, None) if sync_offset < 0 else slice(40 - sync_offset)
    check(*run_both(inline, ds, compiled=True), frames, filled)


@pytest.mark.parametrize("n_selected", [1, 2, 7, 39, 40])
@pytest.mark.parametrize("layout", ["plain", "files with headers"])
def test_rois(contexts: Any, tmp_path: Path, backend: IOBackend, n_selected: int, layout: str) -> None:
    ctx = contexts["threads"]
    images = make_images(40, ">u2")
    ds = load(ctx, tmp_path, images, layout, io_backend=backend)
    roi = np.zeros(40, dtype=bool)
    roi[np.random.default_rng(n_selected).choice(40, n_selected, replace=False)] = True
    check(*run_both(ctx, ds, compiled=True, roi=roi), images[roi])


def test_a_roi_and_a_sync_offset_together(ctx: Any, tmp_path: Path, backend: IOBackend) -> None:
    images = make_images(40, "<i4")
    ds = load(ctx, tmp_path, images, "files", io_backend=backend, sync_offset=-9)
    roi = np.zeros(40, dtype=bool)
    roi[2::3] = True
    blocks, tiles = run_both(ctx, ds, compiled=True, roi=roi)
    check(blocks, tiles, shown(images, 40, -9)[roi], slice(int(roi[:9].sum()), None))


def test_complex_corrections_go_through_tiles(ctx: Any, tmp_path: Path) -> None:
    """And are refused there, because the data are real."""
    ds = load(ctx, tmp_path, make_images(40, "u1"))
    with pytest.raises(TypeError, match="complex"):
        run_both(ctx, ds, compiled=False, corrections=CorrectionSet(dark=np.ones(SIG, dtype="c8")))


class PythonFrames(UDF):
    """Sums over pixels, frame by frame."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"sum": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.results.sum[:] = frame.sum(dtype=np.float64)


class PythonTiles(UDF):
    """Sums over frames, in small tiles."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"sum": self.buffer(kind="sig", dtype="float64")}

    def get_tiling_preferences(self) -> Any:
        return {"depth": 3, "total_size": 1}

    def process_tile(self, tile: Any) -> None:
        self.results.sum += tile.sum(axis=0, dtype=np.float64)

    def merge(self, dest: Any, src: Any) -> None:
        dest.sum += src.sum


class PythonPartitions(UDF):
    """Frames in the order of the partition."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"first": self.buffer(kind="nav", dtype="float64")}

    def process_partition(self, partition: Any) -> None:
        self.results.first[:] = partition[:, 0, 0]


@pytest.mark.parametrize("others", ["frames", "tiles", "both", "partitions"])
@pytest.mark.parametrize(("dtype", "roi"), [("<u2", None), (">u2", np.arange(40) % 7 < 3)])
def test_compiled_and_python_udfs_share_a_run(
    contexts: Any, tmp_path: Path, backend: IOBackend, others: str, dtype: str, roi: Any
) -> None:
    ctx = contexts["threads" if roi is None else "inline"]
    images = make_images(40, dtype)
    ds = load(ctx, tmp_path, images, "files", io_backend=backend)
    python: list[UDF] = []
    if others in ("frames", "both"):
        python.append(PythonFrames())
    if others in ("tiles", "both"):
        python.append(PythonTiles())
    if others == "partitions":
        python.append(PythonPartitions())
    CountsBlocks.blocks = 0
    *results, last = ctx.run_udf(dataset=ds, udf=[*make_udfs(CountsBlocks), *python], roi=roi)
    assert CountsBlocks.blocks > 0
    frames = images if roi is None else images[roi]
    if others == "frames":
        np.testing.assert_array_equal(last["sum"].raw_data, frames.sum(axis=(1, 2), dtype="f8"))
    elif others == "partitions":
        np.testing.assert_array_equal(last["first"].raw_data, frames[:, 0, 0])
    else:
        np.testing.assert_array_equal(last["sum"].data, frames.sum(axis=0, dtype="f8"))
    tiles = ctx.run_udf(dataset=ds, udf=make_udfs(ThroughTiles), roi=roi)
    check(results[:6], tiles, frames)


def test_frames_of_several_tiles(ctx: Any, tmp_path: Path, backend: IOBackend) -> None:
    images = make_images(6, "<u2", sig=(200, 300))
    ds = load(ctx, tmp_path, images, "small", io_backend=backend, nav_shape=(2, 3), num_partitions=2)
    udfs = [SumUDF(), SumSigUDF(), StdDevUDF(), PickUDF(), PythonTiles()]
    sums, sumsig, stddev, pick, python = ctx.run_udf(dataset=ds, udf=udfs)
    np.testing.assert_array_equal(sums["intensity"].data, images.sum(axis=0))
    np.testing.assert_allclose(sumsig["intensity"].raw_data, images.sum(axis=(1, 2)), rtol=1e-7)
    np.testing.assert_allclose(stddev["var"].data, images.var(axis=0, dtype="f8"), rtol=1e-12)
    np.testing.assert_array_equal(pick["intensity"].data, images)
    np.testing.assert_array_equal(python["sum"].data, images.sum(axis=0))


# --- who may take blocks ---


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("get_preferred_input_dtype", lambda self: np.float64),
        ("get_tiling_preferences", lambda self: {"depth": 1}),
        ("get_backends", lambda self: ("numpy",)),
        ("preprocess", lambda self: None),
        ("get_task_data", lambda self: {}),
    ],
)
def test_subclasses_that_override_a_hook_are_asked(
    inline: Any, tmp_path: Path, name: str, method: Any
) -> None:
    images = make_images(40, "<u2")
    ds = load(inline, tmp_path, images)
    asked = []

    def hook(self: Any) -> Any:
        asked.append(name)
        return method(self)

    class NoBlocks(SumUDF):
        def _process_block(self, block: Any) -> None:
            raise AssertionError("taken past the override")

        def _can_process_blocks(self, stored_dtype: Any) -> bool:
            return SumUDF._can_process_blocks(self, stored_dtype)

    cls = type("Overrides", (NoBlocks,), {name: hook})
    result = inline.run_udf(dataset=ds, udf=cls())
    np.testing.assert_array_equal(result["intensity"].data, images.sum(axis=0))
    assert asked


def test_subclasses_that_only_change_the_end_are_still_fast(inline: Any, tmp_path: Path) -> None:
    class Halved(CountsBlocks, SumUDF):
        pass

    class Ends(Halved):
        def postprocess(self) -> None:
            self.results.total[:] = self.results.total // 2

    images = make_images(40, "<u2")
    ds = load(inline, tmp_path, images, num_partitions=1)
    CountsBlocks.blocks = 0
    result = inline.run_udf(dataset=ds, udf=Ends(dtype="f8"))
    np.testing.assert_array_equal(result["intensity"].data, images.sum(axis=0) // 2)
    assert CountsBlocks.blocks > 0
