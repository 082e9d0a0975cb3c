"""`labbench.init`, `log` and `finish`: the names of W&B, for people who switch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from labbench.errors import InputError
from labbench.tracking import process_hooks
from labbench.tracking.run import Run
from labbench.tracking.start import start
from labbench.tracking.values import Value, flatten_metrics

_IGNORED = frozenset(
    [
        "allow_val_change", "anonymous", "config_exclude_keys", "config_include_keys", "dir", "entity", "force",
        "fork_from", "group", "id", "job_type", "magic", "mode", "monitor_gym", "reinit", "resume", "resume_from",
        "save_code", "settings", "sync_tensorboard", "tensorboard",
    ]
)  # fmt: skip
"""Keywords of `wandb.init` that mean nothing here."""


class _UncommittedLog:
    """What was logged to a run with `commit=False`: with the next call, or when the run ends, it is logged."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._numbers: dict[str, Value] = {}
        self._step: int | None = None

    def add(self, data: Mapping[str, Any], step: int | None) -> None:
        self._numbers |= flatten_metrics(data)
        self._step = self._step if step is None else step

    def close(self) -> None:
        numbers, self._numbers = self._numbers, {}
        step, self._step = self._step, None
        if numbers:
            self._run.log(numbers, step)


_uncommitted: dict[str, _UncommittedLog] = {}
"""By the key of a run."""


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    config: Any = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    **others: Any,
) -> Run:
    """Begin a run as `wandb.init` does; `project` is the experiment. `labbench.start` can do more.

    Keywords of W&B that mean nothing here are named in a warning. A run that is still open is finished first.
    """
    unknown = others.keys() - _IGNORED
    if unknown:
        raise InputError(f"labbench.init knows no {', '.join(sorted(unknown))}; see labbench.start for what there is")
    if others:
        warnings.warn(f"labbench.init ignores {', '.join(sorted(others))}", stacklevel=2)
    if process_hooks.newest_run() is not None:
        finish()
    return start(name, experiment=project, config=config, tags=tags or (), note=notes)


def log(data: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
    """Log to the run that began last; with `commit=False` together with what is logged next."""
    run = _current_run()
    waiting = _uncommitted.get(run.key)
    if commit and waiting is None:
        run.log(data, step)
        return
    if waiting is None:
        waiting = _uncommitted[run.key] = _UncommittedLog(run)
        run.in_background(waiting)
    waiting.add(data, step)
    if commit:
        waiting.close()


def finish(exit_code: int | None = None) -> None:
    """End the run that began last; an exit code other than 0 says that it failed. Where none is open, nothing."""
    run = process_hooks.newest_run()
    if isinstance(run, Run):
        _uncommitted.pop(run.key, None)
        run.finish(exit_code or 0)


def _current_run() -> Run:
    run = process_hooks.newest_run()
    if not isinstance(run, Run):
        raise InputError("no run is open: call labbench.init() or labbench.start() first")
    return run
