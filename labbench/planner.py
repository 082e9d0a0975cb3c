"""Which runs train together: a plan is a partition of the runs into stacks."""

from __future__ import annotations

from collections.abc import Iterable

from labbench.records import RunRecord, Runtime, Stack, Stop


def plan(
    runs: Iterable[RunRecord],
    *,
    task: str,
    stop: Stop | None = None,
    runtime: Runtime | None = None,
    files: str | None = None,
) -> list[Stack]:
    """Every run in exactly one stack, in the order given. For now each run is a stack of its own."""
    return [stack_of([run], task=task, stop=stop, runtime=runtime or Runtime(), files=files) for run in runs]


def stack_of(
    runs: Iterable[RunRecord], *, task: str, stop: Stop | None, runtime: Runtime, files: str | None = None
) -> Stack:
    """The stack of these runs: keys on which all agree are shared, the others become one value a run."""
    members = tuple(runs)
    first = members[0].config
    shared = {key: value for key, value in first.items() if all(_has(run, key, value) for run in members)}
    columns = {
        key: [run.config.get(key) for run in members] for run in members for key in run.config if key not in shared
    }
    return Stack(members, shared, columns, task, stop, runtime, files)


def _has(run: RunRecord, key: str, value: object) -> bool:
    return key in run.config and run.config[key] == value and type(run.config[key]) is type(value)
