"""`wandb.summary`: the last values of a run, and texts that are kept in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labbench.configs import flatten
from labbench.tracking.run import Run
from labbench.tracking.summary import RunSummary


class WandbSummary(RunSummary):
    """Summary that also takes texts: `summary["dataset"] = "shapes"` is the key `summary/dataset` of the config."""

    def __init__(self, run: Run) -> None:
        super().__init__(run._writer_thread)
        self._run = run
        self._texts: dict[str, str] = {}

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several values; nested keys are joined with `.`.

        Raises:
            InputError: In a strict run, if a value is neither a number nor a text, or the run has ended.
        """
        flat = dict(flatten(values))
        texts = {key: value for key, value in flat.items() if isinstance(value, str)}
        if texts:
            self._texts |= texts
            self._run.config.update({f"summary/{key}": text for key, text in texts.items()})
        if numbers := {key: value for key, value in flat.items() if key not in texts}:
            super().update(numbers)

    def __getitem__(self, key: str) -> Any:
        return self._texts[key] if key in self._texts else super().__getitem__(key)
