"""Face: names for UDFs at their historic path."""

from libertem.common.protocols import TilingPreferences, UDFMethod

__all__ = ["TilingPreferences", "UDFMethod"]
