"""Files beside a SEQ file: dark frame, gain map, and what is needed to find defective pixels.

A sidecar that is damaged or does not fit is left out with a notice: it must not make the frames unreadable.

Dark frames and gain maps are MRC files with one image. Those of Direct Electron claim to have 32766.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import read_head
from libertem.io.dataset.seq.defects import Config, MisfitError, excluded_pixels, parse_config
from libertem.io.dataset.seq.geometry import METADATA_BYTES, Geometry, parse_metadata
from libertem.io.headers.mrc import HEADER_BYTES, parse_header

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Sidecars", "find_sidecar", "read_sidecars"]

EXTENSION = ".seq"
MAX_CONFIG_BYTES = 4 << 20
"""Real files have about 5 KiB."""


@dataclass(frozen=True)
class Sidecars:
    """What the files beside a SEQ file say; arrays have the shape of the frames."""

    dark: npt.NDArray[np.float32] | None = None
    gain: npt.NDArray[np.float32] | None = None
    excluded: npt.NDArray[np.bool_] | None = None
    """True for defective pixels; None if there is no map of them."""

    notices: tuple[str, ...] = ()
    """What was left out, and why."""


def find_sidecar(path: str, suffix: str) -> str | None:
    """File that goes with a SEQ file, None if there is none.

    Parameters
    ----------
    path : str
        The SEQ file.
    suffix : str
        How the name of the sidecar ends, like ``.dark.mrc``.
    """
    base = path
    for _ in range(2):
        if base.lower().endswith(EXTENSION):
            base = base[: -len(EXTENSION)]
    candidates = (f"{base}{EXTENSION}{suffix}", f"{base}{suffix}")
    return next((name for name in candidates if os.path.isfile(name)), None)


def read_sidecars(path: str, sig_shape: tuple[int, int]) -> Sidecars:
    """Read all that lies beside a SEQ file.

    Parameters
    ----------
    path : str
        The SEQ file.
    sig_shape : (int, int)
        Shape of its frames.
    """
    notices: list[str] = []
    return Sidecars(
        dark=_find_reference(path, ".dark.mrc", sig_shape, notices),
        gain=_find_reference(path, ".gain.mrc", sig_shape, notices),
        excluded=_find_excluded(path, sig_shape, notices),
        notices=tuple(notices),
    )


def _find_reference(
    path: str, suffix: str, sig_shape: tuple[int, int], notices: list[str]
) -> npt.NDArray[np.float32] | None:
    sidecar = find_sidecar(path, suffix)
    if sidecar is None:
        return None
    try:
        return _read_reference(sidecar, sig_shape)
    except DataSetException as err:
        notices.append(f"{err}: the frames are read without this correction")
        return None


def _read_reference(path: str, sig_shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The first image of an MRC file."""
    head = read_head(path, HEADER_BYTES)
    header = parse_header(head.raw, path=path, file_size=head.size)
    if header.sig_shape != sig_shape or header.dtype.kind == "c":
        raise DataSetException(
            "the image does not belong to these frames",
            path=path,
            found=f"{header.sig_shape} {header.dtype}",
            expected=f"{sig_shape} of real numbers",
        )
    if header.sections_in(head.size) < 1:
        raise DataSetException(
            "the file is shorter than its image",
            path=path,
            found=f"{head.size} bytes",
            expected=f"at least {header.data_offset + header.frame_bytes}",
        )
    raw = np.empty(header.frame_bytes, dtype=np.uint8)
    with RawFile(path) as file:
        file.read_into(raw, header.data_offset)
    return raw.view(header.dtype).reshape(sig_shape).astype(np.float32)


def _find_excluded(path: str, sig_shape: tuple[int, int], notices: list[str]) -> npt.NDArray[np.bool_] | None:
    sidecar = find_sidecar(path, ".Config.Metadata.xml")
    if sidecar is None:
        return None
    try:
        config = _read_config(sidecar)
        notices += config.notices
        if not config.maps:
            return None
        geometry = _find_geometry(path, config, sig_shape)
        return excluded_pixels(config.maps, geometry, sig_shape)
    except (DataSetException, MisfitError) as err:
        notices.append(f"{sidecar}: no pixels are excluded: {_without_path(err, sidecar)}")
        return None


def _without_path(err: Exception, path: str) -> str:
    return str(err).removeprefix(f"{path}: ")


def _read_config(path: str) -> Config:
    head = read_head(path, MAX_CONFIG_BYTES)
    if head.size > MAX_CONFIG_BYTES:
        raise DataSetException(
            "the XML file is too long", path=path, found=f"{head.size} bytes", expected=f"{MAX_CONFIG_BYTES}"
        )
    return parse_config(head.raw, path=path)


def _find_geometry(path: str, config: Config, sig_shape: tuple[int, int]) -> Geometry | None:
    sidecar = find_sidecar(path, ".metadata")
    if sidecar is not None:
        geometry = parse_metadata(read_head(sidecar, METADATA_BYTES).raw, sig_shape)
        if geometry is not None:
            return geometry
    # Its sizes are taken for those before binning. Only files without binning have been seen.
    return config.geometry if config.geometry is not None and config.geometry.fits(sig_shape) else None
