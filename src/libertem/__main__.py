"""``python -m libertem`` is the command ``libertem``."""

from __future__ import annotations

import sys

from libertem.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
