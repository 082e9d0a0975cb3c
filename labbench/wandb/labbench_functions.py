"""`labbench.init`, `log` and `finish`: drop-in replacements for W&B's functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from labbench.errors import InputError
from labbench.tracking import process_hooks
from labbench.tracking.run import Run
from labbench.tracking.start import start
from labbench.wandb.start import resume_rule

_IGNORED = frozenset(
    [
        "allow_val_change", "anonymous", "config_exclude_keys", "config_include_keys", "dir", "entity", "force",
        "fork_from", "group", "job_type", "magic", "monitor_gym", "reinit", "resume_from",
        "save_code", "settings", "sync_tensorboard", "tensorboard",
    ]
)  # fmt: skip
"""Keywords of `wandb.init` that have no effect in labbench."""


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    config: Any = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    id: object = None,
    resume: str | bool | None = None,
    mode: str | None = None,
    **others: Any,
) -> Run:
    """Start a run with the signature of `wandb.init`; `labbench.start` has more options.

    `project` becomes the experiment, and `resume="auto"` or True is "allow". A run that is still open is finished
    first. Other keywords of `wandb.init` are ignored with a warning.

    Raises:
        InputError: If a keyword is unknown, and as in `labbench.start`.
    """
    unknown = others.keys() - _IGNORED
    if unknown:
        raise InputError(f"labbench.init has no argument {', '.join(sorted(unknown))}; see labbench.start")
    if others:
        warnings.warn(f"labbench.init ignores {', '.join(sorted(others))}", stacklevel=2)
    rule = resume_rule(id, resume)
    finish()
    return start(
        name,
        experiment=project,
        config=config,
        tags=tags or (),
        note=notes,
        id=id,
        resume=rule,
        mode=mode,
    )


def log(data: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
    """Log to the newest open run.

    With `commit=False`, the next call is recorded at the same step.

    Raises:
        InputError: If no run has been started, and as in `Run.log`.
    """
    _current_run().log(data, step, commit=commit)


def finish(exit_code: int | None = None) -> None:
    """End the newest open run, if any.

    An exit code other than 0 records a failure.
    """
    run = process_hooks.newest_run()
    if isinstance(run, Run):
        run.finish(exit_code or 0)


def _current_run() -> Run:
    run = process_hooks.newest_run() or process_hooks.last_ended_run()
    if not isinstance(run, Run):
        raise InputError("no run is open: call labbench.init() or labbench.start() first")
    return run
