"""Group runs that can share a data set.

Runs share a data set if their configs agree in every key that the task's `data` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from labbench.records import Config, Stack
from labbench.train.data.placement import place_data
from labbench.train.engine.stepper import Workload
from labbench.train.precision import resolve_precision
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import Task, make_data


def group_by_data(
    runs: Sequence[TrainingRun], task: Task, stack: Stack, device: torch.device
) -> Iterator[tuple[Workload, list[TrainingRun]]]:
    """Yield workloads with their runs, ordered by first run.

    A data set is made when the iterator reaches it. The runs of a workload are at the same step, and resumed ones had
    the same engine.
    """
    dtype, precision = resolve_precision(stack.runtime, device.type)
    waiting = list(runs)
    files = None if stack.files is None else Path(stack.files)
    while waiting:
        first = waiting[0]
        config = ReadTrackingConfig(first.config)
        dataset, runtime = make_data(task, config), stack.runtime
        with closing(place_data(dataset, device, dtype, runtime.data, loaders=runtime.loaders or 0)) as data:
            workload = Workload(task, data, first.config["batch_size"], precision, stack.task, files, runtime.engine)
            keys = config.read | {"batch_size"}
            sharing = [run for run in waiting if _shares_workload(run, first, keys)]
            for run in sharing:
                run.metric_buffer.set_total_steps(run.epochs * workload.steps_per_epoch)
            yield workload, sharing
        waiting = [run for run in waiting if run not in sharing]


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

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def _read_all(self) -> None:
        self.read.update(super().keys())
