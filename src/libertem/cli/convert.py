"""``libertem convert``: write the data to a file of another format."""

from __future__ import annotations

import argparse
import os
import time

from libertem.cli.command import DONE
from libertem.cli.opening import opened, refuse_to_overwrite, say, say_json, wants_progress, warn
from libertem.common.html import byte_count

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Save the data set under another name."""
    refuse_to_overwrite(options.output, options)
    start = time.perf_counter()
    with opened(options) as (_, dataset, notices):
        warn(notices, options)
        dataset.save(
            options.output,
            overwrite=options.overwrite,
            dtype=options.dtype,
            progress=wants_progress(options),
            **dict(options.option),
        )
    seconds = time.perf_counter() - start
    n_bytes = _size(options.output)
    if options.json:
        say_json({"output": options.output, "n_bytes": n_bytes, "seconds": seconds})
    else:
        say(f"wrote {options.output}: {byte_count(n_bytes)} in {seconds:.2f} s")
    return DONE


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder: Zarr writes folders."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names
    )
