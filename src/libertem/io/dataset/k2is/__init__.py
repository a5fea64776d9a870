"""Read raw data of Gatan K2 IS cameras: eight ``.bin`` files and a ``.gtg`` file.

| file | content | read in |
|---|---|---|
| ``Capture52_1.bin`` ... ``Capture52_8.bin`` | one sector of the sensor each: columns 0-255, 256-511, ... of all frames | `blocks`, `kernels` |
| ``Capture52_.gtg`` | tags of Digital Micrograph; the scan shape, if the STEMx unit drove the acquisition | `files` |

The camera runs all the time. Recording starts and ends at any block, in each file at another one, and long
before the scan; `alignment` finds the frames that all files have, and where the scan starts.
"""  # noqa: E501 - the table

from libertem.io.dataset.k2is.dataset import K2ISDataSet, K2ISDatasetParams

__all__ = ["K2ISDataSet", "K2ISDatasetParams"]
