"""Command ``libertem-worker``: add the workers of one machine to a Dask cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from libertem.utils.devices import detect

__all__ = ["main"]

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")

_log = logging.getLogger("libertem.executor.cli")


def _cuda_ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return words[text.lower()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="libertem-worker",
        description="Start workers on this machine and connect them to a scheduler: one for each CPU core, "
        "one for each CUDA device, and one for short functions. Runs until the workers have ended.",
    )
    add = parser.add_argument
    add("scheduler", nargs="?", default="tcp://localhost:8786", help="address (default: %(default)s)")
    add("-k", "--kind", default="dask", help="kind of cluster; only dask is offered")
    add("-d", "--local-directory", default="dask-worker-space", help="for temporary files")
    add("-c", "--n-cpus", type=int, help="number of CPU workers (default: one per physical core)")
    add("-u", "--cudas", type=_cuda_ids, help='ids of CUDA devices, like 0,1; "" for none (default: all)')
    add("-p", "--has-cupy", type=_truth, help="whether CuPy works (default: found out)")
    add("-n", "--name", default=socket.gethostname(), help="prefix of worker names (default: %(default)s)")
    add("-l", "--log-level", type=str.lower, choices=_LOG_LEVELS, default="info", help="default: %(default)s")
    add(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="module, file or code that each worker runs first; may be given several times",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Raises
    ------
    NotImplementedError
        For another kind of cluster than Dask.
    """
    options = _parser().parse_args(argv)
    if options.kind != "dask":
        raise NotImplementedError(f"workers of kind {options.kind!r} are not offered, only 'dask'")
    level = getattr(logging, options.log_level.upper())
    logging.basicConfig(level=level)
    found = detect()
    # Late, so that usage errors come at once.
    from libertem.executor.dask import cluster_spec

    spec = cluster_spec(
        cpus=found["cpus"] if options.n_cpus is None else options.n_cpus,
        cudas=found["cudas"] if options.cudas is None else options.cudas,
        has_cupy=found["has_cupy"] if options.has_cupy is None else options.has_cupy,
        name=options.name,
        options={"silence_logs": level, "local_directory": options.local_directory},
        preload=options.preload,
    )
    asyncio.run(_run(options.scheduler, spec))


async def _run(scheduler: str, spec: dict[str, dict[str, Any]]) -> None:
    """Start the workers, and wait until they have ended: by themselves, or because of a signal."""
    from libertem.executor.dask.cluster import with_defaults

    workers = []
    for name, worker in spec.items():
        made = with_defaults(worker)
        workers.append(made["cls"](scheduler, name=name, **made["options"]))
    end = asyncio.Event()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end.set)
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(end.wait())]
    try:
        await asyncio.gather(*workers)
        _log.info("%d workers are connected to %s", len(workers), scheduler)
        waiting.append(asyncio.ensure_future(_finished(workers)))
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*(worker.close() for worker in workers), return_exceptions=True)


async def _finished(workers: Sequence[Any]) -> None:
    await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    main()
