"""Find the images in the tag tree of a DM3 or DM4 file.

| path of the tag, i is the place in the list | meaning |
|---------------------------------------------|---------|
| ``ImageList.i.ImageData.Data`` | the pixels, an array |
| ``ImageList.i.ImageData.DataType`` | type of the pixels, see `PIXEL_DTYPES` |
| ``ImageList.i.ImageData.Dimensions.j`` | extents, fastest axis first |
| ``ImageList.i.ImageTags.Meta Data.Format`` | "Spectrum image", "Image", ...; often missing |
| ``ImageList.i.ImageTags.Meta Data.Data Order Swapped`` | 1 if signal axes are fastest; not in old files |

Only these very paths count: processed images carry copies of the tags of their parents, and any data may be
called ``Data``. The element type of the array is no pixel type: pictures are arrays of int32, for instance.

Sources: those of the parser; the order flag is known from files of GMS 3 and from developers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError
from libertem.io.headers.dm.parser import parse_tags
from libertem.io.headers.dm.tags import ByteOrder, DMArray, DMTags, Names

__all__ = ["PIXEL_DTYPES", "DMImage", "parse_images"]

PIXEL_DTYPES = {
    1: "i2",
    2: "f4",
    3: "c8",
    6: "u1",
    7: "i4",
    9: "i1",
    10: "u2",
    11: "u4",
    12: "f8",
    13: "c16",
}
"""Dtype by DataType, without byte order."""

PICTURE = 23
UNSUPPORTED_TYPES = {
    5: "packed complex, half of a Fourier transform",
    8: "RGB picture",
    14: "1 byte logical",
    PICTURE: "RGB picture",
    27: "packed complex, half of a Fourier transform",
    28: "packed complex, half of a Fourier transform",
}


@dataclass(frozen=True)
class DMImage:
    """One entry of the list of images; parts that are missing or of another type are None or empty."""

    index: int
    """Place in the list."""

    version: int
    """Of the file, 3 or 4."""

    byte_order: ByteOrder
    """Of the pixels."""

    data_type: int | None
    """Type of the pixels."""

    dims: tuple[int, ...]
    """Extents, fastest axis first."""

    data: DMArray | None
    """Where the pixels are."""

    format: str | None
    """What the image is, as the tag says."""

    order_flag: bool | None
    """Whether the signal axes are the fastest."""

    has_tags: bool
    """Whether it has any metadata."""

    @property
    def is_thumbnail(self) -> bool:
        """Whether it is the small picture with which most files begin."""
        return self.index == 0 and self.data_type == PICTURE and len(self.dims) == 2

    @property
    def is_spectrum_image(self) -> bool:
        """Whether it holds spectra."""
        return self.format is not None and self.format.strip().lower() == "spectrum image"

    def locate(self, *, path: str) -> tuple[np.dtype[Any], int]:
        """Dtype, and the byte of the file where the pixels start.

        Raises
        ------
        DataSetException
            If the pixels cannot be read, or do not have the size that type and extents ask for.
        """
        if self.data_type not in PIXEL_DTYPES:
            meaning = UNSUPPORTED_TYPES.get(-1 if self.data_type is None else self.data_type, "unknown")
            raise DataSetException(
                f"pixels of this type cannot be read (dataset {self.index})",
                path=path,
                found=f"DataType {self.data_type} ({meaning})",
                expected=f"one of {sorted(PIXEL_DTYPES)}",
                hint="convert it to a real or complex image with Digital Micrograph",
            )
        dtype = np.dtype(self.byte_order + PIXEL_DTYPES[self.data_type])
        n_bytes = prod(self.dims) * dtype.itemsize
        if self.data is None or self.data.nbytes != n_bytes or n_bytes == 0:
            raise HeaderError(
                f"the pixels do not have the size that they should have (dataset {self.index})",
                path=path,
                found="none" if self.data is None else f"{self.data.nbytes} bytes",
                expected=f"{n_bytes} bytes for {dtype} of the shape {self.dims[::-1]}",
                hint="the file is damaged",
            )
        return dtype, self.data.offset


def parse_images(read: Callable[[int, int], bytes], size: int, *, path: str) -> tuple[DMImage, ...]:
    """All images of a file, in the order of the list. Arguments as for `parse_tags`.

    Raises
    ------
    HeaderError
        If this is no DM3 or DM4 file, or a damaged one.
    """
    tags = parse_tags(read, size, path=path, keep=_is_needed)
    return tuple(_make_image(tags, i, name, path) for i, name in enumerate(tags.names("ImageList")))


def _is_needed(names: Names) -> bool:
    match names:
        case ("ImageList",) | ("ImageList", _):
            return True
        case ("ImageList", _, "ImageData" | "ImageTags"):
            return True
        case ("ImageList", _, "ImageData", "Dimensions") | ("ImageList", _, "ImageTags", "Meta Data"):
            return True
    return False


def _make_image(tags: DMTags, index: int, name: str, path: str) -> DMImage:
    image, metadata = ("ImageList", name), ("ImageList", name, "ImageTags", "Meta Data")
    axes = (*image, "ImageData", "Dimensions")
    extents = [tags.get((*axes, axis)) for axis in tags.names(axes)]
    dims = tuple(extent for extent in extents if isinstance(extent, int))
    data_type = tags.get((*image, "ImageData", "DataType"))
    format_ = tags.get((*metadata, "Format"))
    return DMImage(
        index=index,
        version=tags.version,
        byte_order=tags.byte_order,
        data_type=data_type if isinstance(data_type, int) else None,
        dims=dims if len(dims) == len(extents) and min(dims, default=1) > 0 else (),
        data=tags.get_array((*image, "ImageData", "Data")),
        format=format_ if isinstance(format_, str) else None,
        order_flag=_parse_flag(tags, (*metadata, "Data Order Swapped"), path),
        has_tags=bool(tags.names((*image, "ImageTags"))),
    )


def _parse_flag(tags: DMTags, names: Names, path: str) -> bool | None:
    """Truth value, which may also be written as a number or as the text of one."""
    value = tags.get(names)
    if value is None:
        return None
    if isinstance(value, bool | int | float | str):
        try:
            return bool(int(value))
        except (ValueError, OverflowError):
            pass
    raise HeaderError(
        f"the tag {'.'.join(names)} is no truth value",
        path=path,
        found=repr(value)[:100],
        expected="0 or 1",
        hint="pass force_c_order=True if the signal axes are the fastest",
    )
