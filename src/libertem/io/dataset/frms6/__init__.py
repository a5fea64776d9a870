"""Read FRMS6 files of the pnCCD camera (PNDetector).

| file | content | read in |
|---|---|---|
| ``<base>.hdr`` | text: shape of the scan, binning, number of frames | `hdr` |
| ``<base>_000.frms6`` | dark frames, taken before the scan | `acquisition`, `references` |
| ``<base>_001.frms6`` and higher numbers | frames of the scan, any number in each file | `acquisition` |
| a gain map, ``.mat`` or ``.csv``, not made by the camera | | `references` |

The sensor is read out in two halves, which lie side by side in the files, and pixels are binned along columns
only. Reading folds frames together and repeats their rows, see `packing`.
"""

from libertem.io.dataset.frms6.dataset import FRMS6DataSet, FRMS6DatasetParams

__all__ = ["FRMS6DataSet", "FRMS6DatasetParams"]
