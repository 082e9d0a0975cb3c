"""Functions and classes of Weights & Biases that record with labbench: `from labbench import wandb`.

The import is the only line of a script that changes. What labbench does not record does nothing: its first use prints
one warning. Sweeps, which would train nothing, and what would read runs from a server are refused.
"""

from __future__ import annotations

from typing import Any

from labbench.wandb.ignored import Error, Ignored, ignore, refuse_reading
from labbench.wandb.ignored import refuse_sweep as agent
from labbench.wandb.ignored import refuse_sweep as controller
from labbench.wandb.ignored import refuse_sweep as sweep
from labbench.wandb.logged_files import Artifact, Image
from labbench.wandb.start import Settings, finish, generate_id, init, log, login, setup
from labbench.wandb.wandb_run import WandbRun as Run
from labbench.wandb.wandb_run import current_run, require_run

__all__ = [
    "Api",
    "Artifact",
    "Error",
    "Image",
    "Run",
    "Settings",
    "agent",
    "config",
    "controller",
    "define_metric",
    "errors",
    "finish",
    "init",
    "log",
    "log_artifact",
    "login",
    "restore",
    "run",
    "save",
    "setup",
    "summary",
    "sweep",
    "use_artifact",
    "use_model",
]


Api = refuse_reading("wandb.Api")
use_model = refuse_reading("wandb.use_model")


class _Errors:
    """The module `wandb.errors`."""

    def __getattr__(self, name: str) -> type[Error]:
        return Error


errors = _Errors()


class _Util:
    """Function of `wandb.util` that scripts use for the id of a run."""

    generate_id = staticmethod(generate_id)

    def __getattr__(self, name: str) -> Ignored:
        return ignore(f"wandb.util.{name}")


util = _Util()


def __getattr__(name: str) -> Any:
    """Return the newest run, an attribute of it, or an object that does nothing."""
    if name == "run":
        return current_run()
    if name in ("config", "summary", "define_metric", "log_artifact", "restore", "save", "use_artifact"):
        return getattr(require_run(), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'labbench.wandb' has no attribute {name!r}")
    return ignore(f"wandb.{name}")
