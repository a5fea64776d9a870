"""Write data sets to files of other formats: ``ds.save("scan.npy")``."""

from libertem.interact.saving.job import save
from libertem.interact.saving.writers import SUFFIXES

__all__ = ["SUFFIXES", "save"]
