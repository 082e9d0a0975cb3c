"""`wandb.summary`: the last values of a run, with texts and declared statistics."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from labbench.configs import flatten
from labbench.errors import LabbenchError
from labbench.messages import warn_once
from labbench.tracking.run import Run, RunSummary
from labbench.tracking.values import storable_name
from labbench.wandb.ignored import Ignored

MAX_TEXT = 1000
"""Maximum number of characters of a text that `log` records."""


class WandbSummary(RunSummary):
    """Summary that also takes texts: `summary["dataset"] = "shapes"` is the key `summary/dataset` of the config."""

    def __init__(self, run: Run) -> None:
        super().__init__(run._writer_thread)
        self._run = run
        self._texts: dict[str, str] = {}
        self._statistics: dict[str, str] = {}
        """Statistic of the metrics with a name or pattern, min or max."""

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several values; nested keys are joined with `.`.

        Raises:
            InputError: In a strict run, if a value is neither a number nor a text, or the run has ended.
        """
        flat = {key: value for key, value in flatten(values) if not isinstance(value, Ignored)}
        texts = {key: value for key, value in flat.items() if isinstance(value, str)}
        if texts:
            self._set_texts(texts)
        if numbers := {key: value for key, value in flat.items() if key not in texts}:
            super().update(numbers)

    def _log_texts(self, texts: Mapping[str, str]) -> None:
        """Record texts that `log` received, without long ones, as the import of W&B's files does."""
        for key in (key for key, text in texts.items() if len(text) > MAX_TEXT):
            warn_once(f"wandb.log: `{key}` is a text of more than {MAX_TEXT:,} characters; it is not recorded")
        self._set_texts({key: text for key, text in texts.items() if len(text) <= MAX_TEXT})

    def _set_texts(self, texts: Mapping[str, str]) -> None:
        """Record texts that are new or have changed."""
        new = {key: text for key, text in texts.items() if self._texts.get(key) != text}
        if new and not self._writer_thread.is_closing:
            self._texts |= new
            self._run.config.update({f"summary/{key}": text for key, text in new.items()})

    def __getitem__(self, key: str) -> Any:
        if key in self._texts:
            return self._texts[key]
        last = super().__getitem__(key)
        statistic = next((word for name, word in self._statistics.items() if fnmatchcase(key, name)), None)
        return last if statistic is None else Statistic(self._read_statistic(key, statistic, last), statistic)

    def _read_statistic(self, key: str, statistic: str, last: float) -> float:
        """Return the minimum or maximum of a metric in the database; the last value if it cannot be read."""
        if self._writer_thread.discards:
            return last
        from labbench.store.reader import Reader  # imported on first use

        try:
            with Reader(self._run.path) as reader:
                metric = reader.find(self._run.key).summary[storable_name(key)]
        except (LabbenchError, KeyError):
            return last
        value = metric.min if statistic == "min" else metric.max
        return last if value is None else value


class Statistic(float):
    """Minimum or maximum of a metric, which W&B returns as a dict: `summary["acc"]` and `summary["acc"]["max"]`."""

    def __new__(cls, value: float, name: str) -> Statistic:
        """Make a number with the name of the statistic."""
        number = super().__new__(cls, value)
        number._name = name
        return number

    _name: str

    def __getitem__(self, name: str) -> float:
        if name != self._name:
            raise KeyError(name)
        return float(self)
