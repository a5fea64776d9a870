"""Facts about HDF5 files: which data set is meant, what it holds, and what detection answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.framefile import FrameFacts
from libertem.io.dataset.hdf5.candidates import Candidate, Found, choose, find_candidates, list_candidates
from libertem.io.dataset.hdf5.layout import H5Piece, describe
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, import_h5py, open_hdf5
from libertem.io.dataset.hdf5.masters import DetectorFacts, describe_group, read_detector

__all__ = ["H5Facts", "dataset_rows", "inspect_file", "object_at", "recognize_file"]

MAX_LISTED = 10
"""Names in an error; more help nobody."""


@dataclass(frozen=True, kw_only=True)
class H5Facts(FrameFacts):
    """What an HDF5 file holds."""

    ds_path: str
    """Path of the data set, or of a group of them."""
    pieces: tuple[H5Piece, ...]
    """The data sets that follow each other."""
    detector: DetectorFacts | None = None
    """Only for groups."""


def _clock() -> float:
    """Seconds. Looked up where users and tests would replace it, in the package."""
    import libertem.io.dataset.hdf5 as package

    return package.current_time()


def inspect_file(path: str, ds_path: str | None, sig_dims: int) -> H5Facts:
    """Facts about the data set at `ds_path`, or about the one that is most likely meant."""
    with open_hdf5(path) as file:
        if ds_path is None:
            ds_path = _infer(file, path)
        obj = object_at(file, ds_path, path)
        h5py = import_h5py()
        detector = None
        if isinstance(obj, h5py.Group):
            pieces = describe_group(obj, sig_dims, path=path)
            detector = read_detector(file, pieces) if pieces[0].num_frames else None
        elif isinstance(obj, h5py.Dataset):
            pieces = [describe(obj, sig_dims, path=path)]
        else:
            raise DataSetException("ds_path names no data set", path=path, found=f"{ds_path!r}: {obj}")
    return _facts(ds_path, tuple(pieces), detector, path)


def _infer(file: Any, path: str) -> str:
    found = find_candidates(file, _clock)
    candidate = choose(found.candidates)
    if candidate is not None:
        return candidate.name
    if not found.is_complete and found.default is not None:
        return found.default
    raise DataSetException(
        f"Unable to infer dataset from file {path}",
        path=path,
        found=_why_nothing(found),
        expected="a data set of numbers with at least three axes",
        hint="name it with ds_path='path/in/the/file'",
    )


def _why_nothing(found: Found) -> str | None:
    if not found.is_complete:
        return "more objects than can be searched in a few seconds"
    if found.dangling:
        more = ", ..." if len(found.dangling) > MAX_LISTED else ""
        return f"links that lead nowhere: {', '.join(found.dangling[:MAX_LISTED])}{more}"
    return None


def object_at(file: Any, ds_path: str, path: str) -> Any:
    """Data set or group at a path in an open file, or an error that says what is there instead."""
    h5py = import_h5py()
    try:
        return file[ds_path]
    except LIBRARY_ERRORS as err:
        link = _link_at(file, ds_path)
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            target = getattr(link, "filename", link.path)
            raise DataSetException(
                "ds_path is a link that leads nowhere", path=path, found=f"{ds_path!r}, a link to {target}"
            ) from err
        if not isinstance(err, KeyError | OSError):
            raise DataSetException(
                f"not a path in an HDF5 file: {err}", path=path, found=repr(ds_path)
            ) from err
        raise DataSetException(
            "there is no such data set in the file",
            path=path,
            found=f"ds_path={ds_path!r}",
            expected=_known_names(file),
        ) from err


def _link_at(file: Any, ds_path: str) -> Any:
    try:
        return file.get(ds_path, getlink=True)
    except LIBRARY_ERRORS:
        return None


def _known_names(file: Any) -> str:
    names = [candidate.name for candidate in find_candidates(file, _clock).candidates[:MAX_LISTED]]
    return f"one of {', '.join(names)}" if names else "a data set with at least three axes"


def _facts(ds_path: str, pieces: tuple[H5Piece, ...], detector: DetectorFacts | None, path: str) -> H5Facts:
    first = pieces[0]
    n = sum(piece.num_frames for piece in pieces)
    nav_shape = first.layout.nav_shape if len(pieces) == 1 else (n,)
    notices = [piece.layout.notice for piece in pieces if piece.layout.notice]
    if detector is not None and detector.n_promised is not None:
        n_images, n_triggers = detector.n_images or 1, detector.n_triggers or 1
        if detector.n_promised > n > 0:
            notices.append(
                f"{path}: the master file promises {detector.n_promised} frames ({n_triggers} triggers with "
                f"{n_images} images each), the data files hold {n}: reading those"
            )
        elif detector.n_promised == n and min(n_images, n_triggers) > 1:
            nav_shape = (n_triggers, n_images)
    slow = next((piece.layout for piece in pieces if piece.layout.access == "library"), None)
    if slow is not None and slow.filters:
        notices.append(
            "Loading compressed HDF5, performance can be worse than with other formats: "
            f"{path} has to be decoded by HDF5, in one thread at a time ({slow.reason})"
        )
    return H5Facts(
        dtype=first.native_dtype,
        image_count=n,
        nav_shape=nav_shape,
        sig_shape=first.layout.sig_shape,
        notices=tuple(notices),
        ds_path=ds_path,
        pieces=pieces,
        detector=detector,
    )


def recognize_file(path: str) -> dict[str, Any]:
    """What detection answers for an HDF5 file."""
    candidates = list_candidates(path, _clock)
    parameters: dict[str, Any] = {"path": path}
    default = choose(candidates) or next(iter(candidates), None)
    if default is not None:
        nav_shape = _in_two_dims(default.shape[:-2])
        parameters.update(ds_path=default.name, nav_shape=nav_shape, sig_shape=default.shape[-2:])
    return {
        "parameters": parameters,
        "info": {"datasets": [_entry(candidate) for candidate in candidates]},
    }


def _entry(candidate: Candidate) -> dict[str, Any]:
    raw_nav_shape = candidate.shape[:-2]
    return {
        "path": candidate.name,
        "shape": candidate.shape,
        "compression": candidate.compression,
        "chunks": candidate.chunks,
        "raw_nav_shape": raw_nav_shape,
        "nav_shape": _in_two_dims(raw_nav_shape),
        "sig_shape": candidate.shape[-2:],
        "image_count": prod(raw_nav_shape),
    }


def _in_two_dims(nav_shape: tuple[int, ...]) -> tuple[int, int]:
    return prod(nav_shape[:-1]), nav_shape[-1] if nav_shape else 1


def dataset_rows(path: str) -> list[dict[str, Any]]:
    """What is in the file, the largest first."""
    try:
        candidates = list_candidates(path, _clock)
    except DataSetException:
        # The file may only be visible to workers.
        return []
    rows = []
    for candidate in sorted(candidates, key=lambda c: prod(c.shape), reverse=True):
        n_bytes = prod(candidate.shape) * np.dtype(candidate.dtype).itemsize
        facts = {"Size": str(n_bytes), "Shape": str(candidate.shape), "Datatype": candidate.dtype}
        value = [{"name": name, "value": text} for name, text in facts.items()]
        rows.append({"name": candidate.name, "value": value})
    return rows
