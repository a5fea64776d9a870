"""A test suite for data sets, to be inherited by the tests of a format.

Subclass `DataSetTests`, say how to write a file, and pytest runs everything that is the same for all
formats: content for each I/O backend and dtype, tilings, regions of interest, sync offsets, overrides of
shapes, detection, damaged files, messages to workers, corrections, UDF runs, and what is read and left open.

This is the complete test of TOY, the format of an imagined camera, which has 16 bit pixels behind a header
of 16 bytes: the magic ``TOY1``, then width, height and number of frames as ``<u4``. Its data set class was
registered with ``register_dataset_cls("toy", ToyDataSet)`` before.

.. code-block:: python

    import struct

    from libertem.testing import DataSetTests


    class TestToy(DataSetTests):
        filetype = "toy"
        dtypes = ("<u2",)
        sig_shape_override = "none"

        def write(self, folder, frames):
            n, height, width = frames.shape
            path = folder / "scan.toy"
            path.write_bytes(struct.pack("<4s3I", b"TOY1", width, height, n) + frames.tobytes())
            return {"path": str(path)}

        def test_an_old_camera_wrote_another_magic(self, tmp_path):
            ...  # what is peculiar to the format

What differs from format to format is told with the attributes of the class, see `SuiteSetup`. Data that
are not in files are tested with `FilelessDataSetTests`.

The suite needs pytest. Reads are counted for all data sets that use the I/O backends of the library.
"""

from __future__ import annotations

from libertem.testing.suite.content import ContentTests
from libertem.testing.suite.damage import DamageTests
from libertem.testing.suite.detection import DetectionTests
from libertem.testing.suite.resources import ResourceTests
from libertem.testing.suite.runs import RunTests
from libertem.testing.suite.scan import ScanTests
from libertem.testing.suite.setup import SuiteSetup

__all__ = ["DataSetTests", "FilelessDataSetTests", "SuiteSetup"]


class FilelessDataSetTests(ContentTests, ScanTests, RunTests):
    """What holds for all data sets, those in memory included. See `SuiteSetup` for the attributes to set."""


class DataSetTests(FilelessDataSetTests, DetectionTests, DamageTests, ResourceTests):
    """What holds for all data sets that are read from files. See `SuiteSetup` for the attributes to set."""
