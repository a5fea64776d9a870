"""What data sets cost: bytes read, memory, messages to workers, handles that stay open."""

from __future__ import annotations

import gc
import json
import os
import pickle
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.arrays import to_dense
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.dataset import DataSet
from libertem.testing.suite.reading import (
    assert_delivered,
    assert_same_pixels,
    make_scheme,
    read,
    tile_shapes,
)
from libertem.testing.suite.setup import SuiteSetup
from libertem.udf.sum import SumUDF

__all__ = ["ResourceTests"]

COMMON_FACTS = [
    "Partition shape",
    "Number of partitions",
    "Number of frames skipped at the beginning",
    "Number of frames ignored at the end",
    "Number of blank frames inserted at the beginning",
    "Number of blank frames inserted at the end",
]


def _open_files(folder: Path) -> list[str]:
    """Files below `folder` that this process has open or mapped."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # the one that lists the directory
            continue
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    found += [line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/")]
    return sorted({name for name in found if name.startswith(os.fspath(folder))})


def _check_facts(facts: Any, where: str) -> None:
    assert isinstance(facts, list), f"{where} is {facts!r}, expected a list"
    for fact in facts:
        assert isinstance(fact, dict), f"{where} holds {fact!r}, expected a dict"
        assert set(fact) == {"name", "value"}, f"{where} holds {fact!r}, expected the keys name and value"
        assert isinstance(fact["name"], str), f"{where}: the name in {fact!r} is no string"
        if isinstance(fact["value"], list):
            _check_facts(fact["value"], f"{where}: {fact['name']}")
        else:
            assert isinstance(fact["value"], str | int), f"{where}: {fact!r} holds no string, int or list"


class ResourceTests(SuiteSetup):
    """Tests of cost and side effects."""

    def test_diagnostics_are_names_and_values(self, tmp_path: Path, ctx: Context) -> None:
        """That can be sent as JSON; those of all data sets come last."""
        ds = self.load(ctx, self.write_frames(tmp_path, self.make_frames(self.n_frames)), num_partitions=3)
        facts = ds.diagnostics
        _check_facts(facts, "diagnostics")
        json.dumps(facts)
        names = [fact["name"] for fact in facts]
        assert names[-len(COMMON_FACTS) :] == COMMON_FACTS, f"diagnostics are called {names}"
        assert facts[-5]["value"] == "3", f"'Number of partitions' is {facts[-5]['value']!r}, expected '3'"

    def test_cache_keys_differ_where_data_differ(self, tmp_path: Path, ctx: Context) -> None:
        """And are the same for the same data."""
        kwargs = self.write_frames(tmp_path / "one", self.make_frames(self.n_frames))
        other = self.write_frames(tmp_path / "other", self.make_frames(self.n_frames, seed=1))
        different: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (kwargs, {}),
            (kwargs, {"sync_offset": 1}),
            (kwargs, {"nav_shape": (2, 3)}),
            (other, {}),
        ]
        try:
            keys = [json.dumps(self.load(ctx, kw, **more).get_cache_key()) for kw, more in different]
        except NotImplementedError:
            pytest.skip("this data set has no cache key")
        assert len(set(keys)) == len(keys), f"cache keys of different data are the same: {keys}"
        again = json.dumps(self.load(ctx, kwargs).get_cache_key())
        assert again == keys[0], f"the cache key of the same data has changed: {keys[0]}, {again}"

    def test_data_sets_can_be_sent_to_workers(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Before and after loading, in a small message."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        loaded = self.load(ctx, kwargs, io_backend=io_backend)
        fresh = self.dataset_class()(**{**kwargs, "nav_shape": self.nav_shape})
        for state, ds in (("before", fresh), ("after", loaded)):
            message = pickle.dumps(ds)
            assert len(message) < self.max_pickle_bytes, f"{len(message)} bytes {state} loading"
            copy: DataSet = pickle.loads(message)
            if state == "before":
                copy = copy.initialize(InlineJobExecutor())
            assert copy.check_valid(), f"a copy made {state} loading is not valid"
            what = f"a copy of {loaded!r} made {state} loading"
            assert_delivered(read(copy, dest_dtype="float64"), frames.astype("float64"), None, what)

    def test_partitions_can_be_sent_to_workers(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """In a small message, and as often as needed."""
        frames = self.make_frames(self.n_frames)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend, num_partitions=3)
        for partition in ds.get_partitions():
            n_bytes = len(pickle.dumps(partition))
            assert n_bytes < self.max_pickle_bytes, f"{partition!r} is pickled to {n_bytes} bytes"
        delivered = read(ds, dest_dtype="float64", ship=True)
        assert_delivered(delivered, frames.astype("float64"), None, f"{ds!r}, partitions pickled")

    def test_loading_reads_no_pixels(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Neither through this library nor in another way that takes memory."""
        frames = self.make_large()
        kwargs = self.write_frames(tmp_path, frames)
        nav_shape = (frames.shape[0],)
        before = io_counts()
        self.load(ctx, kwargs, io_backend=io_backend, nav_shape=nav_shape)
        n_bytes = (io_counts() - before).read_bytes
        assert n_bytes <= self.max_load_bytes, f"loading reads {n_bytes} bytes of {frames.nbytes}"
        tracemalloc.start()
        try:
            self.load(ctx, kwargs, io_backend=io_backend, nav_shape=nav_shape)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < frames.nbytes // 2, f"loading a file of {frames.nbytes} bytes takes {peak} bytes"

    def test_every_byte_is_read_at_most_once(self, tmp_path: Path, ctx: Context) -> None:
        """And none behind the end: more was not read than the files hold, however frames are cut."""
        if "buffered" not in self.io_backends:
            pytest.skip("this data set does not read through the I/O backends")
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        ds = self.load(ctx, kwargs, io_backend="buffered", num_partitions=3)
        for tile_shape in tile_shapes(ds):
            before = io_counts()
            read(ds, tile_shape=tile_shape)
            n_bytes = (io_counts() - before).read_bytes
            assert n_bytes > 0, f"{ds!r} is not read with positional reads, which could be counted"
            assert n_bytes <= size, f"{n_bytes} bytes were read of {size}, with tiles {tile_shape}"

    def test_one_frame_costs_one_frame(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """However large the file is."""
        frames = self.make_large()
        n = frames.shape[0]
        kwargs = self.write_frames(tmp_path, frames)
        ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=(n,), num_partitions=2)
        roi = np.zeros(n, dtype=bool)
        roi[2 * n // 3] = True
        before = io_counts()
        delivered = read(ds, roi=roi, dest_dtype="float64")
        n_bytes = (io_counts() - before).read_bytes
        assert_delivered(delivered, frames[roi].astype("float64"), None, f"one frame of {ds!r}")
        limit = 2 * frames[0].nbytes + self.max_load_bytes
        assert n_bytes <= limit, f"{n_bytes} bytes were read for one frame of {frames[0].nbytes} bytes"

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the /proc of Linux")
    def test_runs_leave_no_files_open(self, tmp_path: Path, io_backend: str | None, executor: str) -> None:
        """Nor mapped, nor threads behind, once the context is closed."""
        threads = set(threading.enumerate())
        frames = self.make_frames(self.n_frames)
        with self.make_context(executor) as ctx:
            ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend, num_partitions=3)
            ctx.run_udf(dataset=ds, udf=SumUDF())
            read(ds, dest_dtype="float64")
        self._check_nothing_left(tmp_path, threads, f"after a run of {ds!r}")

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the /proc of Linux")
    def test_abandoned_tiles_leave_no_files_open(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Nor threads: the consumer may end early, or fail."""
        threads = set(threading.enumerate())
        frames = self.make_frames(self.n_frames)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend)
        for dest in ("float64", ds.dtype):
            tiles = next(iter(ds.get_partitions())).get_tiles(
                make_scheme(ds, (1, *self.sig_shape)), dest_dtype=dest
            )
            first = next(iter(tiles))
            pixels = to_dense(first.data).reshape(first.shape).astype("float64")
            assert_same_pixels(pixels, frames[:1].astype("float64"), "the first tile")
            del tiles, first, pixels
        self._check_nothing_left(tmp_path, threads, f"after {ds!r} was read in part")

    def _check_nothing_left(self, folder: Path, threads: set[threading.Thread], when: str) -> None:
        gc.collect()
        left = _open_files(folder)
        assert not left, f"{when} these files are open or mapped: {left}"
        new = [thread.name for thread in threading.enumerate() if thread not in threads]
        assert not new, f"{when} these threads are left: {new}"
