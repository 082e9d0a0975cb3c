"""Runs of one structure that must not train in one stack, because the task's loss or metrics treat them differently."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from labbench.records import Config
from labbench.train.loss_config import separating_values
from labbench.train.tasks import Task


@dataclass(frozen=True)
class Traits:
    """What the loss and the metrics of a run depend on, besides numbers that a stack has one of for each run."""

    values: Mapping[str, Hashable]
    """Values of the config by key."""

    def difference(self, other: Traits) -> str | None:
        """Return what differs, as a message names it; None where the runs may share a stack."""
        for key in self.values.keys() | other.values.keys():
            if self.values.get(key) != other.values.get(key):
                return f"`{key}`, which its loss or metrics may read and which is no number, differs"
        return None


def traits_of(task: Task, config: Config) -> Traits:
    """Return the traits of a run."""
    return Traits(separating_values(task, config))


@dataclass
class Group:
    """Runs that may share a stack."""

    indices: list[int]
    note: str | None = None
    """Why other runs of the structure are in other groups."""


def separated(indices: Sequence[int], traits: Sequence[Traits]) -> list[Group]:
    """Return the runs with these indices in groups of equal traits, in the order of the first of each."""
    groups: list[Group] = []
    for index in indices:
        for group in groups:
            difference = traits[group.indices[0]].difference(traits[index])
            if difference is None:
                group.indices.append(index)
                break
            group.note = group.note or f"trained apart from other runs, because {difference}"
        else:
            last = groups[-1] if groups else None
            groups.append(Group([index], last.note if last else None))
    return groups
