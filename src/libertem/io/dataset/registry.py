"""The registry of data set types: find, detect and load them.

Types are registered by dotted path and imported when they are needed, so that a type whose optional
dependencies are missing affects nothing but itself.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from libertem.common.async_utils import sync_to_async
from libertem.common.protocols import ExecutorProtocol
from libertem.common.scheduler import Scheduler, WorkerSet
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.framefile import read_head

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet

__all__ = [
    "build_extension_map",
    "detect",
    "filetypes",
    "get_dataset_cls",
    "get_extensions",
    "get_search_order",
    "load",
    "register_dataset_cls",
    "unregister_dataset_cls",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

filetypes: dict[str, str | type[DataSet]] = {
    "hdf5": "libertem.io.dataset.hdf5.H5DataSet",
    "raw": "libertem.io.dataset.raw.RawFileDataSet",
    "raw_csr": "libertem.io.dataset.raw_csr.RawCSRDataSet",
    "mib": "libertem.io.dataset.mib.MIBDataSet",
    "blo": "libertem.io.dataset.blo.BloDataSet",
    "k2is": "libertem.io.dataset.k2is.K2ISDataSet",
    "ser": "libertem.io.dataset.ser.SERDataSet",
    "frms6": "libertem.io.dataset.frms6.FRMS6DataSet",
    "empad": "libertem.io.dataset.empad.EMPADDataSet",
    "dm": "libertem.io.dataset.dm.DMDataSet",
    "seq": "libertem.io.dataset.seq.SEQDataSet",
    "mrc": "libertem.io.dataset.mrc.MRCDataSet",
    "tvips": "libertem.io.dataset.tvips.TVIPSDataSet",
    "npy": "libertem.io.dataset.npy.NPYDataSet",
    "dask": "libertem.io.dataset.dask.DaskDataSet",
    "memory": "libertem.io.dataset.memory.MemoryDataSet",
}
"""Class, or dotted path of the class, by name of the type. The order is that of detection."""

_extension_map: tuple[tuple[Any, ...], dict[str, list[str]]] = ((), {})
"""The content of `filetypes` for which the extension map was made, and the map."""


class LoadExecutor(ExecutorProtocol, Protocol):
    """What loading needs of an executor."""

    def get_available_workers(self) -> WorkerSet:
        """The workers with their resources."""
        ...


class AsyncLoadExecutor(Protocol):
    """What asynchronous loading needs of an executor."""

    async def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        ...

    async def get_available_workers(self) -> WorkerSet:
        """The workers with their resources."""
        ...

    def ensure_sync(self) -> LoadExecutor:
        """The synchronous form of the executor."""
        ...


# --- types ---


def register_dataset_cls(filetype: str, cls: str | type[DataSet]) -> None:
    """Register a data set class under a name, which is not case-sensitive.

    A new name goes to the end of the search order, one that exists is replaced in its place.

    Parameters
    ----------
    filetype : str
        The name for `Context.load`.
    cls : str or type
        The class, or its dotted path; that is imported when first needed.
    """
    filetypes[filetype.lower()] = cls


def unregister_dataset_cls(filetype: str) -> None:
    """Remove a type from the registry.

    Raises
    ------
    KeyError
        If there is none with that name.
    """
    del filetypes[filetype.lower()]


def get_dataset_cls(filetype: str | type[DataSet]) -> type[DataSet]:
    """Class of a type, imported if need be. What is no string is taken for the class itself.

    Raises
    ------
    DataSetException
        If the name is unknown, or its class cannot be imported.
    TypeError
        If `filetype` is neither a string nor a class.
    """
    if not isinstance(filetype, str):
        if not callable(filetype):
            raise TypeError(
                f"filetype has to be the name of a data set type or a DataSet class, found {filetype!r}"
            )
        return filetype
    entry = filetypes.get(filetype.lower())
    if entry is None:
        raise DataSetException(
            f"unknown filetype: {filetype}", expected=f"one of {', '.join(filetypes)}, or auto"
        )
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.rpartition(".")
    try:
        cls: type[DataSet] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as err:
        # ValueError: a dotted path without any dot.
        raise DataSetException(f"could not load dataset: {err}", hint=f"{filetype} is {entry}") from err
    return cls


def _importable_types() -> Iterator[tuple[str, type[DataSet]]]:
    for filetype in list(filetypes):
        try:
            yield filetype, get_dataset_cls(filetype)
        except DataSetException as err:
            log.debug("skipping type %s: %s", filetype, err)


# --- detection ---


def get_extensions() -> set[str]:
    """All file name extensions of types that can be imported, lower case and without dot."""
    return set(build_extension_map())


def build_extension_map() -> dict[str, list[str]]:
    """Names of types by extension, in search order."""
    global _extension_map
    content = tuple(filetypes.items())
    if content != _extension_map[0]:
        by_extension: dict[str, list[str]] = {}
        for filetype, cls in _importable_types():
            for extension in _extensions(filetype, cls):
                by_extension.setdefault(extension, []).append(filetype)
        _extension_map = content, by_extension
    return {extension: list(names) for extension, names in _extension_map[1].items()}


def _extensions(filetype: str, cls: type[DataSet]) -> set[str]:
    try:
        return {extension.lower() for extension in cls.get_supported_extensions()}
    except Exception as err:  # one broken class must not keep all others from being detected
        log.debug("type %s does not give its extensions: %r", filetype, err)
        return set()


def get_search_order(path: Any) -> list[str]:
    """Names of all types, those that fit the extension of `path` (or the kind of array that it is) first."""
    first: list[str] = []
    if _is_array(path):
        first = [name for name in (_array_type(path),) if name in filetypes]
    elif isinstance(path, str | os.PathLike):
        extension = pathlib.Path(os.fsdecode(path)).suffix[1:].lower()
        first = build_extension_map().get(extension, [])
    return [*first, *(name for name in filetypes if name not in first)]


def _is_array(path: Any) -> bool:
    return hasattr(path, "shape")


def _array_type(array: Any) -> str:
    # By name: importing dask only to ask would take longer than most loads.
    return "dask" if type(array).__module__.partition(".")[0] == "dask" else "memory"


def detect(path: Any, executor: ExecutorProtocol) -> dict[str, Any]:
    """Find the type of a file.

    Parameters
    ----------
    path : str or path-like
        The file.
    executor : JobExecutor
        Where the file can be seen.

    Returns
    -------
    dict
        ``{'parameters': {...}, 'info': {...}, 'type': 'npy'}``, empty if no type recognizes the file. All
        parameters of the data set class that can be read from the file are there.
    """
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    for filetype in get_search_order(path):
        try:
            answer = get_dataset_cls(filetype).detect_params(path, executor)
        except Exception as err:  # a type that fails must not keep the others from being asked
            log.debug("%s cannot tell whether %s is of its type: %r", filetype, path, err)
            continue
        if isinstance(answer, Mapping) and answer:
            return {**answer, "type": filetype}
    return {}


def _refusal(path: Any, executor: ExecutorProtocol) -> DataSetException:
    """Error that tells why no type recognizes a file."""
    sentence = f"could not determine DataSet type for file '{path}'"
    if not isinstance(path, str):
        return DataSetException(sentence, found=type(path).__name__, expected="a path or an array")
    try:
        executor.run_function(read_head, path, 0)
    except DataSetException as err:
        return type(err)(f"{sentence}: {err.problem}", path=path, found=err.found, expected=err.expected)
    reasons = [
        f"\n  {filetype}: {reason}"
        for filetype in get_search_order(path)
        if (reason := _why_not(filetype, path, executor)) is not None
    ]
    return DataSetException(
        f"{sentence}. The types that were tried:{''.join(reasons)}\n",
        path=path,
        hint='name the type yourself, as in ctx.load("raw", ...)',
    )


def _why_not(filetype: str, path: str, executor: ExecutorProtocol) -> str | None:
    """Reason why a type does not recognize a file, None if it cannot be asked."""
    try:
        cls = get_dataset_cls(filetype)
    except DataSetException:
        return None
    reason = None
    # The second is a hook of formats that are made of frames in files. Others say no more than no.
    for hook in ("detect_params", "recognize"):
        try:
            getattr(cls, hook)(path, executor)
            reason = "does not recognize the file"
        except (NotImplementedError, AttributeError):
            continue
        except Exception as err:  # whatever it is, it is the reason
            return str(err).removeprefix(f"{path}: ") or type(err).__name__
    return reason


# --- loading ---


@overload
def load(
    filetype: str | type[DataSet],
    *args: Any,
    enable_async: Literal[False] = False,
    executor: LoadExecutor,
    **kwargs: Any,
) -> DataSet: ...


@overload
def load(
    filetype: str | type[DataSet],
    *args: Any,
    enable_async: Literal[True],
    executor: AsyncLoadExecutor,
    **kwargs: Any,
) -> Coroutine[Any, Any, DataSet]: ...


def load(
    filetype: str | type[DataSet], *args: Any, enable_async: bool = False, executor: Any, **kwargs: Any
) -> DataSet | Coroutine[Any, Any, DataSet]:
    """Load a data set: make, initialize and check it.

    Parameters
    ----------
    filetype : str or type
        Name of the type in any case, ``"auto"`` to detect it, or a `DataSet` class.
    *args, **kwargs
        Parameters of the data set class. With ``"auto"`` the first one is `path`, which may be an array.
    enable_async : bool
        Return a coroutine; `executor` has to be an asynchronous one.
    executor : JobExecutor
        Where the files can be seen. The data set is cut into partitions for its number of workers.

    Raises
    ------
    DataSetException
        If the type is unknown or not recognized, or if the data set or its parameters are not valid.
    """
    if enable_async:
        return _load_async(executor, filetype, args, kwargs)
    ds = _construct(executor, filetype, args, kwargs).initialize(executor)
    ds.set_num_cores(Scheduler(executor.get_available_workers()).effective_worker_count())
    _require_valid(ds, executor.run_function(ds.check_valid))
    return ds


async def _load_async(
    executor: AsyncLoadExecutor,
    filetype: str | type[DataSet],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> DataSet:
    sync = executor.ensure_sync()
    ds = await sync_to_async(_construct, None, sync, filetype, args, kwargs)
    ds = await sync_to_async(ds.initialize, None, sync)
    workers = await executor.get_available_workers()
    ds.set_num_cores(Scheduler(workers).effective_worker_count())
    _require_valid(ds, await executor.run_function(ds.check_valid))
    return ds


def _require_valid(ds: DataSet, valid: object) -> None:
    if not valid:
        raise DataSetException(
            "invalid dataset", path=getattr(ds, "_path", None), found=f"check_valid of {ds!r} gave {valid!r}"
        )


def _construct(
    executor: ExecutorProtocol,
    filetype: str | type[DataSet],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> DataSet:
    if isinstance(filetype, str) and filetype.lower() == "auto":
        filetype, args, kwargs = _resolve_auto(executor, *args, **kwargs)
    cls: Callable[..., DataSet] = get_dataset_cls(filetype)
    if kwargs.get("io_backend") is not None:
        kwargs = {**kwargs, "io_backend": IOBackend.resolve(kwargs["io_backend"])}
    return cls(*args, **kwargs)


def _resolve_auto(
    executor: ExecutorProtocol, path: Any, *args: Any, **kwargs: Any
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Type and parameters of what is at `path`. What detection finds out besides the type is not used."""
    if path is None:
        raise DataSetException("please specify the `path` argument to allow auto detection")
    if _is_array(path):
        name = _array_type(path)
        return (name, (path, *args), kwargs) if name == "dask" else (name, args, {"data": path, **kwargs})
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    detected = detect(path, executor)
    if not detected:
        raise _refusal(path, executor)
    return detected["type"], (path, *args), kwargs
