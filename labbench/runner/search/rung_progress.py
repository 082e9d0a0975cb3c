"""Progress of a search: the runs of the current rung, and the share of the full grid's cost so far."""

from __future__ import annotations

from labbench.records import AT_RUNG, Event, Failed, Finished, Points
from labbench.runner.driver import SearchStage
from labbench.text import format_count


class RungProgress:
    """Progress within one rung, computed from the events of its runs."""

    def __init__(self, stage: SearchStage) -> None:
        self.stage = stage
        self._reached: set[str] = set()
        """Runs that have trained up to the rung in this call, or ended before."""
        self._epochs: dict[str, float] = {}
        """Epochs that each run has trained in this rung."""
        self._first_epochs: dict[str, float] = {}

    def take(self, event: Event) -> None:
        """Update the progress with an event."""
        if isinstance(event, Points) and event.metric == "epoch":
            first = self._first_epochs.setdefault(event.run, max(0.0, event.values[0] - 1))
            self._epochs[event.run] = event.values[-1] - first
        elif isinstance(event, Failed) or (isinstance(event, Finished) and _has_reached(event)):
            self._reached.add(event.run)

    @property
    def spent(self) -> float:
        """Cost of all runs of the search so far."""
        return self.stage.spent + (len(self._reached) if self.stage.unit == "run" else sum(self._epochs.values()))

    @property
    def share(self) -> float:
        """Completed fraction of the search, 0 to 1."""
        return min(1.0, self.spent / self.stage.cost)

    def describe(self) -> str:
        """Describe the rung, such as `rung 2 of 4 (epoch 6): 12/32 runs, 9 % of the full grid's epochs`."""
        stage = self.stage
        done, runs = stage.runs - stage.due + len(self._reached), format_count(stage.runs, "run")
        return f"{stage.title}: {done}/{runs}, {self.spent / stage.full_cost:.0%} of the full grid's {stage.unit}s"


def _has_reached(event: Finished) -> bool:
    return event.status != "queued" or event.reason == AT_RUNG
