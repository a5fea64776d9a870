"""MIB files of Merlin detectors (Medipix3).

| module    | holds                                                              |
|-----------|--------------------------------------------------------------------|
| `header`  | layout of the files, frame header, kinds of pixels                 |
| `hdr`     | the ``.hdr`` file                                                  |
| `files`   | which files belong together, in which order                        |
| `metadata`| what they say about the experiment                                |
| `words`   | words in unaligned memory, for the kernels                         |
| `kernels` | raw pixels to numbers                                              |
| `dataset` | the data set                                                       |
"""

from libertem.io.dataset.mib.dataset import MIBDataSet, MIBDatasetParams
from libertem.io.dataset.mib.hdr import is_valid_hdr

__all__ = ["MIBDataSet", "MIBDatasetParams", "is_valid_hdr"]
