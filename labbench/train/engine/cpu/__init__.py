"""Hand-written forward and backward passes of stacked layers on a CPU."""
