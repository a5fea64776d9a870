"""Serve one library in a process of its own: ``python -m benchmarks.worker``.

Requests and replies are JSON, one per line, on what were the standard streams; the methods of `Session` are
what can be asked. The parent side is `benchmarks.client`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import sys
import time
import traceback
from typing import Any

import numba
import numpy as np

import libertem
from benchmarks.workloads import WORKLOADS
from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import BufferedBackend, DirectBackend, MMapBackend

BACKENDS = {"mmap": MMapBackend, "buffered": BufferedBackend, "direct": DirectBackend}


class Session:
    """What the process holds between requests, by name of the executor: contexts, data sets, corrections."""

    def __init__(self) -> None:
        self._contexts: dict[str, Any] = {}
        self._datasets: dict[str, Any] = {}
        self._corrections: dict[str, Any] = {}

    def describe(self) -> dict[str, str]:
        """Say what is measured here."""
        return {
            "libertem": libertem.__version__,
            "package": os.path.dirname(os.path.abspath(libertem.__file__)),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        }

    def open(
        self,
        executor: str,
        filetype: str,
        io_backend: str | None,
        arguments: dict[str, Any],
        corrections: str | None = None,
    ) -> dict[str, float]:
        """Load a data set in place of the previous one of this executor.

        Parameters
        ----------
        executor : {'default', 'inline'}
            All cores as the library thinks best, or one thread.
        filetype : str
            As for `Context.load`.
        io_backend : {'mmap', 'buffered', 'direct'}, optional
            How to read.
        arguments : dict
            For `Context.load`.
        corrections : str, optional
            File with the corrections of all runs; by default those that the data set brings along.

        Returns
        -------
        dict
            ``seconds`` that `Context.load` took.
        """
        self._datasets.pop(executor, None)
        if executor not in self._contexts:
            inline = InlineJobExecutor(inline_threads=1) if executor == "inline" else None
            self._contexts[executor] = Context(executor=inline)
        backend = None if io_backend is None else BACKENDS[io_backend]()
        self._corrections[executor] = None if corrections is None else _read_corrections(corrections)
        start = time.perf_counter()
        self._datasets[executor] = self._contexts[executor].load(filetype, io_backend=backend, **arguments)
        return {"seconds": time.perf_counter() - start}

    def forget(self) -> None:
        """Let go of all data sets, and with them of mapped files."""
        self._datasets.clear()
        gc.collect()

    def run(self, executor: str, workload: str, save: str | None = None) -> dict[str, float]:
        """Compute something over the open data set.

        Parameters
        ----------
        executor : str
            As for `open`.
        workload : str
            A key of `WORKLOADS`.
        save : str, optional
            Where to store the results, as ``.npz``.

        Returns
        -------
        dict
            ``seconds`` that `Context.run_udf` took.
        """
        dataset = self._datasets[executor]
        work = WORKLOADS[workload]
        udfs = work.udfs(tuple(dataset.shape.sig))
        roi = None if work.roi is None else work.roi(tuple(dataset.shape.nav))
        corrections = self._corrections[executor]
        start = time.perf_counter()
        results = self._contexts[executor].run_udf(
            dataset=dataset, udf=udfs, roi=roi, corrections=corrections
        )
        seconds = time.perf_counter() - start
        if save is not None:
            arrays: dict[str, Any] = {
                f"{number}.{name}": np.asarray(buffer.data)
                for number, buffers in enumerate(results)
                for name, buffer in buffers.items()
            }
            np.savez(save, **arrays)
        return {"seconds": seconds}

    def close(self) -> None:
        """End all executors."""
        self._datasets.clear()
        for context in self._contexts.values():
            context.close()


def _read_corrections(path: str) -> Any:
    # Not for all cases: it would count as memory of those that need none.
    import sparse

    with np.load(path) as arrays:
        dark, gain = arrays["dark"], arrays["gain"]
        excluded = sparse.COO(coords=arrays["excluded"], data=1, shape=dark.shape)
    return CorrectionSet(dark=dark, gain=gain, excluded_pixels=excluded)


def main() -> None:
    # What libraries and their child processes print must not end up between the replies.
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    with contextlib.closing(Session()) as session:
        for line in requests:
            request = json.loads(line)
            try:
                reply = {"reply": getattr(session, request.pop("do"))(**request)}
            except Exception as err:
                traceback.print_exc(file=sys.stderr)
                reply = {"error": f"{type(err).__name__}: {err}"}
            print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
