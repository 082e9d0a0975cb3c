"""Frozen dataclasses of plain values that are passed between the layers.

No tensor leaves `train/` and no SQL row leaves `store/`: a run is a `RunRecord`, runs that train together are a
`Stack`, and a trainer reports by events. Modules load when one of their names is first used: Python generates the
methods of dataclasses at import, which takes 11 ms for all of them and 2 ms for those that `labbench.start()` needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.records.run_data import *
    from labbench.records.run_record import *
    from labbench.records.stack import *
    from labbench.records.training_events import *

_MODULES = ("run_data", "run_record", "stack", "training_events")
"""Modules of this package, in the order in which names are looked up."""


def __getattr__(name: str) -> Any:
    if name == "default_goal":  # was in this module first
        from labbench.metrics import default_goal

        return default_goal
    for module in () if name.startswith("_") else _MODULES:
        values = vars(import_module(f"{__name__}.{module}"))
        if name in values:
            globals()[name] = values[name]
            return values[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
