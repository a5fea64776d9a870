from __future__ import annotations

import io
import subprocess
import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import tqdm.std

from libertem.common import progress
from libertem.common.progress import ProgressReporter, ProgressState, TQDMProgressReporter


def state(frames: float, done: int, running: int) -> ProgressState:
    return ProgressState(frames, 6, done, running, 2, progress_id="run")


class Bar:
    """Offers what a bar of a third party offers, and nothing more."""

    def __init__(self) -> None:
        self.n = 0
        self.total = 6
        self.descriptions: list[str] = []
        self.n_refreshed = 0
        self.is_closed = False

    def update(self, n: int) -> None:
        self.n += n

    def refresh(self) -> None:
        self.n_refreshed += 1

    def set_description(self, description: str) -> None:
        self.descriptions.append(description)

    def close(self) -> None:
        self.is_closed = True


class OwnBarReporter(TQDMProgressReporter):
    """Made like the reporter of a third party: own bar, own start, no call to a base constructor."""

    def __init__(self) -> None:
        self.bar = Bar()

    def start(self, state: ProgressState) -> None:
        self._bar = self.bar  # type: ignore[assignment]  # a bar need not be tqdm's
        self.bar.set_description(self._get_description(state))
        self._update(state, clip=True, refresh=False)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What tqdm draws, without waiting between two drawings."""
    file = io.StringIO()
    make = partial(tqdm.std.tqdm, file=file, mininterval=0, ascii=True)
    monkeypatch.setattr(progress, "bar_class", lambda: make)
    return file


def test_a_run_is_drawn_from_nothing_to_all_frames(screen: io.StringIO) -> None:
    reporter = TQDMProgressReporter()
    reporter.start(state(0, 0, 0))
    for news in (state(0, 0, 1), state(3, 1, 0), state(3, 1, 1), state(6, 2, 0)):
        reporter.update(news)
    reporter.end(state(6, 2, 0))
    drawn = screen.getvalue()
    assert "Partitions 0/2, Frames:   0%" in drawn
    assert "Partitions 1(1)/2, Frames:  50%" in drawn
    assert "Partitions 2/2, Frames: 100%" in drawn
    assert drawn.endswith("\n")


def test_a_reporter_can_be_used_again_even_if_a_run_did_not_end(screen: io.StringIO) -> None:
    reporter = TQDMProgressReporter()
    for _ in range(2):
        reporter.start(state(0, 0, 0))
        reporter.update(state(3, 1, 0))
    reporter.end(state(6, 2, 0))
    assert screen.getvalue().count("\n") == 2


@pytest.mark.parametrize(
    ("running", "text"), [(0, "Partitions 1/2, Frames"), (3, "Partitions 1(3)/2, Frames")]
)
def test_the_description_counts_partitions(running: int, text: str) -> None:
    assert TQDMProgressReporter()._get_description(state(0, 1, running)) == text


def test_a_third_party_bar_is_moved_and_described() -> None:
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 0))
    reporter.update(state(2.75, 0, 1))
    assert reporter.bar.n == 2
    assert reporter.bar.descriptions[-1] == "Partitions 0(1)/2, Frames"
    reporter.end(state(6, 2, 0))
    assert reporter.bar.n == 6
    assert reporter.bar.is_closed
    assert reporter.bar.n_refreshed == 1


def test_an_unchanged_description_is_not_set_again() -> None:
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 1))
    before = len(reporter.bar.descriptions)
    reporter.update(state(1, 0, 1))
    reporter.update(state(2, 0, 1))
    assert len(reporter.bar.descriptions) == before


def test_a_clipped_bar_never_goes_back_nor_beyond_its_end() -> None:
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 0))
    positions = []
    for frames in (4, 2, 5, 9):
        reporter._update(state(frames, 0, 1), clip=True)
        positions.append(reporter.bar.n)
    assert positions == [4, 4, 5, 6]


def test_a_bar_that_is_not_clipped_follows_the_state() -> None:
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 0))
    for frames in (9, 2):
        reporter._update(state(frames, 0, 1), clip=False)
        assert reporter.bar.n == frames


def test_messages_after_the_end_are_ignored() -> None:
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 0))
    reporter.end(state(3, 1, 0))
    reporter.update(state(6, 2, 0))
    reporter.end(state(6, 2, 0))
    assert reporter.bar.n == 3


def test_messages_from_many_threads_add_up() -> None:
    total = 2000
    reporter = OwnBarReporter()
    reporter.start(state(0, 0, 0))
    states = [ProgressState(n, total, 0, 1, 2, "run") for n in range(total + 1)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reporter.update, states))
    assert reporter.bar.n == total


def test_reporters_must_say_what_they_do() -> None:
    with pytest.raises(TypeError, match="abstract"):
        ProgressReporter()  # type: ignore[abstract]  # that is the point


def test_tqdm_is_loaded_only_when_a_bar_is_shown() -> None:
    code = "import sys, libertem.common.progress; sys.exit('tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- which bar ---


def _kernel(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    shell = types.SimpleNamespace(config=config)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_terminals_get_bars_of_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.bar_class() is tqdm.std.tqdm
    _kernel(monkeypatch, {"TerminalIPythonApp": {}})
    assert progress.bar_class() is tqdm.std.tqdm
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert progress.bar_class() is tqdm.std.tqdm


def test_notebooks_without_widgets_get_letters_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _kernel(monkeypatch, {"IPKernelApp": {}})
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    reporter = TQDMProgressReporter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reporter.start(state(0, 0, 0))
        reporter.end(state(6, 2, 0))
    captured = capsys.readouterr()
    assert "Partitions 2/2, Frames: 100%" in captured.out
    assert captured.err == ""


def test_notebooks_with_widgets_get_bars_of_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, {"IPKernelApp": {}})
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: object())
    widgets = types.SimpleNamespace(tqdm=Bar)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", widgets)
    assert progress.bar_class() is Bar
