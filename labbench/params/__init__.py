"""Parameters of a config: types, defaults and ranges. Does not import torch."""

from labbench.params.param import TRAINING, BadItem, Param, Params, with_defaults

__all__ = ["TRAINING", "BadItem", "Param", "Params", "with_defaults"]
