"""Talk to a worker process: the parent side of `benchmarks.worker`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Worker", "WorkerError", "environment"]

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = 600.0  # seconds for one request; what hangs for longer is ended
TAIL_BYTES = 2000


class WorkerError(RuntimeError):
    """A request failed; says what the worker said."""


def environment(*, foreign: bool, **extra: str) -> dict[str, str]:
    """Variables for a child process that finds this package.

    Parameters
    ----------
    foreign : bool
        The interpreter of the reference: it must not find the library beside this package.
    **extra : str
        More variables.
    """
    paths = [str(ROOT)]
    if not foreign and os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **extra}


class Worker:
    """A library in a process of its own.

    Parameters
    ----------
    python : str
        The interpreter that has the library.
    foreign : bool
        See `environment`.
    """

    def __init__(self, python: str, *, foreign: bool = False) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(foreign=foreign),
            cwd=ROOT,
            text=True,
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def describe(self) -> dict[str, str]:
        """Versions of what is measured."""
        reply: dict[str, str] = self._ask("describe")
        return reply

    def open(
        self,
        executor: str,
        filetype: str,
        io_backend: str | None,
        arguments: Mapping[str, Any],
        corrections: Path | None = None,
    ) -> float:
        """Load a data set; returns seconds."""
        seconds: float = self._ask(
            "open",
            executor=executor,
            filetype=filetype,
            io_backend=io_backend,
            arguments=dict(arguments),
            corrections=None if corrections is None else str(corrections),
        )["seconds"]
        return seconds

    def forget(self) -> None:
        """Let go of all data sets."""
        self._ask("forget")

    def run(self, executor: str, workload: str, save: Path | None = None) -> float:
        """Compute something over the open data set; returns seconds."""
        target = None if save is None else str(save)
        seconds: float = self._ask("run", executor=executor, workload=workload, save=target)["seconds"]
        return seconds

    def _ask(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        guard = threading.Timer(TIME_LIMIT, self._process.kill)
        guard.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            guard.cancel()
        if not line:
            raise WorkerError(f"the worker process ended unexpectedly: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["reply"]

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - TAIL_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and what it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
