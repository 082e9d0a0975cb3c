"""Earlier import path of `labbench.Datasets`, kept for existing task files."""

from labbench.train.data.loading import Datasets

__all__ = ["Datasets"]
