"""Face: functions for regions of interest at their historic path."""

from libertem.io.dataset.base.coordinates import _roi_to_nd_indices, roi_for_partition

__all__ = ["_roi_to_nd_indices", "roi_for_partition"]
