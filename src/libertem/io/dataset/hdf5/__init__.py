"""HDF5 files: any container with one array of frames, or several that belong together.

| stored as | read |
|---|---|
| contiguous | like a raw file, from the byte where HDF5 has put it |
| chunks with known filters | positional reads of chunks, decoded in the threads that process them |
| anything else: virtual data sets, other filters, files that are being written | with h5py |

Axes are never exchanged: the last ones belong to the frame, those before to the scan.

`library` opens files, `candidates` finds the data; `layout`, `masters` and `external` describe it, `metadata`
describes the experiment; `units` and `chunktable` say which bytes hold a frame, `filters`, `blosc2` and
`kernels` decode them, `rows` puts parts of frames together, `readers` and `frames` make blocks of frames.

Sources: HDF5 file format; list of registered filters; conventions of the programs named in the documentation.
"""

from time import perf_counter as current_time

from libertem.io.dataset.hdf5.dataset import H5DataSet, H5Reader, HDF5DatasetParams

__all__ = ["H5DataSet", "H5Reader", "HDF5DatasetParams", "current_time"]
