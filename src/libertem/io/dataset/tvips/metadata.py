"""What series header and first image header say about the experiment.

| field | unit | known as |
|-------|------|----------|
| IHT | kV | ``voltage`` |
| IPixelSize | nm | ``detector_pixel_size``; whether before or after binning is not known |
| ITime, IMS | s and ms since 1970 | ``acquired`` |
| stage x, y, z | nm | ``stage_x``, ``stage_y``, ``stage_z`` |
| stage alpha, beta | degrees | ``stage_alpha``, ``stage_beta`` |

IMagTotal is a magnification or a camera length, and nothing says which: it is in the raw header only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libertem.io.dataset.base.metadata import Metadata, make_metadata, plain_header, timestamp_at
from libertem.io.dataset.tvips.header import image_header_fields, series_header_fields

__all__ = ["describe"]

STAGE = {"x": "nm", "y": "nm", "z": "nm", "alpha": "deg", "beta": "deg"}


def describe(series_header: bytes, image_header: bytes) -> Metadata:
    """Metadata from the headers of a series and of its first frame."""
    series, image = series_header_fields(series_header), image_header_fields(image_header)
    seconds = image["ITime"] + image["IMS"] / 1000
    return make_metadata(
        _quantities(series, image),
        acquired=timestamp_at(seconds, "ITime, IMS") if image["ITime"] else None,
        header=plain_header({"series header": series, "image header": image}),
    )


def _quantities(
    series: Mapping[str, float], image: Mapping[str, float]
) -> Iterator[tuple[str, float, str, str]]:
    yield "voltage", series["IHT"], "kV", "IHT"
    if series["IPixelSize"] > 0:
        yield "detector_pixel_size", series["IPixelSize"], "nm", "IPixelSize"
    # Programs that know no stage write zeros.
    if any(image.get(f"stage {axis}") for axis in STAGE):
        for axis, unit in STAGE.items():
            if f"stage {axis}" in image:
                yield f"stage_{axis}", image[f"stage {axis}"], unit, f"stage {axis}"
