"""Which device this process computes on, as said by its environment variables.

| `LIBERTEM_USE_CPU` | `LIBERTEM_USE_CUDA` | the process is                    |
|--------------------|---------------------|-----------------------------------|
| unset              | unset               | a CPU worker with the id 0        |
| id                 | unset               | a CPU worker with that id         |
| unset              | id                  | a CUDA worker on that device      |
| id                 | id                  | misconfigured: the getters refuse |

The variables are read on each call, because people change them between two runs of the inline executor.
"""

from __future__ import annotations

import os
from typing import Literal

__all__ = ["get_device_class", "get_use_cpu", "get_use_cuda", "set_use_cpu", "set_use_cuda"]

_USE_CPU = "LIBERTEM_USE_CPU"
_USE_CUDA = "LIBERTEM_USE_CUDA"


def _read_ids() -> tuple[int | None, int | None]:
    cpu = os.environ.get(_USE_CPU)
    cuda = os.environ.get(_USE_CUDA)
    if cpu is not None and cuda is not None:
        raise RuntimeError(
            f"at most one of {_USE_CPU} and {_USE_CUDA} may be set, found {cpu!r} and {cuda!r} "
            "(unset one of them, or choose with set_use_cpu() or set_use_cuda())"
        )
    return (None if cpu is None else int(cpu), None if cuda is None else int(cuda))


def get_use_cuda() -> int | None:
    """Id of the CUDA device to compute on, ``None`` on a CPU worker.

    Raises
    ------
    RuntimeError
        If CPU and CUDA are selected at the same time.
    """
    _, cuda = _read_ids()
    return cuda


def get_use_cpu() -> int | None:
    """Id of this CPU worker, ``None`` on a CUDA worker.

    Raises
    ------
    RuntimeError
        If CPU and CUDA are selected at the same time.
    """
    cpu, cuda = _read_ids()
    if cpu is None and cuda is None:
        return 0
    return cpu


def set_use_cuda(cuda_device: int) -> None:
    """Make this process a CUDA worker on the given device."""
    os.environ[_USE_CUDA] = str(cuda_device)
    os.environ.pop(_USE_CPU, None)


def set_use_cpu(cpu: int) -> None:
    """Make this process a CPU worker. The id is only a name: nothing is pinned to it."""
    os.environ[_USE_CPU] = str(cpu)
    os.environ.pop(_USE_CUDA, None)


def get_device_class() -> Literal["cpu", "cuda"]:
    """Kind of device that this process computes on."""
    return "cpu" if get_use_cuda() is None else "cuda"
