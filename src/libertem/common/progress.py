"""Tell a person how far a run has come."""

from __future__ import annotations

import importlib.util
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["ProgressReporter", "ProgressState", "TQDMProgressReporter", "bar_class"]


class ProgressState(NamedTuple):
    """How far a run has come at one moment."""

    num_frames_complete: float
    """Frames processed. Not a whole number while a frame is processed in parts."""

    num_frames_total: int
    """Frames that the run will process."""

    num_part_complete: int
    """Partitions finished."""

    num_part_in_progress: int
    """Partitions that a worker has begun and not finished."""

    num_part_total: int
    """Partitions of the run."""

    progress_id: str
    """Tells runs apart that go on at the same time."""


class ProgressReporter(ABC):
    """Receives the progress of a run. Give an instance as `progress` of `Context.run_udf`.

    Calls for one run come one after the other, but not necessarily from the thread that started the run.
    """

    @abstractmethod
    def start(self, state: ProgressState) -> None:
        """Called once, before the first partition."""

    @abstractmethod
    def update(self, state: ProgressState) -> None:
        """Called whenever there is news."""

    @abstractmethod
    def end(self, state: ProgressState) -> None:
        """Called once, after the last partition, or after the run was cut short."""


def bar_class() -> Callable[..., tqdm[Any]]:
    """What makes bars where we are: of widgets in notebooks that have them, else of letters.

    `tqdm.auto` decides alike, but warns in every notebook that has no widgets, and takes longer to load.
    """
    is_notebook = _is_notebook()
    if is_notebook and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget_bar

        return widget_bar
    from tqdm.std import tqdm

    # Notebooks show what goes to the standard error on red, as if something were wrong.
    return partial(tqdm, file=sys.stdout) if is_notebook else tqdm


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook. Asked without loading IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class TQDMProgressReporter(ProgressReporter):
    """Shows a tqdm bar, in terminals and in notebooks.

    Subclasses may put a bar of their own into `_bar` and draw it with `_update`.
    """

    # Class attributes, because subclasses need not call a constructor. One lock serves all reporters:
    # tqdm itself draws under one lock.
    _bar: tqdm[Any] | None = None
    _description: str | None = None
    _lock = threading.RLock()

    def start(self, state: ProgressState) -> None:
        """Open a bar; a bar left over from a run that did not end is closed."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            self._description = self._get_description(state)
            self._bar = bar_class()(desc=self._description, total=state.num_frames_total)
            self._update(state)

    def update(self, state: ProgressState) -> None:
        """Move the bar forward."""
        self._update(state)

    def end(self, state: ProgressState) -> None:
        """Draw the bar a last time and close it."""
        with self._lock:
            self._update(state, clip=False, refresh=True)
            if self._bar is not None:
                self._bar.close()
            self._bar = None

    def _update(self, state: ProgressState, *, clip: bool = True, refresh: bool = False) -> None:
        """Bring the bar to `state`.

        Parameters
        ----------
        clip : bool
            Never move backwards nor beyond the total, as late or estimated messages would.
        refresh : bool
            Draw now, rather than when tqdm thinks that it is time.
        """
        with self._lock:
            # A message may arrive after the end, from another thread.
            if self._bar is None:
                return
            frames = int(state.num_frames_complete)
            if clip:
                frames = max(int(self._bar.n), min(frames, state.num_frames_total))
            if frames != self._bar.n:
                self._bar.update(frames - self._bar.n)
            description = self._get_description(state)
            if description != self._description:
                self._description = description
                self._bar.set_description(description)
            if refresh:
                self._bar.refresh()

    @staticmethod
    def _get_description(state: ProgressState) -> str:
        """The text in front of the bar."""
        running = f"({state.num_part_in_progress})" if state.num_part_in_progress else ""
        return f"Partitions {state.num_part_complete}{running}/{state.num_part_total}, Frames"
