"""Public import path of `Datasets`; the implementation is in `labbench.train.data.loading`."""

from labbench.train.data.loading import Datasets

__all__ = ["Datasets"]
