"""Analyses: UDFs with parameters, whose results know how to be shown.

Make one with the methods ``create_*_analysis`` of `libertem.api.Context`, or from its class, and run it with
`libertem.api.Context.run`.
"""

from libertem.analysis.apply_fft_mask import ApplyFFTMask
from libertem.analysis.clust import ClusterAnalysis
from libertem.analysis.com import COMAnalysis
from libertem.analysis.disk import DiskMaskAnalysis
from libertem.analysis.fem import FEMAnalysis
from libertem.analysis.masks import MasksAnalysis
from libertem.analysis.point import PointMaskAnalysis
from libertem.analysis.radialfourier import RadialFourierAnalysis
from libertem.analysis.raw import PickFrameAnalysis
from libertem.analysis.rawfft import PickFFTFrameAnalysis
from libertem.analysis.ring import RingMaskAnalysis
from libertem.analysis.sd import SDAnalysis
from libertem.analysis.sum import SumAnalysis
from libertem.analysis.sumfft import SumfftAnalysis
from libertem.analysis.sumsig import SumSigAnalysis

__all__ = [
    "ApplyFFTMask",
    "COMAnalysis",
    "ClusterAnalysis",
    "DiskMaskAnalysis",
    "FEMAnalysis",
    "MasksAnalysis",
    "PickFFTFrameAnalysis",
    "PickFrameAnalysis",
    "PointMaskAnalysis",
    "RadialFourierAnalysis",
    "RingMaskAnalysis",
    "SDAnalysis",
    "SumAnalysis",
    "SumSigAnalysis",
    "SumfftAnalysis",
]
