"""Data sets: loading, placement on a device, the built-in ones."""

from labbench.train.data.dataset import Data, load_digits

__all__ = ["Data", "load_digits"]
