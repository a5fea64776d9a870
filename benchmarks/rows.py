"""What a row of the table knows: samples, and the figures that follow from them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ALL_CORES", "LIMIT", "ONE_THREAD", "REFERENCE", "Check", "Row", "part"]

LIMIT = "limit"
ONE_THREAD = "one_thread"
ALL_CORES = "all_cores"
REFERENCE = "reference"


def part(workload: str) -> str:
    """Name of the samples of another workload that this one is compared with, on all cores."""
    return f"part:{workload}"


@dataclass
class Row:
    """The measurements of one case."""

    case: str
    """Name of the case."""

    unit: Literal["GB/s", "ms", "s", ""]
    """How medians are shown; nothing where no time is measured."""

    checks: Sequence[Check] = ()
    """The targets."""

    nbytes: int = 0
    """Bytes of the pixels that are processed."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Samples, one per round, by who was measured. Those of the limit are for `nbytes` bytes."""

    anon_bytes: dict[str, int] = field(default_factory=dict)
    """Peak of anonymous resident memory, by who was measured."""

    remarks: list[str] = field(default_factory=list)
    """What a reader has to know."""

    disagreements: list[str] = field(default_factory=list)
    """Results that differ between those that were measured."""

    reference_fails: bool = False
    """Whether the reference cannot do this, or is known to do it wrong."""

    failure: str | None = None
    """Why there is no measurement."""

    def median(self, who: str) -> float | None:
        """Seconds, or None if not measured."""
        samples = self.seconds.get(who)
        return statistics.median(samples) if samples else None

    def spread(self, who: str) -> float | None:
        """Range of the samples as a part of their median."""
        median = self.median(who)
        return (max(self.seconds[who]) - min(self.seconds[who])) / median if median else None

    def speed_against(self, other: str) -> float | None:
        """How many times faster than another one the library is on all cores."""
        ours, theirs = self.median(ALL_CORES), self.median(other)
        return theirs / ours if ours and theirs else None

    @property
    def is_sound(self) -> bool:
        """Whether everything ran, with equal results."""
        return self.failure is None and not self.disagreements

    @property
    def target(self) -> str:
        """All targets in words."""
        return "; ".join(check.text for check in self.checks)

    @property
    def verdict(self) -> str:
        """Whether the targets are met."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        words = self.remarks.copy()
        if self.checks:
            words.insert(0, self._judge())
        if self.disagreements:
            words.insert(0, f"RESULTS DISAGREE: {', '.join(self.disagreements)}")
        return "; ".join(words)

    def _judge(self) -> str:
        outcomes = [(check, check.holds(self)) for check in self.checks]
        missed = [check.text for check, holds in outcomes if holds is False]
        open_ones = [check.text for check, holds in outcomes if holds is None]
        if missed:
            return "**missed**" if len(missed) == len(outcomes) else f"**missed**: {', '.join(missed)}"
        if len(open_ones) == len(outcomes):
            return "not decided"
        return f"met; not decided: {', '.join(open_ones)}" if open_ones else "met"


@dataclass(frozen=True)
class Check:
    """A target of the design."""

    text: str
    """In words."""

    holds: Callable[[Row], bool | None]
    """Whether it is met; None if what it needs has not been measured."""
