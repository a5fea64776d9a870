"""Face: sparse helpers of `libertem.common.arrays` at their historic path."""

from libertem.common.arrays import is_sparse, sparse_to_coo, to_dense, to_sparse

__all__ = ["is_sparse", "sparse_to_coo", "to_dense", "to_sparse"]
