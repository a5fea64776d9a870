"""Read SEQ files of Norpix StreamPix, and what Direct Electron cameras put beside them.

| file, beside ``<base>.seq`` or ``<base>.seq.seq`` | content | read in |
|---|---|---|
| the file itself | header, frames of constant size | `header` |
| ``<base>.seq.dark.mrc``, ``<base>.seq.gain.mrc`` | dark frame and gain map | `sidecars` |
| ``<base>.seq.metadata`` | which part of the sensor was read out, and when | `geometry`, `metadata` |
| ``<base>.seq.Config.Metadata.xml`` | defects of the sensor, name of the camera | `defects`, `metadata` |

Sidecars may also be called ``<base>.dark.mrc`` and so on.
"""

from libertem.io.dataset.seq.dataset import SEQDataSet, SEQDatasetParams

__all__ = ["SEQDataSet", "SEQDatasetParams"]
