"""The status page, the metrics and the health of a gateway, by HTTP."""

from gateway.admin.parts import Parts
from gateway.admin.server import serving

__all__ = ["Parts", "serving"]
