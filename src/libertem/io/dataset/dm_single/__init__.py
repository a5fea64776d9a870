"""One image of a DM3 or DM4 file of Digital Micrograph, as a scan.

| module     | holds                                                |
|------------|------------------------------------------------------|
| `files`    | reading tags                                         |
| `metadata` | what the tags say about the experiment               |
| `dataset`  | what the axes mean, and the data set                 |
"""

from libertem.io.dataset.dm_single.dataset import (
    DMDataSet,
    DMDatasetParams,
    DMFacts,
    SingleDMDataSet,
    inspect_file,
)
from libertem.io.dataset.dm_single.files import read_images
from libertem.io.dataset.dm_single.metadata import read_metadata

__all__ = [
    "DMDataSet",
    "DMDatasetParams",
    "DMFacts",
    "SingleDMDataSet",
    "inspect_file",
    "read_images",
    "read_metadata",
]
