"""Callback for Optuna: `study.optimize(objective, callbacks=[OptunaCallback()])`."""

from __future__ import annotations

from typing import Any

import optuna

from labbench.tracking.process_hooks import ExitInfo
from labbench.tracking.start import start


class OptunaCallback:
    """Record each trial of a study as a run when it ends: parameters, intermediate values, objective values.

    The times of the intermediate values are not known then. A pruned trial is a run with the status `pruned`. A trial
    whose objective records a run of its own needs no callback.

    Args:
        metrics: Names of the objective values; default: `value`, or `value/0`, `value/1` of several.
        options: Other arguments of `labbench.start`: `experiment` (default: the name of the study), `db`, ...
    """

    def __init__(self, metrics: list[str] | None = None, **options: Any) -> None:
        self._metrics = metrics
        self._options = options

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Record a trial that has ended."""
        options: dict[str, Any] = {
            "experiment": study.study_name,
            "system_metrics": False,
            "quiet": True,
            **self._options,
        }
        options["config"] = {**options.get("config", {}), **trial.params}
        run = start(f"trial {trial.number}", **options)
        values = trial.values or []
        names = self._metrics or (
            ["value"] if len(study.directions) == 1 else [f"value/{i}" for i in range(len(values))]
        )
        for name, direction in zip(names, study.directions, strict=False):
            run.define_metric(name, "min" if direction.name == "MINIMIZE" else "max")
        for step, value in sorted(trial.intermediate_values.items()):
            run.log({names[0]: value}, step)
        if values and trial.state.name == "COMPLETE":
            last = max(trial.intermediate_values, default=-1) + 1
            run.log(dict(zip(names, values, strict=False)), last)
        for key, value in trial.user_attrs.items():
            run.config[key] = value
        if trial.state.name == "PRUNED":
            run._end(ExitInfo("pruned", "pruned by Optuna"))
        run.finish(0 if trial.state.name == "COMPLETE" else 1)
