"""TIFF files for ImageJ where these can hold the data, else OME-TIFF."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from libertem.interact.saving.contract import Output, Put, Writer, in_usual_unit
from libertem.interact.saving.flat import put_frames

__all__ = ["TIFFWriter"]

NAV_AXES = {1: "T", 2: "TZ", 3: "TZC"}
"""Names of scan axes, of those that TIFF has for stacks of pages."""

IMAGEJ_DTYPES = frozenset({np.dtype(t) for t in ("u1", "u2", "f4")})

OME_DTYPES = IMAGEJ_DTYPES | {np.dtype(t) for t in ("i1", "i2", "u4", "i4", "f8", "c8", "c16")}

PAGE_BYTES = 400
"""Of the description of a page, generously."""

MAX_CLASSIC_BYTES = (1 << 32) - (64 << 20)
"""For TIFF files with 32 bit offsets."""


class TIFFWriter(Writer):
    """One page per frame, not compressed."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        try:
            import tifffile  # noqa: F401  # fail now rather than later
        except ImportError as err:
            raise ImportError(
                "saving TIFF files needs the package tifffile (pip install tifffile, or libertem[save])"
            ) from err
        if len(output.sig_shape) != 2:
            raise ValueError(f"pages of TIFF files have two axes: found frames of shape {output.sig_shape}")
        if len(output.nav_shape) not in NAV_AXES:
            raise ValueError(
                f"TIFF files have one to three scan axes: found the shape {output.nav_shape} "
                "(load the data with another nav_shape)"
            )
        if output.dtype not in OME_DTYPES:
            names = ", ".join(sorted(str(dtype) for dtype in OME_DTYPES))
            raise ValueError(f"TIFF files do not hold {output.dtype} (use dtype=, one of {names})")
        size = output.n_bytes + math.prod(output.nav_shape) * PAGE_BYTES
        self._big = size > MAX_CLASSIC_BYTES
        self._imagej = not self._big and output.dtype in IMAGEJ_DTYPES

    def _metadata(self) -> dict[str, Any]:
        """Axes, and everything else as text."""
        names = NAV_AXES[len(self.output.nav_shape)] + "YX"
        text = json.dumps(self.output.description(), ensure_ascii=False)
        found: dict[str, Any] = {"axes": names}
        unit = in_usual_unit(self.output.axes[-1])[2]
        if self._imagej:
            # ImageJ keeps texts as Latin-1.
            found["Info"] = json.dumps(self.output.description())
            if unit:
                found["unit"] = unit
            if len(self.output.nav_shape) > 1:
                found["spacing"] = in_usual_unit(self.output.axes[1])[0]
            return found
        found["Description"] = text
        if unit == "nm":
            for name, axis in zip("XY", self.output.axes[:-3:-1], strict=True):
                found[f"PhysicalSize{name}"] = in_usual_unit(axis)[0]
                found[f"PhysicalSize{name}Unit"] = unit
        return found

    def _resolution(self) -> tuple[float, float] | None:
        """Pixels per unit, x first, where ImageJ looks for it."""
        axes = self.output.axes[:-3:-1]
        if not self._imagej or not all(axis.is_calibrated for axis in axes):
            return None
        x, y = (1 / abs(in_usual_unit(axis)[0]) for axis in axes)
        return x, y

    @contextmanager
    def open(self, path: str) -> Iterator[Put]:
        """All pages without content, then frames."""
        import tifffile

        with tifffile.TiffWriter(
            path,
            bigtiff=self._big,
            byteorder="<" if sys.byteorder == "little" else ">",
            imagej=self._imagej,
            ome=not self._imagej,
        ) as file:
            where = file.write(
                shape=self.output.shape,
                dtype=self.output.dtype,
                photometric="minisblack",
                metadata=self._metadata(),
                resolution=self._resolution(),
                returnoffset=True,
            )
        assert where is not None
        with put_frames(path, self.output, int(where[0])) as put:
            yield put
