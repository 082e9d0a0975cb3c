"""Which runs train together, and with which engine."""
