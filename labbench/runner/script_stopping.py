"""Early stopping of the scripts of a grid by its `[stop]`, which reads their values from the database.

A script logs to the database by itself, so that the driver sees none of its values in events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.records import RunRecord, Stop
from labbench.store.reader import Reader
from labbench.train.early_stopping import EarlyStopping


@dataclass
class _Script:
    """Running script, with the last value that its rule has seen and its step."""

    stop: Stop
    rule: EarlyStopping
    last_step: int = -1
    last_value: str = ""
    """As `repr`, in which NaN equals itself."""
    reason: str | None = None
    """Reason to stop it, None while it continues."""


class ScriptStopping:
    """Rules of `[stop]` for the scripts that are running, evaluated at each value that they log."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._scripts: dict[str, _Script] = {}

    def watch(self, runs: Sequence[RunRecord], stop: Stop) -> None:
        """Watch runs from the start of an attempt on."""
        self._scripts |= {run.key: _Script(stop, EarlyStopping(stop)) for run in runs}

    def forget(self, run: str) -> str | None:
        """Stop watching a run that has ended; return the reason why it was to stop, None if there was none."""
        script = self._scripts.pop(run, None)
        return None if script is None else script.reason

    def find_due(self) -> Iterator[str]:
        """Yield the runs that are to stop now, each once; none if the database cannot be read."""
        waiting = {key: script for key, script in self._scripts.items() if script.reason is None}
        if not waiting:
            return
        try:
            with Reader(self._database) as reader:
                for key, script in waiting.items():
                    script.reason = _reason_to_stop(reader, key, script)
        except LabbenchError:  # read again at the next call
            pass
        yield from (key for key, script in waiting.items() if script.reason is not None)


def _reason_to_stop(reader: Reader, key: str, script: _Script) -> str | None:
    """Evaluate the rule of a script at the values that are new, in the order of their steps.

    If the last value is no longer there, the script has replaced the values of its earlier attempt, and the rule
    begins again.
    """
    steps, values = reader.series(key, script.stop.metric, first_step=max(0, script.last_step))
    points = list(zip(steps.tolist(), values.tolist(), strict=True))
    if script.last_step >= 0:
        if [(step, repr(value)) for step, value in points[:1]] != [(script.last_step, script.last_value)]:
            script.rule, script.last_step = EarlyStopping(script.stop), -1
            return _reason_to_stop(reader, key, script)
        del points[0]
    for step, value in points:
        script.last_step, script.last_value = step, repr(value)
        reason = script.rule.reason_to_stop({script.stop.metric: value})
        if reason is not None:
            return reason
    return None
