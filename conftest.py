"""Settings of all test runs."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes tells about the machine and what else it does, not about the code.
settings.register_profile("libertem", settings(deadline=None))
settings.load_profile("libertem")
