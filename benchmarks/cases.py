"""Which cases are measured, with their targets.

A case is named ``workload/input/reading``, for example ``sum/u16-256/mmap``. All workloads run on one input;
those that show how inputs differ run on all of them, or on formats a choice of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

import numpy as np

from benchmarks.inputs import INPUTS, Input
from benchmarks.rows import LIMIT, REFERENCE, Check
from benchmarks.targets import (
    as_fast_as,
    at_most_of_full_run,
    at_most_seconds,
    at_most_slowest,
    at_most_sum,
    four_times_reference_or_limit,
    three_times_reference,
)

__all__ = ["CASES", "Case", "matches", "select"]

Reading = Literal["mmap", "buffered", "direct"]

MAIN_INPUT = INPUTS["u16-256"]
SINGLES = ("sum", "masks4", "std")
AT_LIMIT = ("sum", "sumsig", "std", "masks1", "masks4", "com")
ON_PLAIN_INPUTS = ("sum", "std", "masks4", "com")
PLAIN_FILETYPES = ("raw", "npy", "mrc", "empad")
ON_OTHER_INPUTS = ("sum", "masks4", "com")
ON_SPARSE_INPUTS = ("sum", "masks1", "masks100", "rings100", "com")
HDF5_FILTERS = ("gzip", "gzip-shuffle", "lzf", "bslz4", "blosc-zstd")
FAST_FILTERS = ("hdf5-gzip", "hdf5-bslz4", "arina")
"""Compressed inputs that have a target."""
ON_INPUT = {
    **{f"hdf5-{filters}{chunks}": ("sum", "pick") for filters in HDF5_FILTERS for chunks in ("-16", "-sig")},
    **{f"hdf5-{filters}": (*ON_OTHER_INPUTS, "pick") for filters in HDF5_FILTERS},
    **dict.fromkeys(("hdf5-u16-256", "arina-u16-192"), (*ON_OTHER_INPUTS, "pick")),
    "dm-stack": ("sum", "masks4"),
    **{f"csr-{occupancy}": ON_SPARSE_INPUTS for occupancy in ("0.1pct", "1pct", "10pct")},
    "k2is": ("sum", "sumsig", "masks1"),
    "mib-files": (),  # only opened
}


@dataclass(frozen=True)
class Case:
    """One row of the table: a workload on an input."""

    workload: str
    """Key of `benchmarks.workloads.WORKLOADS`."""

    source: Input
    """The files."""

    reading: Reading = "mmap"
    """I/O backend."""

    cold: bool = False
    """Drop the files from the page cache before each measurement."""

    unit: Literal["GB/s", "ms"] = "GB/s"
    """Throughput, or time where only a part of the file is processed."""

    checks: tuple[Check, ...] = ()
    """Targets."""

    parts: tuple[str, ...] = ()
    """Workloads that are measured in the same rounds because the targets speak of them."""

    optional: bool = False
    """Only measured if asked for by a pattern."""

    @property
    def name(self) -> str:
        """As shown, and as matched by patterns."""
        return f"{self.workload}/{self.source.name}/{self.reading}{'-cold' if self.cold else ''}"


def _checks_of_mapped(workload: str, source: Input) -> tuple[Check, ...]:
    if source.kind == "sparse":
        return (as_fast_as(REFERENCE, 4),)
    if workload not in AT_LIMIT:
        return ()
    if source.kind == "packed":
        return (three_times_reference,)
    if source.kind == "compressed":
        return (three_times_reference,) if source.name.startswith(FAST_FILTERS) else ()
    if source.kind == "corrected" or np.dtype(source.dtype).itemsize == 1:
        return (as_fast_as(LIMIT, 0.5),)
    return (as_fast_as(LIMIT, 0.8), four_times_reference_or_limit)


def _mapped(workload: str, source: Input) -> Case:
    if workload == "pick":
        return Case(workload, source, unit="ms", checks=(at_most_seconds(0.005, "5 ms"),))
    return Case(workload, source, checks=_checks_of_mapped(workload, source))


def _of_main_input() -> list[Case]:
    of_three = (at_most_sum(SINGLES, 1.05), as_fast_as(REFERENCE, 4))
    return [
        *(_mapped(workload, MAIN_INPUT) for workload in (*AT_LIMIT, "masks32")),
        Case("three", MAIN_INPUT, checks=of_three, parts=SINGLES),
        Case("roi", MAIN_INPUT, unit="ms", checks=(at_most_of_full_run("sum", 0.03),), parts=("sum",)),
        _mapped("pick", MAIN_INPUT),
        Case("tile", MAIN_INPUT, checks=(as_fast_as(REFERENCE, 1),)),
        Case("frame", MAIN_INPUT, checks=(as_fast_as(REFERENCE, 1),)),
    ]


def _of_other_inputs() -> list[Case]:
    others = [source for source in INPUTS.values() if source is not MAIN_INPUT]
    return [_mapped(workload, source) for source in others for workload in _workloads_on(source)]


def _workloads_on(source: Input) -> tuple[str, ...]:
    is_plain = source.kind == "plain" and source.filetype in PLAIN_FILETYPES
    return ON_INPUT.get(source.name, ON_PLAIN_INPUTS if is_plain else ON_OTHER_INPUTS)


def _of_other_readings() -> list[Case]:
    at_disk = (as_fast_as(LIMIT, 0.9),)
    together = (*at_disk, at_most_slowest(SINGLES, 1.1))
    return [
        *(Case(workload, MAIN_INPUT, "buffered") for workload in (*ON_PLAIN_INPUTS, "three", "tile")),
        *(Case(workload, MAIN_INPUT, "direct", cold=True, checks=at_disk) for workload in ON_PLAIN_INPUTS),
        Case("three", MAIN_INPUT, "direct", cold=True, checks=together, parts=SINGLES),
        Case("sum", MAIN_INPUT, "mmap", cold=True, optional=True),
        Case("sum", MAIN_INPUT, "buffered", cold=True, optional=True),
    ]


CASES: tuple[Case, ...] = (*_of_main_input(), *_of_other_readings(), *_of_other_inputs())


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name contains one of the patterns; ``*`` and ``?`` stand for anything."""
    return any(fnmatch(name, f"*{pattern}*") for pattern in patterns)


def select(patterns: list[str]) -> list[Case]:
    """Cases that match a pattern; all but the optional ones if there is none."""
    if not patterns:
        return [case for case in CASES if not case.optional]
    return [case for case in CASES if matches(case.name, patterns)]
