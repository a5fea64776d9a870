"""Read everything, and say what is wrong with it.

One pass if nothing is wrong. If something cannot be read, the data are gone through again in pieces, and
pieces that fail are cut in halves until the frames are known that cannot be read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import prod
from libertem.io.corrections.corrset import CorrectionSet
from libertem.udf.contract import UDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["CheckUDF", "Finding", "Report", "check", "runs_of"]

Level: TypeAlias = Literal["damage", "warning", "note"]

LEVELS: tuple[Level, ...] = ("damage", "warning", "note")
"""The worst first."""

MOST_ATTEMPTS = 2000
"""Then pieces that fail are not cut any more: a disk that is broken everywhere would take for ever."""

MOST_ERRORS = 10
"""Different sentences that are kept."""

SATURATED_BITS = (6, 8, 10, 11, 12, 13, 14, 15, 16, 24)
"""Depths of counters and converters: a largest value of ``2**bits - 1`` is suspicious."""

MIN_SATURATED = 2
"""Pixels that have to have it."""


class CheckUDF(UDF):
    """Lowest and highest value of each frame, in the native dtype, and what is not finite.

    Complex numbers are judged by their modulus.
    """

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """One value each per frame."""
        dtype = np.dtype(self.meta.input_dtype)
        if dtype.kind == "c":
            dtype = np.empty(0, dtype).real.dtype
        return {
            "was_read": self.buffer(kind="nav", dtype=bool),
            "low": self.buffer(kind="nav", dtype=dtype),
            "high": self.buffer(kind="nav", dtype=dtype),
            "n_high": self.buffer(kind="nav", dtype=np.int64),
            "n_not_finite": self.buffer(kind="nav", dtype=np.int64),
        }

    def get_preferred_input_dtype(self) -> Any:
        """As stored: a conversion could hide what is wrong."""
        return self.USE_NATIVE_DTYPE

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Some frames, or a part of each of them."""
        results = self.results
        values = tile.reshape(tile.shape[0], -1)
        if values.dtype.kind == "c":
            values = np.abs(values)
        low, high = values.min(axis=1), values.max(axis=1)
        # What is not finite comes out at one of the ends: no look at each pixel is needed to find it.
        if values.dtype.kind == "f" and not np.isfinite([low, high]).all():
            finite = np.isfinite(values)
            results.n_not_finite[:] += np.count_nonzero(~finite, axis=1)
            # Nothing is higher or lower than what takes the place of values that are none.
            low = np.where(finite, values, np.inf).min(axis=1)
            high = np.where(finite, values, -np.inf).max(axis=1)
        n_high = np.count_nonzero(values == high[:, np.newaxis], axis=1)
        # Other parts of the same frames may have been here before.
        known = np.array(results.was_read)
        higher = ~known | (high > results.high)
        same = known & (high == results.high)
        results.n_high[:] = np.where(higher, n_high, results.n_high + np.where(same, n_high, 0))
        results.high[:] = np.where(higher, high, results.high)
        results.low[:] = np.where(known, np.minimum(low, results.low), low)
        results.was_read[:] = True


@dataclass(frozen=True)
class Finding:
    """Something that was found."""

    kind: str
    """``"unreadable"``, ``"notice"``, ``"not finite"``, ``"missing"``, ``"ignored"``, ``"blank"`` or
    ``"saturated"``."""
    text: str
    """In words, without the frames."""
    level: Level
    """``"damage"``: the data are not what they should be. ``"warning"``: maybe. ``"note"``: worth knowing."""
    frames: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of frame numbers, counted through the scan."""
    details: tuple[str, ...] = ()
    """What the errors said."""


@dataclass
class Report:
    """What reading everything has shown."""

    n_frames: int
    """Scan positions."""
    n_read: int = 0
    """Frames that could be read."""
    seconds: float = 0.0
    """Time that it took."""
    findings: list[Finding] = field(default_factory=list)
    """What was found; the worst first."""

    @property
    def worst(self) -> Level | None:
        """Level of the worst finding; None if nothing was found."""
        return min((finding.level for finding in self.findings), key=LEVELS.index, default=None)


def check(ctx: Any, dataset: DataSet, *, notices: Sequence[str] = (), progress: Any = False) -> Report:
    """Read all frames, as they are stored.

    Parameters
    ----------
    ctx : Context
        Does the work.
    dataset : DataSet
        Corrections are not applied.
    notices : sequence of str, optional
        What had to be said when the data set was opened; part of the report.
    progress : bool or ProgressReporter, optional
        Show the progress of the first pass.
    """
    start = time.perf_counter()
    facts = _Facts(ctx, dataset)
    facts.collect(progress)
    report = Report(n_frames=facts.n_frames, n_read=int(np.count_nonzero(facts.was_read)))
    report.findings += [Finding("notice", notice, "warning") for notice in notices]
    report.findings += facts.findings()
    report.findings.sort(key=lambda finding: LEVELS.index(finding.level))
    report.seconds = time.perf_counter() - start
    return report


class _Facts:
    """What is known about each frame."""

    def __init__(self, ctx: Any, dataset: DataSet) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._nav_shape = dataset.shape.nav.to_tuple()
        self.n_frames = prod(self._nav_shape)
        self.was_read = np.zeros(self.n_frames, dtype=bool)
        self._failed = np.zeros(self.n_frames, dtype=bool)
        self._errors: dict[str, None] = {}
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def collect(self, progress: Any) -> None:
        """One pass, or as many as are needed."""
        try:
            self._store(slice(0, self.n_frames), self._run(None, progress))
        except Exception as err:  # whatever a damaged file leads to: it is what we are looking for
            self._note(err)
            self._collect_in_pieces()

    def _run(self, roi: Any, progress: Any = False) -> Any:
        # An empty set instead of what comes with the data: stored values are looked at.
        return self._ctx.run_udf(
            dataset=self._dataset, udf=CheckUDF(), roi=roi, corrections=CorrectionSet(), progress=progress
        )

    def _store(self, frames: slice, results: Any) -> None:
        for name, buffer in results.items():
            values = np.asarray(buffer.raw_data).reshape(-1)
            if name == "was_read":
                self.was_read[frames] = values
            else:
                column = self._columns.setdefault(name, np.zeros(self.n_frames, dtype=values.dtype))
                column[frames] = values

    def _note(self, err: Exception) -> None:
        if len(self._errors) < MOST_ERRORS:
            self._errors[" ".join(str(err).split()) or type(err).__name__] = None

    def _collect_in_pieces(self) -> None:
        # The pieces that a run is made of: in most of them nothing is wrong.
        pieces = []
        for partition in self._dataset.get_partitions():
            start = partition.slice.origin[0]
            pieces.append((start, start + partition.slice.shape[0]))
        self._errors.clear()
        n_attempts = 0
        while pieces:
            start, stop = pieces.pop(0)
            roi = np.zeros(self.n_frames, dtype=bool)
            roi[start:stop] = True
            n_attempts += 1
            try:
                self._store(slice(start, stop), self._run(roi.reshape(self._nav_shape)))
            except Exception as err:  # as above
                middle = (start + stop) // 2
                if stop - start > 1 and n_attempts < MOST_ATTEMPTS:
                    pieces[:0] = [(start, middle), (middle, stop)]
                else:
                    self._failed[start:stop] = True
                    self._note(err)

    def findings(self) -> list[Finding]:
        """In words."""
        found = []
        if self._failed.any():
            n_failed = int(np.count_nonzero(self._failed))
            text = f"{_frames(n_failed)} cannot be read"
            found.append(Finding("unreadable", text, "damage", runs_of(self._failed), tuple(self._errors)))
        missing = ~self.was_read & ~self._failed
        if missing.any():
            text = f"{_frames(int(np.count_nonzero(missing)))} not in the files"
            found.append(Finding("missing", text, self._level_of_missing(), runs_of(missing)))
        found += self._about_sync()
        if self.was_read.any():
            found += self._about_values()
        return found

    def _level_of_missing(self) -> Level:
        """Blanks that the user has asked for are none of the fault of the files."""
        sync_offset = getattr(self._dataset, "_sync_offset", None) or 0
        asked_for = vars(self._dataset).get("_nav_shape") is not None or sync_offset != 0
        return "note" if asked_for else "damage"

    def _about_sync(self) -> list[Finding]:
        info = self._dataset.get_sync_offset_info()
        texts = {"frames_skipped_start": "at the start", "frames_ignored_end": "at the end"}
        return [
            Finding("ignored", f"{_frames(info[name])} {where} of the files not part of the data set", "note")
            for name, where in texts.items()
            if info.get(name)
        ]

    def _about_values(self) -> list[Finding]:
        found = []
        n_not_finite = self._columns["n_not_finite"]
        if n_not_finite.any():
            broken = n_not_finite > 0
            n_pixels = int(n_not_finite.sum())
            text = f"{n_pixels} pixel{'s' if n_pixels != 1 else ''} NaN or infinite, in "
            text += _frames(int(np.count_nonzero(broken)))
            found.append(Finding("not finite", text, "damage", runs_of(broken)))
        low, high = self._columns["low"], self._columns["high"]
        blank = self.was_read & (low == 0) & (high == 0) & (n_not_finite == 0)
        if blank.any():
            text = f"{_frames(int(np.count_nonzero(blank)))} blank: all pixels are zero"
            found.append(Finding("blank", text, "note", runs_of(blank)))
        found += self._about_saturation()
        return found

    def _about_saturation(self) -> list[Finding]:
        high = self._columns["high"]
        if high.dtype.kind not in "iu":
            return []
        highest = int(high[self.was_read].max())
        at_limit = highest == np.iinfo(high.dtype).max
        if not at_limit and highest not in (2**bits - 1 for bits in SATURATED_BITS):
            return []
        saturated = self.was_read & (high == highest)
        n_pixels = int(self._columns["n_high"][saturated].sum())
        if n_pixels < MIN_SATURATED:
            return []
        what = f"is the largest that {high.dtype.name} can hold" if at_limit else "looks like a limit"
        text = f"{n_pixels} pixels may be saturated: their value, {highest}, {what}; in "
        text += _frames(int(np.count_nonzero(saturated)))
        return [Finding("saturated", text, "note", runs_of(saturated))]


def _frames(n: int) -> str:
    return f"{n} frame{'s' if n != 1 else ''}"


def runs_of(mask: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Half-open ranges where a mask is True.

    Examples
    --------
    >>> runs_of(np.array([False, True, True, False, True]))
    ((1, 3), (4, 5))
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))
