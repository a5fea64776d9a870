"""Groups of data sets that belong together, above all in the master files of DECTRIS detectors.

``x_master.h5`` holds metadata and external links to the data files:

| object | meaning |
|---|---|
| ``/entry/data/data_000001``, ... | links to ``/entry/data/data`` of ``x_data_000001.h5``, ...: (frames, height, width) |
| their attributes ``image_nr_low``, ``image_nr_high`` | first and last frame in the file, counted from 1 |
| ``/entry/instrument/detector/detectorSpecific``: ``nimages``, ``ntrigger`` | frames per trigger, and triggers |
| the same, or ``/entry/instrument/detector``: ``pixel_mask`` | 0 where a pixel is good, bit 31 where its value comes from neighbours |
| the same: ``flatfield`` | factor for each pixel |
| ``/entry/instrument/detector``: ``flatfield_correction_applied``, ``pixel_mask_applied`` | whether the detector has done that already |

No scan shape is stored. Pixels that the mask excludes hold the largest number of the dtype.

Sources: NXmx definition; files of an ARINA detector; the fact sheet of the format.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.hdf5.candidates import LINKED_PART, describe_link, is_pixel_dtype
from libertem.io.dataset.hdf5.layout import H5Piece, describe
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, as_hdf5_error, import_h5py, open_hdf5

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DETECTOR", "SPECIFIC", "DetectorFacts", "correction_maps", "describe_group", "read_detector"]

DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"

VIRTUAL_PIXEL = 1 << 31
"""Bit of the pixel mask: a pixel between chips whose value the detector has interpolated. It is used."""

MAX_MAP_PX = 1 << 28
"""Larger maps are no maps of a detector."""


@dataclass(frozen=True, eq=False)
class DetectorFacts:
    """What a master file says about the detector."""

    n_images: int | None
    """Frames per trigger."""
    n_triggers: int | None
    pixel_mask: npt.NDArray[np.bool_] | None
    """True where a pixel is to be ignored: it is marked, or shows the sentinel."""
    flatfield: npt.NDArray[Any] | None
    """Factors that were not applied yet and are not all 1."""

    @property
    def n_promised(self) -> int | None:
        """Frames that the data files should hold."""
        if self.n_images is None or self.n_triggers is None:
            return None
        return self.n_images * self.n_triggers


@dataclass(frozen=True)
class _Part:
    name: str
    piece: H5Piece
    low: int | None
    """Number of the first frame, counted from 1."""


def describe_group(group: Any, sig_dims: int, *, path: str) -> list[H5Piece]:
    """The data sets of a group, as parts of one that follow each other.

    They are put in the order of their frame numbers if they have any, else of their names.

    Parameters
    ----------
    group : h5py.Group
    sig_dims : int
        How many axes, counted from the end, make up a frame.
    path : str
        File that the user named; for errors.

    Raises
    ------
    DataSetException
        If there is none, they do not fit each other, or some are missing.
    """
    members, missing = _members(group, sig_dims, path)
    if missing:
        raise DataSetException(
            "data files are missing",
            path=path,
            found=f"{len(members)} of {len(members) + len(missing)} in {group.name}",
            expected=", ".join(missing[:20]) + (", ..." if len(missing) > 20 else ""),
            hint="copy them next to the file that links to them, or name the part to read with ds_path",
        )
    if not members:
        raise DataSetException(
            "ds_path names a group without data sets of frames",
            path=path,
            found=group.name,
            hint="name a data set, as in ds_path='entry/data/data'",
        )
    parts = [_Part(name, describe(dset, sig_dims, path=path), _first_image(dset)) for name, dset in members]
    _check_alike(parts, group.name, path)
    return _number_frames(_in_order(parts, path))


def _number_frames(parts: list[_Part]) -> list[H5Piece]:
    pieces = []
    n = 0
    for part in parts:
        if part.piece.num_frames:
            pieces.append(part.piece.at(n))
            n += part.piece.num_frames
    return pieces or [parts[0].piece]


def _members(group: Any, sig_dims: int, path: str) -> tuple[list[tuple[str, Any]], list[str]]:
    """Names and data sets of frames, and descriptions of links that lead nowhere."""
    h5py = import_h5py()
    with as_hdf5_error(path, "the group cannot be listed"):
        names = list(group)
    linked = [name for name in names if LINKED_PART.fullmatch(name)]
    found, missing = [], []
    for name in linked or names:
        try:
            member = group[name]
        except LIBRARY_ERRORS:
            missing.append(describe_link(group, name))
            continue
        has_frames = isinstance(member, h5py.Dataset) and len(member.shape or ()) > sig_dims
        if has_frames and (linked or is_pixel_dtype(member.dtype)):
            found.append((name, member))
    return found, missing


def _first_image(dset: Any) -> int | None:
    try:
        return int(dset.attrs["image_nr_low"])
    except LIBRARY_ERRORS:
        return None


def _check_alike(parts: list[_Part], group: str, path: str) -> None:
    kinds = {(p.piece.layout.sig_shape, p.piece.native_dtype, p.piece.layout.nav_shape[1:]) for p in parts}
    if len(kinds) > 1:
        raise DataSetException(
            f"the data sets in {group} do not belong together",
            path=path,
            found=", ".join(
                f"{p.name} {(*p.piece.layout.nav_shape, *p.piece.layout.sig_shape)} {p.piece.native_dtype}"
                for p in parts[:20]
            ),
            expected="frames of the same shape and dtype",
            hint="name one of them with ds_path",
        )


def _in_order(parts: list[_Part], path: str) -> list[_Part]:
    from natsort import natsorted

    by_name: list[_Part] = natsorted(parts, key=lambda part: part.name)
    lows = [part.low for part in parts if part.low is not None]
    # Some writers start anew in each file.
    if len(lows) < len(parts) or len(set(lows)) < len(lows):
        return by_name
    ordered = sorted(parts, key=lambda part: part.low or 0)
    expected = ordered[0].low or 0
    for part in ordered:
        if part.low is not None and part.low > expected:
            raise DataSetException(
                "data files are missing",
                path=path,
                found=f"{part.name} starts with image {part.low}",
                expected=f"image {expected}",
                hint="copy all data files, or name the part to read with ds_path",
            )
        expected = (part.low or 0) + part.piece.num_frames
    return ordered


# --- metadata ---


def read_detector(file: Any, pieces: list[H5Piece]) -> DetectorFacts:
    """What a master file says about the detector; nothing if it is none."""
    sig_shape = pieces[0].layout.sig_shape
    marked = _read_map(file, "pixel_mask", sig_shape)
    n_images = _number(file, f"{SPECIFIC}/nimages")
    mask = np.zeros(sig_shape, dtype=bool) if marked is None else _is_marked(marked)
    if n_images is not None:
        mask |= _unreadable(pieces)
    flatfield = None
    if not _number(file, f"{DETECTOR}/flatfield_correction_applied"):
        flatfield = _read_map(file, "flatfield", sig_shape)
        if flatfield is not None and (not np.isfinite(flatfield).all() or (flatfield == 1).all()):
            flatfield = None
    return DetectorFacts(
        n_images=n_images,
        n_triggers=_number(file, f"{SPECIFIC}/ntrigger"),
        pixel_mask=mask if mask.any() else None,
        flatfield=flatfield,
    )


def _is_marked(pixel_mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if pixel_mask.dtype.kind in "iu" and pixel_mask.dtype.itemsize >= 4:
        pixel_mask = pixel_mask.astype(np.int64) & ~VIRTUAL_PIXEL
    return np.asarray(pixel_mask != 0)


def _unreadable(pieces: list[H5Piece]) -> npt.NDArray[np.bool_]:
    """Pixels that show the sentinel in the first and in the last frame, which no electron can do."""
    found = np.ones(pieces[0].layout.sig_shape, dtype=bool)
    dtype = pieces[0].native_dtype
    if dtype.kind not in "iu":
        return ~found
    for piece, last in ((pieces[0], False), (pieces[-1], True)):
        position = tuple(extent - 1 if last else 0 for extent in piece.layout.nav_shape)
        with open_hdf5(piece.path) as file, as_hdf5_error(piece.path, "the data set cannot be read"):
            found &= file[piece.dataset][position] == np.iinfo(dtype).max
    return found


def correction_maps(
    detector: DetectorFacts,
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.bool_] | None]:
    """Gain map and excluded pixels. Gaps that neighbours cannot repair become 0."""
    mask, gain = detector.pixel_mask, detector.flatfield
    if mask is None:
        return gain, None
    around = np.pad(~mask, 1)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3,) * mask.ndim)
    repairable = np.asarray(windows.any(axis=tuple(range(mask.ndim, 2 * mask.ndim))))
    if not repairable[mask].all():
        gain = np.where(mask, 0, np.float32(1) if gain is None else gain)
    return gain, mask


def _number(file: Any, name: str) -> int | None:
    try:
        return int(file[name][()])
    except LIBRARY_ERRORS:
        return None


def _read_map(file: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """A map of the detector from one of the places where writers put them."""
    found = _read(file, f"{SPECIFIC}/{name}", shape)
    return _read(file, f"{DETECTOR}/{name}", shape) if found is None else found


def _read(file: Any, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """A map of the detector, None if there is none that fits."""
    try:
        dset = file[name]
        if dset.shape != shape or dset.size > MAX_MAP_PX or dset.dtype.kind not in "biuf":
            return None
        return np.asarray(dset[()])
    except LIBRARY_ERRORS:
        return None
