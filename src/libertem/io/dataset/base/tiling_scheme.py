"""Face: tiling schemes and their negotiation at their historic path."""

from libertem.io.dataset.base.negotiation import Negotiator
from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["Negotiator", "TilingScheme"]
