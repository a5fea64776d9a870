from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.io.dataset.base import File, FileSet
from libertem.io.dataset.base.backends.readplan import MAX_GAP, MIN_GAP, ReadPlan, ReadPlanner
from libertem.io.dataset.base.blocks import FrameTable, ReadOrder

NO_FILES = FileSet([File("f.bin", 0, 1, "u1", (1,))])


def make_table(offsets: Any, px: int, dtype: str = "u1", files: Any = None) -> FrameTable:
    starts = np.array(offsets, dtype=np.int64)
    return FrameTable(
        fileset=NO_FILES,
        files=np.zeros_like(starts) if files is None else np.array(files, dtype=np.int64),
        offsets=starts,
        first=5,
        dtype=np.dtype(dtype),
        sig_shape=(px,),
    )


def plan_all(table: FrameTable, limit: int = 1 << 30, alignment: int = 1) -> list[ReadPlan]:
    order = ReadOrder.for_kernels(table.sig_px)
    return list(ReadPlanner(table, order, limit=limit, alignment=alignment))


@pytest.mark.parametrize(
    ("gap", "px", "n_reads"),
    [
        (0, 100, 1),
        (MIN_GAP, 100, 1),
        (MIN_GAP + 1, 100, 2),
        (10_000, 10_000, 1),
        (10_001, 10_000, 2),
        (MAX_GAP, 100_000, 1),
        (MAX_GAP + 1, 100_000, 2),
    ],
)
def test_small_gaps_are_read_and_large_ones_skipped(gap: int, px: int, n_reads: int) -> None:
    (plan,) = plan_all(make_table([7, 7 + px + gap], px))
    assert len(plan.spans) == n_reads
    assert plan.read_bytes == 2 * px + (gap if n_reads == 1 else 0)


def test_frames_of_different_files_are_read_separately() -> None:
    (plan,) = plan_all(make_table([0, 100, 0, 100], 100, files=[0, 0, 1, 1]))
    assert [(s.file_idx, s.start, s.stop) for s in plan.spans] == [(0, 0, 200), (1, 0, 200)]


def test_blocks_follow_each_other() -> None:
    plans = plan_all(make_table(np.arange(40) * 100, 100), limit=1000)
    assert [plan.first for plan in plans] == [5, 15, 25, 35]


@pytest.mark.parametrize("alignment", [1, 4096])
@pytest.mark.parametrize("step", [200, 768, 5000, 50_000])
def test_gaps_do_not_make_buffers_grow_beyond_the_limit(step: int, alignment: int) -> None:
    limit = 1 << 20
    for plan in plan_all(make_table(np.arange(20_000) * step, 128), limit, alignment):
        assert plan.buffer_bytes <= 1.25 * limit + 4 * alignment


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 3, 700, 5000, 40_000]), st.booleans()), min_size=1, max_size=30
    ),
    st.sampled_from(["u1", "<u2", ">u4", "f8"]),
    st.integers(1, 1000),
    st.integers(1, 20_000),
    st.sampled_from([1, 4096]),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_every_frame_is_read_once_to_an_aligned_place_of_its_own(
    steps: list[tuple[int, bool]],
    dtype: str,
    px: int,
    limit: int,
    alignment: int,
    depth: int,
    header: int,
) -> None:
    item = np.dtype(dtype).itemsize
    offsets, files, position, file = [], [], header, 0
    for gap, next_file in steps:
        position, file = (header, file + 1) if next_file else (position + gap, file)
        offsets.append(position)
        files.append(file)
        position += px * item
    table = make_table(offsets, px, dtype, files)
    order = ReadOrder(depth=depth, slabs=ReadOrder.for_kernels(px).slabs, for_tiles=True)
    read = np.zeros((len(steps), px), dtype=int)
    for plan in ReadPlanner(table, order, limit=limit, alignment=alignment):
        taken: list[tuple[int, int]] = []
        for span in plan.spans:
            extra = span.start % alignment
            begin = span.position - extra
            end = begin - (-(extra + span.stop - span.start) // alignment) * alignment
            assert begin % alignment == 0
            assert begin >= 0
            assert end <= plan.buffer_bytes
            taken.append((begin, end))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(taken))
        first = plan.first - table.first
        assert first % depth == 0
        for row, place in enumerate(plan.positions.tolist(), start=first):
            assert place % item == 0
            low = offsets[row] + plan.slab.px_start * item
            # Moved down to an aligned place after the read, by less than an item.
            (source,) = (
                s
                for s in plan.spans
                if s.file_idx == files[row]
                and s.start <= low < s.stop
                and s.position - s.position % item + low - s.start == place
            )
            assert source.stop >= low + (plan.slab.px_stop - plan.slab.px_start) * item
            read[row, plan.slab.px_start : plan.slab.px_stop] += 1
    assert (read == 1).all()
