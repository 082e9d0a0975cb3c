"""Diagnostics of a network during training: gradient norms, dead units, portraits."""
