"""Find the frames that all eight sectors have, and the one with which the scan starts.

Block counts tell which blocks of different sectors belong together, frame ids which blocks make up a frame,
the shutter flag when the scan starts. Only a few hundred headers are read, however long the recording is: at
its beginning, at its end, and where a search passes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from libertem.exceptions import DataSetException, HeaderError
from libertem.io.dataset.k2is.blocks import BLOCK_SHAPE, BLOCKS_PER_FRAME, Sector

__all__ = ["Alignment", "align"]

SHUTTER_PROBES = 64
"""Frames that are asked for their shutter flag before a search between two of them. One would do if the flag
stayed set to the end."""


@dataclass(frozen=True)
class Alignment:
    """Whole frames that all sectors have."""

    first_offsets: tuple[int, ...]
    """For each sector, the byte where the first of them starts."""

    image_count: int
    """How many they are."""

    first_active: int | None
    """The first one with the shutter flag; None if there is none."""

    lost_blocks: int
    """Blocks that are missing in all sectors alike, according to the block counts."""

    frame_ids: tuple[int, int]
    """Those of the first and the last block in the first file, aligned or not."""

    start_frame_ids: tuple[int, int]
    """Those of the frame before the first active one, and of that; twice that if there is none before."""

    last_frame_id: int
    """That of the last frame."""


def align(sectors: Sequence[Sector]) -> Alignment:
    """Align the sectors of a recording.

    Raises
    ------
    DataSetException
        If that is impossible: different recordings, no whole frame, blocks lost in a part of the files.
    """
    starts = _first_whole_frame(sectors, _synchronize(sectors, at_end=False))
    lasts = _last_whole_frame(sectors, _synchronize(sectors, at_end=True))
    n_frames, lost_blocks = _count_frames(sectors, starts, lasts)
    _check_frame(sectors, starts)
    last_frame_id = _check_frame(sectors, [last - BLOCKS_PER_FRAME + 1 for last in lasts])
    first_active = _find_first_active(sectors[0], starts[0], n_frames)
    if first_active is not None:
        _check_shutter(sectors, starts, first_active)
    first = sectors[0]
    start_frame_ids = [
        first.header(starts[0] + BLOCKS_PER_FRAME * max(0, (first_active or 0) - before)).frame_id
        for before in (1, 0)
    ]
    return Alignment(
        first_offsets=tuple(sector.offset(start) for sector, start in zip(sectors, starts, strict=True)),
        image_count=n_frames,
        first_active=first_active,
        lost_blocks=lost_blocks,
        frame_ids=(first.header(0).frame_id, first.header(first.n_blocks - 1).frame_id),
        start_frame_ids=(start_frame_ids[0], start_frame_ids[1]),
        last_frame_id=last_frame_id,
    )


def _synchronize(sectors: Sequence[Sector], *, at_end: bool) -> list[int]:
    """For each sector the first block of which all have a copy, or the last one."""
    edges = [sector.n_blocks - 1 if at_end else 0 for sector in sectors]
    counts = [sector.header(edge).block_count for sector, edge in zip(sectors, edges, strict=True)]
    common = min(counts) if at_end else max(counts)
    other = sectors[counts.index(common)].path
    return [
        _find_count(sector, common, edge + common - count, other)
        for sector, edge, count in zip(sectors, edges, counts, strict=True)
    ]


def _find_count(sector: Sector, count: int, guess: int, other: str) -> int:
    """Block with the count of the one at the edge of `other`.

    It is not at `guess` if blocks on the way were lost.
    """
    blocks = range(sector.n_blocks)
    if guess in blocks and sector.header(guess).block_count == count:
        return guess
    found = bisect_left(blocks, count, key=lambda block: sector.header(block).block_count)
    if found in blocks and sector.header(found).block_count == count:
        return found
    raise HeaderError(
        "the sectors cannot be synchronized",
        path=sector.path,
        found=f"block counts {sector.header(0).block_count} to {sector.header(blocks[-1]).block_count}",
        expected=f"block {count}, with which {other} starts or ends",
        hint="the files belong to different recordings, or the camera lost data",
    )


def _first_whole_frame(sectors: Sequence[Sector], starts: Sequence[int]) -> list[int]:
    """The first blocks of the first whole frame, from those where all sectors have started."""
    frame_ids = [_frame_ids(sector, start) for sector, start in zip(sectors, starts, strict=True)]
    if all(first == last for first, last in frame_ids):
        return list(starts)
    skipped = frame_ids[0][0]
    return [
        start
        + bisect_left(
            range(BLOCKS_PER_FRAME), True, key=lambda n: sector.header(start + n).frame_id != skipped
        )
        for sector, start in zip(sectors, starts, strict=True)
    ]


def _last_whole_frame(sectors: Sequence[Sector], lasts: Sequence[int]) -> list[int]:
    """The last blocks of the last whole frame, from those where the first sector has ended."""
    frame_ids = [
        _frame_ids(sector, last - BLOCKS_PER_FRAME + 1) for sector, last in zip(sectors, lasts, strict=True)
    ]
    if all(first == last for first, last in frame_ids):
        return list(lasts)
    skipped = frame_ids[0][1]
    return [
        last
        - bisect_left(
            range(BLOCKS_PER_FRAME), True, key=lambda n: sector.header(last - n).frame_id != skipped
        )
        for sector, last in zip(sectors, lasts, strict=True)
    ]


def _frame_ids(sector: Sector, start: int) -> tuple[int, int]:
    """Of the first and the last of as many blocks as a frame has."""
    last = start + BLOCKS_PER_FRAME - 1
    if start < 0 or last >= sector.n_blocks:
        raise DataSetException(
            "the data set contains no whole frame",
            path=sector.path,
            found=f"{sector.n_blocks} blocks of which other sectors do not have all",
            expected=f"{BLOCKS_PER_FRAME} blocks of one frame in all sectors",
            hint="is the file cut off?",
        )
    return sector.header(start).frame_id, sector.header(last).frame_id


def _count_frames(sectors: Sequence[Sector], starts: Sequence[int], lasts: Sequence[int]) -> tuple[int, int]:
    """Number of frames, and of blocks that all sectors have lost."""
    lengths = [last + 1 - start for start, last in zip(starts, lasts, strict=True)]
    n_blocks = max(lengths)
    for sector, start, length in zip(sectors, starts, lengths, strict=True):
        if length != n_blocks and n_blocks > 0:
            raise DataSetException(
                "blocks of this sector were lost during recording",
                path=sector.path,
                found=f"{length} blocks, incomplete from frame {_first_gap(sector, start, length)} on",
                expected=f"{n_blocks}, as other sectors have",
                hint="frames behind the gap would be made up of different ones",
            )
    n_frames, rest = divmod(n_blocks, BLOCKS_PER_FRAME)
    if n_blocks < BLOCKS_PER_FRAME or rest:
        raise DataSetException(
            "the recording does not consist of whole frames",
            path=sectors[0].path,
            found=f"{max(0, n_blocks)} blocks in each sector between the first whole frame and the last one",
            expected=f"a multiple of {BLOCKS_PER_FRAME}",
            hint="the camera lost data, or nothing but parts of frames was recorded",
        )
    first, last = sectors[0].header(starts[0]), sectors[0].header(lasts[0])
    # Counters that were reset are none of our business: only frame ids are compared then.
    return n_frames, max(0, last.block_count - first.block_count + 1 - n_blocks)


def _first_gap(sector: Sector, start: int, length: int) -> int:
    """Frame with the first block whose count is larger than its place."""
    first = sector.header(start).block_count
    block = bisect_left(range(length), True, key=lambda n: sector.header(start + n).block_count > first + n)
    return block // BLOCKS_PER_FRAME


def _check_frame(sectors: Sequence[Sector], starts: Sequence[int]) -> int:
    """The id of the frame that starts at these blocks, if its blocks are those that it should have."""
    frame_id = sectors[0].header(starts[0]).frame_id
    for sector, start in zip(sectors, starts, strict=True):
        for n in range(BLOCKS_PER_FRAME):
            header = sector.header(start + n)
            place = BLOCK_SHAPE[0] * (n // 16), BLOCK_SHAPE[1] * (15 - n % 16)
            if (header.frame_id, header.place) != (frame_id, place):
                raise HeaderError(
                    f"the block at byte {sector.offset(start + n)} is another one than it should be",
                    path=sector.path,
                    found=f"frame id {header.frame_id}, first pixel {header.place}",
                    expected=f"frame id {frame_id}, first pixel {place}",
                    hint="the files belong to different recordings, or the camera lost data",
                )
    return frame_id


def _find_first_active(sector: Sector, start: int, n_frames: int) -> int | None:
    """First frame with the shutter flag: off before, on from then to a frame that is probed."""

    def is_active(frame: int) -> bool:
        return sector.header(start + frame * BLOCKS_PER_FRAME).is_active

    inactive = -1
    for probe in (*range(0, n_frames - 1, max(1, n_frames // SHUTTER_PROBES)), n_frames - 1):
        if is_active(probe):
            return bisect_left(range(probe), True, lo=inactive + 1, key=is_active)
        inactive = probe
    return None


def _check_shutter(sectors: Sequence[Sector], starts: Sequence[int], first_active: int) -> None:
    """Check that all sectors saw the shutter in the same frame, and that this frame is whole."""
    for sector, start in zip(sectors, starts, strict=True):
        for frame in {max(0, first_active - 1), first_active}:
            if sector.header(start + frame * BLOCKS_PER_FRAME).is_active != (frame == first_active):
                raise HeaderError(
                    "the sectors disagree about the frame with which the scan starts",
                    path=sector.path,
                    found=f"another shutter flag in frame {frame}",
                    expected=f"the first active frame is {first_active}, as in {sectors[0].path}",
                    hint="the camera lost data",
                )
    _check_frame(sectors, [start + first_active * BLOCKS_PER_FRAME for start in starts])
