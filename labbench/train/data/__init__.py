"""Data sets: built-in ones, user files, on-demand reading, placement on a device."""

from labbench.train.data.dataset import Data, load_digits

__all__ = ["Data", "load_digits"]
