"""Face: shapes of partitions at their historic path."""

from libertem.io.dataset.base.scan import fit_partition_shape as get_partition_shape

__all__ = ["get_partition_shape"]
