"""Follow the progress of a run from the messages of its tasks."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from libertem.common.progress import ProgressReporter, ProgressState, TQDMProgressReporter

__all__ = ["PROGRESS_TOPIC", "PartProgress", "RunProgress", "make_reporter"]

PROGRESS_TOPIC = "partition_progress"

MIN_SECONDS_BETWEEN_MESSAGES = 1.0


def make_reporter(progress: bool | ProgressReporter) -> ProgressReporter | None:
    """Reporter for what users write as `progress`."""
    if isinstance(progress, ProgressReporter):
        return progress
    return TQDMProgressReporter() if progress else None


class PartProgress:
    """On the worker: reports frames of one partition, at most once per second.

    Parameters
    ----------
    send : callable or None
        Takes a message; None if nobody listens.
    frame_px : int
        Pixels per frame; tiles count as fractions of frames.
    n_frames : int
        Frames in the partition.
    report : callable, optional
        Takes how much of the partition is done, from 0 to 1.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None] | None,
        frame_px: int,
        n_frames: int = 0,
        report: Callable[[float], None] | None = None,
    ) -> None:
        self._send = send
        self._frame_px = max(1, frame_px)
        self._total_px = max(1, n_frames * self._frame_px)
        self._report = report
        self._px = 0
        self._last: float | None = None
        if send is not None:
            send({"event": "start", "frames": 0.0})

    def add(self, n_px: int) -> None:
        """Count processed pixels."""
        self._px += n_px
        self.look_ahead(0)
        if self._send is None:
            return
        now = time.monotonic()
        if self._last is None:
            self._last = now
        elif now - self._last >= MIN_SECONDS_BETWEEN_MESSAGES:
            self._last = now
            self._send({"event": "frames", "frames": self._px / self._frame_px})

    def look_ahead(self, n_px: float) -> None:
        """Report some more pixels, without counting them."""
        if self._report is not None:
            self._report((self._px + n_px) / self._total_px)


class RunProgress:
    """On the main process: turns messages into calls of a `ProgressReporter`.

    Parameters
    ----------
    reporter : ProgressReporter
        Receives the progress.
    frames : dict
        Number of frames for each partition ident.
    """

    def __init__(self, reporter: ProgressReporter, frames: dict[str, int]) -> None:
        self._reporter = reporter
        self._frames = frames
        self._running: dict[str, float] = {}
        self._done_frames = 0
        self._done = 0
        self._ended = False
        self._id = uuid.uuid4().hex
        self._lock = threading.Lock()
        reporter.start(self._state())

    def _state(self) -> ProgressState:
        return ProgressState(
            num_frames_complete=self._done_frames + sum(self._running.values()),
            num_frames_total=sum(self._frames.values()),
            num_part_complete=self._done,
            num_part_in_progress=len(self._running),
            num_part_total=len(self._frames),
            progress_id=self._id,
        )

    def on_message(self, topic: str, message: dict[str, Any]) -> None:
        """A task has started or come further; may run in any thread."""
        ident = message["ident"]
        with self._lock:
            # Messages can overtake the end of their task.
            if self._ended or ident not in self._frames:
                return
            if message["event"] == "frames" and ident not in self._running:
                return
            # A partition may be started over; progress does not go back.
            frames = min(message["frames"], self._frames[ident])
            self._running[ident] = max(frames, self._running.get(ident, 0.0))
            self._reporter.update(self._state())

    def finish(self, ident: str) -> None:
        """A partition has been merged."""
        with self._lock:
            self._running.pop(ident, None)
            self._done_frames += self._frames.get(ident, 0)
            self._done += 1
            self._reporter.update(self._state())

    def end(self) -> None:
        """The run is over, complete or not."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._reporter.end(self._state())
