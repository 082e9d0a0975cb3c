"""Loggers and callbacks for training frameworks; each one is imported on first use and needs its framework.

`from labbench.integrations import LightningLogger`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.integrations.accelerate import LabbenchTracker
    from labbench.integrations.hydra import HydraCallback
    from labbench.integrations.keras import KerasCallback
    from labbench.integrations.lightning import LightningLogger
    from labbench.integrations.optuna import OptunaCallback
    from labbench.integrations.summary_writer import SummaryWriter
    from labbench.integrations.transformers import LabbenchCallback

__all__ = [
    "HydraCallback",
    "KerasCallback",
    "LabbenchCallback",
    "LabbenchTracker",
    "LightningLogger",
    "OptunaCallback",
    "SummaryWriter",
]

_MODULES = {
    "HydraCallback": "hydra",
    "KerasCallback": "keras",
    "LabbenchCallback": "transformers",
    "LabbenchTracker": "accelerate",
    "LightningLogger": "lightning",
    "OptunaCallback": "optuna",
    "SummaryWriter": "summary_writer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'labbench.integrations' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"labbench.integrations.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
