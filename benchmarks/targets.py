"""The targets of the design, as checks on rows. Nothing here is ever relaxed to make a row look better."""

from __future__ import annotations

from benchmarks.rows import ALL_CORES, LIMIT, REFERENCE, Check, Row, part

__all__ = [
    "as_fast_as",
    "at_most_anon",
    "at_most_of_full_run",
    "at_most_seconds",
    "at_most_slowest",
    "at_most_sum",
    "four_times_reference_or_limit",
    "takes_seconds",
    "three_times_reference",
]

FIXED_SECONDS_OF_ROI = 0.005
A_FEW_SECONDS = 10.0


def as_fast_as(other: str, factor: float) -> Check:
    """At least `factor` times the speed of another one."""

    def holds(row: Row) -> bool | None:
        speed = row.speed_against(other)
        return None if speed is None else speed >= factor

    return Check(f"≥ {factor:g} x {other}", holds)


def _four_times_reference_or_limit(row: Row) -> bool | None:
    to_limit, to_reference = row.speed_against(LIMIT), row.speed_against(REFERENCE)
    if to_limit is not None and to_limit >= 1:
        return True
    return None if to_reference is None else to_reference >= 4


four_times_reference_or_limit = Check("≥ min(4 x reference, 1 x limit)", _four_times_reference_or_limit)


def _three_times_reference(row: Row) -> bool | None:
    to_limit, to_reference = row.speed_against(LIMIT), row.speed_against(REFERENCE)
    if row.reference_fails:
        return None if to_limit is None else to_limit >= 0.4
    return None if to_reference is None else to_reference >= 3


three_times_reference = Check("≥ 3 x reference, or 0.4 x limit where it fails", _three_times_reference)


def _takes_seconds(row: Row) -> bool | None:
    ours = row.median(ALL_CORES)
    return None if ours is None else ours <= A_FEW_SECONDS


takes_seconds = Check("seconds", _takes_seconds)


def _seconds_of(row: Row, workloads: tuple[str, ...]) -> list[float] | None:
    medians = [row.median(part(workload)) for workload in workloads]
    known = [median for median in medians if median is not None]
    return known if len(known) == len(workloads) else None


def at_most_sum(workloads: tuple[str, ...], factor: float) -> Check:
    """No slower than single runs one after the other."""

    def holds(row: Row) -> bool | None:
        ours, singles = row.median(ALL_CORES), _seconds_of(row, workloads)
        return None if ours is None or singles is None else ours <= factor * sum(singles)

    return Check(f"≤ {factor:g} x sum of single runs", holds)


def at_most_slowest(workloads: tuple[str, ...], factor: float) -> Check:
    """No slower than the slowest of the single runs."""

    def holds(row: Row) -> bool | None:
        ours, singles = row.median(ALL_CORES), _seconds_of(row, workloads)
        return None if ours is None or singles is None else ours <= factor * max(singles)

    return Check(f"≤ {factor:g} x slowest single run", holds)


def at_most_of_full_run(workload: str, fraction: float) -> Check:
    """Costs no more than a part of the run over all frames, and a little."""

    def holds(row: Row) -> bool | None:
        ours, full = row.median(ALL_CORES), row.median(part(workload))
        return None if ours is None or full is None else ours <= fraction * full + FIXED_SECONDS_OF_ROI

    return Check(f"≤ {fraction:.0%} of full run + {FIXED_SECONDS_OF_ROI * 1e3:g} ms", holds)


def at_most_seconds(seconds: float, text: str) -> Check:
    """Takes no longer than that."""

    def holds(row: Row) -> bool | None:
        ours = row.median(ALL_CORES)
        return None if ours is None else ours <= seconds

    return Check(f"≤ {text}", holds)


def at_most_anon(nbytes: int) -> Check:
    """Needs no more anonymous memory than that."""

    def holds(row: Row) -> bool | None:
        ours = row.anon_bytes.get(ALL_CORES)
        return None if ours is None else ours <= nbytes

    return Check(f"≤ {nbytes / 1e6:.0f} MB", holds)
