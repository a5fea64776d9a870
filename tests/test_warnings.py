from __future__ import annotations

from libertem.warnings import UseDiscouragedWarning


def test_discouraged_use_is_shown_to_end_users() -> None:
    # Python hides DeprecationWarning, but not FutureWarning, outside of __main__.
    assert issubclass(UseDiscouragedWarning, FutureWarning)
