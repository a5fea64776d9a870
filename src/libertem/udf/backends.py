"""Which kind of array each UDF of a run receives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libertem.common.arrays import (
    BACKENDS,
    CPU_BACKENDS,
    CUDA,
    CUDA_BACKENDS,
    CUPY_BACKENDS,
    D2_BACKENDS,
    DENSE_BACKENDS,
    SPARSE_BACKENDS,
    for_backend,
)
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    from libertem.udf.contract import UDF

__all__ = ["BackendChoice", "TileConverter", "choose_backends", "get_resources_for_backends"]


@dataclass(frozen=True)
class BackendChoice:
    """Kinds of arrays for the UDFs of a task."""

    source: str
    """What the partition is asked for."""
    udfs: tuple[str, ...]
    """What each UDF receives."""


def allowed_backends(udf: UDF, restriction: str | Iterable[str] | None) -> list[str]:
    """Backends of a UDF in its order, limited to those that the user allows.

    Raises
    ------
    ValueError
        If the UDF names an unknown backend.
    """
    declared = udf.get_backends()
    names = [declared] if isinstance(declared, str) else list(declared)
    for name in names:
        if name not in BACKENDS:
            raise ValueError(f"UDF {type(udf).__name__} returned invalid backend {name!r}")
    if restriction is None:
        return names
    allowed = {restriction} if isinstance(restriction, str) else set(restriction)
    return [name for name in names if name in allowed]


def choose_backends(
    wishes: Sequence[Sequence[str]],
    dataset_backends: Sequence[str],
    device_class: str,
    *,
    has_cupy: bool,
) -> BackendChoice:
    """Find formats that the UDFs accept, with as few conversions as possible.

    Parameters
    ----------
    wishes : list of list of str
        For each UDF the formats it accepts, best first.
    dataset_backends : sequence of str
        What the data set delivers without conversion, best first.
    device_class : {'cpu', 'cuda'}
        Of the worker.
    has_cupy : bool
        Whether CuPy works on the worker.

    Raises
    ------
    RuntimeError
        If a UDF accepts nothing that the worker can offer.
    """
    on_gpu = device_class == "cuda"
    candidates = set(CPU_BACKENDS)
    if on_gpu:
        candidates |= CUDA_BACKENDS if has_cupy else {CUDA}
    device = candidates & (CUDA_BACKENDS if on_gpu else CPU_BACKENDS)
    remaining = {i: [b for b in wish if b in candidates] for i, wish in enumerate(wishes)}
    chosen = _take_native(remaining, [b for b in dataset_backends if b in device])
    for group in _fallbacks(dataset_backends, device, candidates):
        for i, wish in list(remaining.items()):
            match = next((b for b in wish if b in group), None)
            if match is not None:
                chosen[i] = match
                del remaining[i]
    if remaining:
        unserved = [list(wishes[i]) for i in remaining]
        raise RuntimeError(
            f"Could not find backends for remaining UDFs, which accept {unserved}; "
            f"this {device_class} worker offers {sorted(candidates)}"
        )
    used = set(chosen.values())
    source = next((b for b in dataset_backends if b in used), None)
    if source is None:
        source = next((b for b in dataset_backends if b in candidates), dataset_backends[0])
    return BackendChoice(source=source, udfs=tuple(chosen[i] for i in range(len(wishes))))


def _take_native(remaining: dict[int, list[str]], native: Sequence[str]) -> dict[int, str]:
    """Serve as many UDFs as possible with the same format of the data set; removes them from `remaining`."""
    chosen: dict[int, str] = {}
    while remaining:
        counts = [sum(b in wish for wish in remaining.values()) for b in native]
        if max(counts, default=0) == 0:
            break
        best = native[counts.index(max(counts))]
        for i in [i for i, wish in remaining.items() if best in wish]:
            chosen[i] = best
            del remaining[i]
    return chosen


def _fallbacks(dataset_backends: Sequence[str], device: set[str], candidates: set[str]) -> list[set[str]]:
    """Formats for UDFs that accept none of the data set, the cheapest conversions first."""
    groups = []
    if any(b in SPARSE_BACKENDS for b in dataset_backends):
        groups.append(device & SPARSE_BACKENDS)
    if any(b in DENSE_BACKENDS for b in dataset_backends):
        groups.append(device & DENSE_BACKENDS)
    return [*groups, device, candidates & set(dataset_backends), candidates]


class TileConverter:
    """Converts a tile at most once per format.

    Parameters
    ----------
    tile : DataTile
        The tile.
    source : str
        Its backend, or that of `data`.
    data : array, optional
        The same pixels, where they have been converted already.
    """

    def __init__(self, tile: DataTile, source: str, data: Any = None) -> None:
        self._tile = tile
        self._converted = {source: tile.data if data is None else data}

    def get(self, backend: str) -> Any:
        """The data of the tile in that format; n-dimensional formats have the shape of the tile."""
        if backend not in self._converted:
            data = for_backend(self._tile.data, backend)
            if backend not in D2_BACKENDS:
                data = data.reshape(self._tile.shape)
            self._converted[backend] = data
        return self._converted[backend]


def get_resources_for_backends(
    udf_backends: Sequence[str | Iterable[str]], user_backends: str | Iterable[str] | None
) -> Mapping[str, int]:
    """Resources that a worker has to offer for the UDFs of a run.

    Raises
    ------
    ValueError
        If one UDF needs a CPU worker and another one a GPU worker.
    """
    allowed = BACKENDS if user_backends is None else _as_set(user_backends)
    needs_cpu = needs_cuda = needs_ndarray = False
    for backends in udf_backends:
        mine = _as_set(backends) & allowed
        cpu, gpu = bool(mine & CPU_BACKENDS), bool(mine & CUDA_BACKENDS)
        needs_cpu |= cpu and not gpu
        needs_cuda |= gpu and not cpu
        needs_ndarray |= bool(mine & (CPU_BACKENDS | CUPY_BACKENDS)) and CUDA not in mine
    if needs_cpu and needs_cuda:
        raise ValueError(
            "There is no common supported UDF backend: one UDF runs on CPU workers only, "
            f"another one on CUDA workers only: {[sorted(_as_set(b)) for b in udf_backends]}"
        )
    resources = {"compute": 1}
    if needs_cpu:
        resources["CPU"] = 1
    if needs_cuda:
        resources["CUDA"] = 1
    if needs_ndarray:
        resources["ndarray"] = 1
    return resources


def _as_set(backends: str | Iterable[str]) -> set[str]:
    return {backends} if isinstance(backends, str) else set(backends)
