"""Off-axis holography lives in a package of its own."""

raise ImportError(
    "The holography implementation is removed from this library; "
    "install the package LiberTEM-holo and use libertem_holo.udf instead"
)
