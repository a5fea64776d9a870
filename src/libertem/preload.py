"""Prepare a worker process: importing this module does it.

Slow packages are loaded before the first task needs them, and the limit of open files is raised, since
some data sets consist of thousands of files. Give it to a Dask worker as ``--preload libertem.preload``.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module

__all__: list[str] = []

_log = logging.getLogger(__name__)

# sparseconverter brings scipy and sparse. hdf5plugin and torch are optional.
_SLOW_MODULES = ("numba", "sparseconverter", "h5py", "hdf5plugin", "torch")


def _load_slow_modules() -> None:
    for name in _SLOW_MODULES:
        try:
            import_module(name)
        # OSError: a package whose shared libraries do not fit this machine. Tasks may do without it.
        except (ImportError, OSError) as err:
            _log.info("%s is not preloaded: %s", name, err)


def _raise_open_file_limit() -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # macOS promises more than it grants.
        except (OSError, ValueError) as err:
            _log.info("the limit of open files stays as it is: %s", err)


_raise_open_file_limit()
_load_slow_modules()
