"""Read image series of TVIPS cameras (EM-MENU): movies, and scans recorded as movies.

A series is a set of files ``<prefix>_000.tvips``, ``<prefix>_001.tvips`` and so on, each with whole frames.
All numbers are little-endian. Only the first file starts with the series header:

| offset | bytes | type   | meaning                                                        |
|-------:|------:|--------|----------------------------------------------------------------|
|      0 |     4 | i4     | size of this header, always 256                                |
|      4 |     4 | i4     | version, 1 or 2                                                |
|      8 |     8 | i4, i4 | width and height of a frame, pixels                            |
|     16 |     4 | i4     | bits per pixel, 8 or 16                                        |
|     20 |     8 | i4, i4 | offset on the sensor in x and y                                |
|     28 |     8 | i4, i4 | binning in x and y                                             |
|     36 |     4 | i4     | pixel size, nm                                                 |
|     40 |     4 | i4     | high tension, kV                                               |
|     44 |     4 | i4     | magnification or camera length                                 |
|     48 |     4 | i4     | H: bytes of an image header; version 2 only, 12 in version 1   |
|     52 |   204 | text   | no meaning                                                     |

Each frame is an image header of H bytes and the pixels, u1 or u2, row by row. Of an image header, as many
fields exist as fit into H bytes. Those in use here:

| offset | bytes | type   | meaning                                                        |
|-------:|------:|--------|----------------------------------------------------------------|
|      0 |    12 | 3 u4   | counter, time in seconds, milliseconds                         |
|     28 |    12 | 3 f4   | stage x, y, z, nm                                              |
|     40 |     8 | 2 f4   | stage alpha, beta, degrees                                     |
|     48 |     4 | u4     | rotator: number of the scan position, from 1                   |
|     68 |     8 | f4, f4 | x and y of the scan position                                   |

Neither the number of frames nor the shape of the scan is stored. The camera runs from before the scan starts
until after it has ended; see `infer_scan` for how the scan is found.

Sources: files written by RosettaSciIO; header tables of TVIPSconverter.
"""

from __future__ import annotations

from libertem.io.dataset.tvips.dataset import TVIPSDataSet, TVIPSDatasetParams
from libertem.io.dataset.tvips.header import TVIPSHeader, parse_header
from libertem.io.dataset.tvips.scan import ScanGuess, guess_from_rotator, infer_scan
from libertem.io.dataset.tvips.series import Series, find_series

__all__ = [
    "ScanGuess",
    "Series",
    "TVIPSDataSet",
    "TVIPSDatasetParams",
    "TVIPSHeader",
    "find_series",
    "guess_from_rotator",
    "infer_scan",
    "parse_header",
]
