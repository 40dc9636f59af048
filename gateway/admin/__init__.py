"""The status page, the metrics and the health of a gateway, by HTTP."""
