"""Loading data sets and the registry of formats."""

from libertem.io.dataset.registry import (
    build_extension_map,
    detect,
    filetypes,
    get_dataset_cls,
    get_extensions,
    get_search_order,
    load,
    register_dataset_cls,
    unregister_dataset_cls,
)

__all__ = [
    "build_extension_map",
    "detect",
    "filetypes",
    "get_dataset_cls",
    "get_extensions",
    "get_search_order",
    "load",
    "register_dataset_cls",
    "unregister_dataset_cls",
]
