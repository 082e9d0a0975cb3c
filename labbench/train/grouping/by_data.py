"""Group runs that can share a data set.

Runs share a data set if their configs agree in every key that the task's `data` reads.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, GeneratorType
from typing import Any

import torch

from labbench.records import Config, Stack
from labbench.train.data.loading import DatasetSource
from labbench.train.data.placement import place_data
from labbench.train.engine.stepper import Workload
from labbench.train.failures import Failure
from labbench.train.precision import resolve_precision
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import Task, make_data


@dataclass(frozen=True)
class DataGroup:
    """Runs that share a data set."""

    workload: Workload
    runs: list[TrainingRun]
    reason: str | None = None
    """Reason why a run shares its data with no other run."""


def group_by_data(
    runs: Sequence[TrainingRun], task: Task, stack: Stack, device: torch.device
) -> Iterator[DataGroup | Failure]:
    """Yield groups of runs with their data, ordered by first run.

    A data set is made when the iterator reaches it. The runs of a group are at the same step, and resumed runs among
    them had the same engine. If the data cannot be made, the failure of all runs that share them is yielded instead.
    """
    dtype, precision = resolve_precision(stack.runtime, device.type)
    waiting = list(runs)
    files = None if stack.files is None else Path(stack.files)
    while waiting:
        first = waiting[0]
        config = ReadTrackingConfig(first.config)  # in no comprehension, whose closure would refer to it
        keys, references = config.read, sys.getrefcount(config)
        try:
            dataset, runtime = make_data(task, config), stack.runtime
            if sys.getrefcount(config) > references:
                config.read_if_referenced()
            placed = place_data(dataset, device, dtype, runtime.data, loaders=runtime.loaders or 0)
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            sharing = [run for run in waiting if _shares_workload(run, first, keys)]
            yield Failure.from_error([run.record for run in sharing], error)
        else:
            keys = keys | {"batch_size"}
            is_ragged = isinstance(placed, DatasetSource) and placed.is_ragged
            if is_ragged:  # the batches of different seeds may differ in shape
                keys.add("seed")
            sharing = [run for run in waiting if _shares_workload(run, first, keys)]
            with closing(placed) as data:
                workload = Workload(
                    task, data, first.config["batch_size"], precision, stack.task, files, runtime.engine
                )
                for run in sharing:
                    run.metric_buffer.set_total_steps(run.epochs * workload.steps_per_epoch)
                yield DataGroup(workload, sharing, _reason_alone(sharing, runs, config.read, is_ragged=is_ragged))
        waiting = [run for run in waiting if run not in sharing]


def _reason_alone(
    sharing: Sequence[TrainingRun], runs: Sequence[TrainingRun], keys: set[str], *, is_ragged: bool
) -> str | None:
    """Return the reason if one of several runs has data of its own."""
    (first, *others) = sharing
    if is_ragged and not others and len(runs) > 1 and not keys & {"seed"}:
        return "with a collate_fn, batches of different seeds may differ in shape, and no other run has its seed"
    differing = [key for key in sorted(keys) if any(run.config.get(key) != first.config.get(key) for run in runs)]
    if others or not differing:
        return None
    read = " and ".join(f"`{key}`" for key in differing)
    return f"the task's data(config) reads {read}, so that no other run has the same data"


def _shares_workload(run: TrainingRun, other: TrainingRun, keys: set[str]) -> bool:
    return (run.epoch, run.engine) == (other.epoch, other.engine) and all(
        run.config.get(key) == other.config.get(key) for key in keys
    )


class ReadTrackingConfig(dict[str, Any]):
    """A config that records which keys are read.

    Iteration counts as reading all keys.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._read_all()
        return super().__iter__()

    def keys(self) -> Any:
        self._read_all()
        return super().keys()

    def values(self) -> Any:
        self._read_all()
        return super().values()

    def items(self) -> Any:
        self._read_all()
        return super().items()

    def pop(self, key: str, *default: Any) -> Any:
        self.read.add(key)
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().setdefault(key, default)

    def popitem(self) -> tuple[str, Any]:
        self._read_all()
        return super().popitem()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def read_if_referenced(self) -> None:
        """Count all keys as read if an object such as a `Dataset` refers to the config, and may read it later.

        Looks at every object of the process.
        """
        referrers = (each for each in gc.get_referrers(self) if not isinstance(each, FrameType | GeneratorType))
        if next(referrers, None) is not None:
            self._read_all()

    def _read_all(self) -> None:
        self.read.update(super().keys())
