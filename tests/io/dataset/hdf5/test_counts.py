"""What a run reads and decodes: each chunk once, and none that is not needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.hdf5 import frames
from libertem.io.dataset.hdf5.filters import ChunkDecoder
from libertem.testing.writers.hdf5 import write_dectris, write_hdf5
from libertem.udf.contract import UDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF

SHAPE = (6, 8, 64, 64)
CHUNKS = [
    (1, 1, 64, 64),
    (1, 3, 64, 64),
    (1, 8, 32, 16),
    (2, 3, 64, 64),
    (4, 8, 20, 64),
    (6, 1, 33, 17),
    (6, 8, 64, 64),
]
DATA = np.random.default_rng(0).integers(0, 1000, SHAPE).astype("u2")


class TileSum(UDF):
    """A UDF that gets tiles."""

    def get_result_buffers(self) -> Any:
        return {"total": self.buffer(kind="sig", dtype="f8")}

    def merge(self, dest: Any, src: Any) -> None:
        dest.total += src.total

    def process_tile(self, tile: Any) -> None:
        self.results.total += tile.sum(axis=0, dtype="f8")


@pytest.fixture(scope="module", params=["inline", "threads"])
def ctx(request: pytest.FixtureRequest) -> Iterator[Context]:
    threads = ConcurrentJobExecutor.make_local(n_threads=3)
    with Context(executor=InlineJobExecutor() if request.param == "inline" else threads) as context:
        yield context


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each chunk was decoded, by its stored bytes; these are all different."""
    counts: Counter[bytes] = Counter()
    decode, decode_joint = ChunkDecoder.decode, ChunkDecoder.decode_joint

    def one(self: ChunkDecoder, stored: Any, mask: int, out: Any) -> None:
        counts[stored.tobytes()] += 1
        decode(self, stored, mask, out)

    def several(self: ChunkDecoder, raw: Any, starts: Any, sizes: Any, out: Any) -> bool:
        if not decode_joint(self, raw, starts, sizes, out):
            return False
        counts.update(raw[a : a + n].tobytes() for a, n in zip(starts, sizes, strict=True))
        return True

    monkeypatch.setattr(ChunkDecoder, "decode", one)
    monkeypatch.setattr(ChunkDecoder, "decode_joint", several)
    return counts


def stored_chunks(path: Path, ds_path: str = "data", frame: tuple[int, ...] = ()) -> set[bytes]:
    """Chunks of a file, or of one of its frames."""
    found = set()
    with h5py.File(path) as file:
        dset = file[ds_path]

        def visit(info: Any) -> None:
            nav = zip(info.chunk_offset, dset.chunks, frame, strict=False)
            if all(start <= index < start + n for start, n, index in nav):
                found.add(dset.id.read_direct_chunk(info.chunk_offset)[1])

        dset.id.chunk_iter(visit)
    return found


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("filters", ["gzip", "bitshuffle-lz4"])
def test_a_full_run_reads_and_decodes_each_chunk_once(
    filters: str, chunks: Any, ctx: Context, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    path = write_hdf5(tmp_path / "x.h5", DATA, chunks=chunks, filters=filters)
    expected = stored_chunks(path)
    ds = ctx.load("hdf5", path=path)
    for udfs in ([SumUDF()], [TileSum()], [SumUDF(), TileSum(), StdDevUDF()]):
        decoded.clear()
        before = io_counts()
        results = ctx.run_udf(dataset=ds, udf=udfs)
        read = (io_counts() - before).read_bytes
        np.testing.assert_array_equal(next(iter(results[0].values())).data, DATA.sum(axis=(0, 1)))
        assert set(decoded) == expected
        assert set(decoded.values()) == {1}
        # Small gaps between chunks are read with them: there HDF5 keeps its tables.
        n_bytes = sum(map(len, expected))
        assert n_bytes <= read <= path.stat().st_size


@pytest.mark.parametrize("chunks", CHUNKS)
def test_chunks_without_filter_are_read_once(chunks: Any, ctx: Context, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "x.h5", DATA, chunks=chunks)
    ds = ctx.load("hdf5", path=path)
    before = io_counts()
    ctx.run_udf(dataset=ds, udf=SumUDF())
    assert DATA.nbytes <= (io_counts() - before).read_bytes <= path.stat().st_size


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("filters", ["gzip-shuffle", "bitshuffle-lz4"])
def test_one_frame_needs_only_its_own_chunks(
    filters: str, chunks: Any, ctx: Context, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    path = write_hdf5(tmp_path / "x.h5", DATA, chunks=chunks, filters=filters)
    ds = ctx.load("hdf5", path=path)
    roi = np.zeros(SHAPE[:2], dtype=bool)
    roi[4, 5] = True
    before = io_counts()
    picked = ctx.run_udf(dataset=ds, udf=PickUDF(), roi=roi)["intensity"].data
    read = (io_counts() - before).read_bytes
    np.testing.assert_array_equal(picked, DATA[roi])
    expected = stored_chunks(path, frame=(4, 5))
    assert decoded == Counter(dict.fromkeys(expected, 1))
    assert read <= sum(map(len, expected)) + 4096 * len(expected)


def test_one_frame_of_a_master_file_needs_one_chunk_of_one_file(
    ctx: Context, tmp_path: Path, decoded: Counter[bytes]
) -> None:
    parts = np.split(DATA.reshape(48, 64, 64), 4)
    path = write_dectris(tmp_path, parts)
    ds = ctx.load("hdf5", path=path)
    roi = np.arange(48) == 30
    picked = ctx.run_udf(dataset=ds, udf=PickUDF(), roi=roi)["intensity"].data
    np.testing.assert_array_equal(picked, DATA.reshape(48, 64, 64)[roi])
    (chunk,) = stored_chunks(tmp_path / "scan_data_000003.h5", "entry/data/data", frame=(6,))
    assert decoded == {chunk: 1}


def test_a_diagnostic_tells_how_often_chunks_are_decoded_for_lack_of_memory(
    ctx: Context, tmp_path: Path, decoded: Counter[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hdf5(tmp_path / "x.h5", DATA, chunks=(6, 8, 64, 64), filters="gzip")
    monkeypatch.setattr(frames, "unit_memory", lambda: DATA.nbytes // 3)
    ds = ctx.load("hdf5", path=path)
    ctx.run_udf(dataset=ds, udf=TileSum())
    said = {fact["name"]: fact["value"] for fact in ds.diagnostics}["Chunks decoded more than once"]
    assert said == "yes, 3 times: 48 frames that share chunks do not fit into memory"
    assert list(decoded.values()) == [3]


@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
@pytest.mark.parametrize("chunks", CHUNKS)
def test_hdf5_is_asked_for_each_pixel_once(
    chunks: Any, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hdf5(tmp_path / "x.h5", DATA, chunks=chunks, filters="scale-offset")
    ds = ctx.load("hdf5", path=path)
    asked: list[npt.NDArray[Any]] = []
    get = h5py.Dataset.__getitem__

    def count(self: Any, selection: Any) -> Any:
        asked.append(get(self, selection))
        return asked[-1]

    monkeypatch.setattr(h5py.Dataset, "__getitem__", count)
    ctx.run_udf(dataset=ds, udf=[SumUDF(), TileSum()])
    assert sum(part.size for part in asked) == DATA.size
