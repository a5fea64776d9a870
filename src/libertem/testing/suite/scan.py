"""Scan positions: sync offset, navigation and signal shapes, partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.testing.suite.reading import assert_delivered, on_scan, read
from libertem.testing.suite.setup import SuiteSetup

__all__ = ["ScanTests"]

REFUSALS = (DataSetException, TypeError, ValueError)

HUGE = 1 << 62
"""Products of shapes with such an extent do not fit 64 bits."""

IMPOSSIBLE: list[dict[str, Any]] = [
    {"nav_shape": (-1, 2)},
    {"nav_shape": (0, 3)},
    {"nav_shape": (2.5, 2)},
    {"nav_shape": ("2", "4")},
    {"nav_shape": (HUGE, HUGE)},
    {"sync_offset": 180000000},
    {"sync_offset": -180000000},
    {"sync_offset": 1.5},
]
"""Arguments that no data set can accept."""

DOUBTFUL: list[dict[str, Any]] = [
    {"nav_shape": 4},
    {"nav_shape": ()},
    {"nav_shape": (1 << 40,)},
    {"sync_offset": None},
    {"num_partitions": 0},
    {"num_partitions": -3},
]
"""Arguments that a data set may accept."""

IMPOSSIBLE_SIG: list[dict[str, Any]] = [
    {"sig_shape": (103, -83)},
    {"sig_shape": (0, 4)},
    {"sig_shape": (HUGE, HUGE)},
]

DOUBTFUL_SIG: list[dict[str, Any]] = [{"sig_shape": (3, 17)}, {"sig_shape": 20}, {"sig_shape": ()}]


class ScanTests(SuiteSetup):
    """Tests of which frame is shown at which scan position."""

    def _offsets(self) -> list[int]:
        n = self.n_frames
        return [0, 1, 5, n - 1, -1, -5, -(n - 1)]

    def test_sync_offset_moves_frames(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Position `i` shows frame ``i + sync_offset``; positions without a frame are not delivered."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        for offset in self._offsets():
            shown, present = on_scan(frames.astype("float64"), self.n_frames, offset)
            for num_partitions in (1, 4):
                ds = self.load(
                    ctx, kwargs, io_backend=io_backend, sync_offset=offset, num_partitions=num_partitions
                )
                what = f"{ds!r} with sync_offset {offset} in {num_partitions} partitions"
                assert_delivered(read(ds, dest_dtype="float64"), shown, present, what)

    def test_roi_refers_to_scan_positions(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Not to frames: blank positions can be selected and keep their place among the selected ones."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        mask = np.arange(self.n_frames) % 2 == 1
        for offset in self._offsets():
            shown, present = on_scan(frames.astype("float64"), self.n_frames, offset)
            ds = self.load(ctx, kwargs, io_backend=io_backend, sync_offset=offset, num_partitions=3)
            delivered = read(ds, dest_dtype="float64", roi=mask.reshape(self.nav_shape))
            what = f"{ds!r} with sync_offset {offset} and a ROI"
            assert_delivered(delivered, shown[mask], present[mask], what)

    def test_sync_offset_that_hides_all_frames_is_refused(self, tmp_path: Path, ctx: Context) -> None:
        """With a message that names the limits."""
        n = self.n_frames
        kwargs = self.write_frames(tmp_path, self.make_frames(n))
        for offset in (n, -n, n + 1, -(10**9)):
            with pytest.raises(DataSetException, match="sync_offset should be in") as err:
                self.load(ctx, kwargs, sync_offset=offset)
            assert f"({-n}, {n})" in str(err.value), f"the limits are missing in: {err.value}"

    def test_sync_offset_is_visible_in_diagnostics(self, tmp_path: Path, ctx: Context) -> None:
        """As numbers of frames that were skipped, ignored and inserted."""
        n = self.n_frames
        kwargs = self.write_frames(tmp_path, self.make_frames(n))
        for offset, skipped, ignored, at_start, at_end in (
            (0, 0, 0, 0, 0),
            (3, 3, 0, 0, 3),
            (-3, 0, 3, 3, 0),
        ):
            facts = {
                entry["name"]: entry["value"]
                for entry in self.load(ctx, kwargs, sync_offset=offset).diagnostics
            }
            found = (
                facts["Number of frames skipped at the beginning"],
                facts["Number of frames ignored at the end"],
                facts["Number of blank frames inserted at the beginning"],
                facts["Number of blank frames inserted at the end"],
            )
            expected = (skipped, ignored, at_start, at_end)
            assert found == expected, f"sync_offset {offset}: found {found}, expected {expected}"

    def test_nav_shape_with_fewer_positions_shows_the_first_frames(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """The others are ignored, unless a sync offset brings them back."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        for offset in (0, 2, -2):
            nav_shape = (2, 3)
            ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=nav_shape, sync_offset=offset)
            shown, present = on_scan(frames.astype("float64"), 6, offset)
            assert tuple(ds.shape.nav) == nav_shape, f"{ds!r}: expected nav_shape {nav_shape}"
            assert_delivered(read(ds, dest_dtype="float64"), shown, present, f"{ds!r} of more frames")

    def test_nav_shape_with_more_positions_has_blanks_at_the_end(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Or is refused, where that is documented."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        n = self.n_frames + 5
        if self.larger_nav_shape == "refused":
            with pytest.raises(DataSetException):
                self.load(ctx, kwargs, nav_shape=(n,))
            return
        ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=(n,), num_partitions=4)
        shown, present = on_scan(frames.astype("float64"), n)
        assert_delivered(read(ds, dest_dtype="float64"), shown, present, f"{ds!r} of fewer frames")

    def test_nav_shape_may_be_any_sequence(self, tmp_path: Path, ctx: Context) -> None:
        """Of any length, and of any kind of integers."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        n = self.n_frames
        for nav_shape in ((n,), [1, n], (1, 1, n, 1), np.array([n, 1]), (np.int64(n),)):
            ds = self.load(ctx, kwargs, nav_shape=nav_shape)
            found = tuple(ds.shape.nav)
            assert found == tuple(nav_shape), f"nav_shape {nav_shape!r} became {found}"
            assert all(type(extent) is int for extent in ds.shape), f"not all int: {tuple(ds.shape)!r}"
            assert_delivered(read(ds, dest_dtype="float64"), frames.astype("float64"), None, repr(ds))

    def test_all_frames_are_shown_without_a_nav_shape(self, tmp_path: Path, ctx: Context) -> None:
        """If the file says how many there are."""
        if not self.has_nav_shape:
            pytest.skip("files of this format do not know their nav_shape")
        frames = self.make_frames(self.n_frames)
        ds = ctx.load(self.filetype, **self.write_frames(tmp_path, frames))
        assert ds.shape.nav.size == self.n_frames, f"{ds!r} has not {self.n_frames} scan positions"
        assert_delivered(read(ds, dest_dtype="float64"), frames.astype("float64"), None, repr(ds))

    def test_sig_shape_can_have_other_axes(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """One or three for instance, with the pixels in the same order."""
        if self.sig_shape_override == "none":
            pytest.skip("this format takes no sig_shape")
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        height, width = self.sig_shape[0], prod(self.sig_shape[1:])
        for sig_shape in ((height * width,), (width, height), (2, height // 2, width)):
            ds = self.load(ctx, kwargs, io_backend=io_backend, **self.sig_arguments(sig_shape))
            assert tuple(ds.shape.sig) == sig_shape, f"{ds!r}: expected sig_shape {sig_shape}"
            expected = frames.astype("float64").reshape(-1, *sig_shape)
            assert_delivered(read(ds, dest_dtype="float64"), expected, None, repr(ds))

    def test_sig_shape_of_other_size(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Cuts the pixels into other frames, or is refused."""
        if self.sig_shape_override == "none":
            pytest.skip("this format takes no sig_shape")
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        width = self.sig_shape[-1]
        if self.sig_shape_override == "reshape":
            for sig_shape in ((3, 17), (1, 1), (*self.sig_shape[:-1], width + 1)):
                with pytest.raises(DataSetException, match="sig_shape must be of size"):
                    self.load(ctx, kwargs, **self.sig_arguments(sig_shape))
            return
        for sig_shape, fits in (((1, width), True), ((3, 7), False)):
            n = frames.size // prod(sig_shape)
            arguments = {"nav_shape": (n,), **self.sig_arguments(sig_shape)}
            try:
                ds = self.load(ctx, kwargs, io_backend=io_backend, **arguments)
            except REFUSALS:
                # Data that are no files have no end that could be ignored.
                assert not fits, f"{arguments} was refused"
                continue
            expected = frames.astype("float64").reshape(-1)[: n * prod(sig_shape)].reshape(n, *sig_shape)
            assert_delivered(read(ds, dest_dtype="float64"), expected, None, repr(ds))

    def sig_arguments(self, sig_shape: Any) -> dict[str, Any]:
        """Arguments that ask for a `sig_shape`. Override if others belong to it."""
        return {"sig_shape": sig_shape}

    def test_partitions_follow_each_other(self, tmp_path: Path, ctx: Context) -> None:
        """As many as asked for, from the first to the last scan position."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        for num_partitions in (1, 2, 5, self.n_frames):
            ds = self.load(ctx, kwargs, num_partitions=num_partitions)
            partitions = list(ds.get_partitions())
            assert len(partitions) == num_partitions, f"{ds!r}: {len(partitions)} partitions"
            stop = 0
            for partition in partitions:
                assert partition.slice.origin[0] == stop, f"{partition!r} should start at position {stop}"
                assert tuple(partition.shape.sig) == tuple(ds.shape.sig), f"{partition!r} of other frames"
                stop += partition.slice.shape[0]
            assert stop == self.n_frames, f"{ds!r}: the partitions end at position {stop}"

    def test_impossible_arguments_are_refused(self, tmp_path: Path, ctx: Context) -> None:
        """With an error of the library, TypeError or ValueError; doubtful ones may also work."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        with_sig = self.sig_shape_override != "none"
        doubtful = [*DOUBTFUL, *(DOUBTFUL_SIG if with_sig else [])]
        impossible = [*IMPOSSIBLE, {"io_backend": "doesn't exist"}, *(IMPOSSIBLE_SIG if with_sig else [])]
        for arguments in doubtful:
            try:
                self.load_quietly(ctx, kwargs, **arguments)
            except REFUSALS:
                continue
        for arguments in impossible:
            try:
                ds = self.load_quietly(ctx, kwargs, **arguments)
            except REFUSALS:
                continue
            raise AssertionError(f"{arguments} was accepted and gives {ds!r}")
