"""Sparse data as raw files in CSR form: a TOML file with the parameters, and three files without headers.

| table | key | type | meaning |
|---|---|---|---|
| ``params`` | ``filetype`` | string | ``"raw_csr"`` in any case; also the name of the second table |
| ``params`` | ``nav_shape``, ``sig_shape`` | array of ints | shape of the scan, shape of a frame |
| ``raw_csr`` | ``indptr_file``, ``indices_file``, ``data_file`` | string | path, relative to the TOML file |
| ``raw_csr`` | ``indptr_dtype``, ``indices_dtype``, ``data_dtype`` | string | NumPy dtypes with byte order |

| file | entries | content |
|---|---|---|
| indptr | frames + 1 | frame ``j`` owns the values ``indptr[j]`` to ``indptr[j + 1]``; does not decrease |
| indices | stored values | flat index of the pixel in its frame, C order |
| data | stored values | the value of that pixel |

Columns may be unsorted. Values of the same pixel of a frame add up. What is not stored is zero.

Source: the documentation of `RawCSRDataSet`, and that of `scipy.sparse.csr_matrix`.
"""

from libertem.io.dataset.raw_csr.dataset import RawCSRDataSet, RawCSRDatasetParams, RawCSRPartition
from libertem.io.dataset.raw_csr.sidecar import (
    TOMLError,
    check,
    get_descriptor,
    get_nav_size,
    load_toml,
)
from libertem.io.dataset.raw_csr.tiles import read_tiles_straight, read_tiles_with_roi
from libertem.io.dataset.raw_csr.triple import CSRDescriptor, CSRTriple

__all__ = [
    "CSRDescriptor",
    "CSRTriple",
    "RawCSRDataSet",
    "RawCSRDatasetParams",
    "RawCSRPartition",
    "TOMLError",
    "check",
    "get_descriptor",
    "get_nav_size",
    "load_toml",
    "read_tiles_straight",
    "read_tiles_with_roi",
]
