"""Runs of one structure that must not train in one stack, because the task's loss or metrics treat them differently."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from labbench.records import Config
from labbench.train.tasks.attributes import ObjectState, difference, restore
from labbench.train.tasks.loss_config import separating_values
from labbench.train.tasks.task import Task, attributes_of, reads_attributes


@dataclass(frozen=True)
class Traits:
    """What the loss and the metrics of a run depend on, besides numbers that a stack has one of for each run."""

    values: Mapping[str, Hashable]
    """Values of the config by key."""
    attributes: ObjectState | None = None
    """The attributes of the task after its `model(config)`, where the loss or the metrics may read them."""
    has_model: bool = False
    """The model is among them, or one of its parameters: each run's loss needs its own."""

    def difference(self, other: Traits) -> str | None:
        """Return what differs, as a message names it; None where the runs may share a stack."""
        for key in self.values.keys() | other.values.keys():
            if self.values.get(key) != other.values.get(key):
                return f"`{key}`, which its loss or metrics may read and which is no number, differs"
        if self.has_model or other.has_model:
            return "the task keeps the model of a run in an attribute"
        if self.attributes is not None and other.attributes is not None:
            path = difference(self.attributes, other.attributes)
            if path is not None:
                return f"the task's `{path}` differs: loss(self, outputs, targets, config) can read the config instead"
        return None


def traits_of(task: Task, config: Config, model: nn.Module) -> Traits:
    """Return the traits of a run whose model the task has just made."""
    values = separating_values(task, config)
    if not reads_attributes(task):
        return Traits(values)
    met: dict[int, ObjectState] = {}
    attributes = attributes_of(task).capture(met)
    return Traits(values, attributes, any(id(part) in met for part in (model, *model.parameters())))


def enter(task: Task, traits: Traits) -> None:
    """Give the task the attributes that it had after it made the model of a run with these traits."""
    if traits.attributes is not None:
        restore(traits.attributes)


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
