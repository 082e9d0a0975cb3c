"""Separation of runs that must not share a stack.

Runs whose models have one structure are separated if their loss or metrics depend on values that a stack cannot hold
per run.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from labbench.records import Config
from labbench.train.tasks.loss_config import separating_values
from labbench.train.tasks.object_state import ObjectState, difference, restore
from labbench.train.tasks.task import Task, attributes_of, reads_attributes


@dataclass(frozen=True)
class Traits:
    """Values that all runs of a stack must share.

    The loss and metrics of a run may read them.
    """

    values: Mapping[str, Hashable]
    """Values of the config by key, except numbers that a stack holds per run."""
    attributes: ObjectState | None = None
    """Attributes of the task after its `model(config)`; None if the loss and metrics cannot read them."""
    has_model: bool = False
    """True if the attributes include the model or one of its parameters, so that each run needs its own."""

    def difference(self, other: Traits) -> str | None:
        """Return a message about the first difference.

        Returns None if the runs may share a stack.
        """
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


def read_traits(task: Task, config: Config, model: nn.Module) -> Traits:
    """Return the traits of a run.

    Call it right after the task has made the run's `model`.
    """
    values = separating_values(task, config)
    if not reads_attributes(task):
        return Traits(values)
    memo: dict[int, ObjectState] = {}
    attributes = attributes_of(task).capture(memo)
    return Traits(values, attributes, any(id(part) in memo for part in (model, *model.parameters())))


def restore_task_attributes(task: Task, traits: Traits) -> None:
    """Restore the task's attributes for runs with these traits.

    The task had these attributes after it made the run's model.

    Raises:
        InputError: A large tensor among them was changed in place, so that it cannot be restored.
    """
    if traits.attributes is not None:
        restore(traits.attributes)


@dataclass
class TraitGroup:
    """Runs that may share a stack."""

    indices: list[int]
    difference: str | None = None
    """Reason why other runs of the structure are in other groups."""


def split_by_traits(indices: Sequence[int], traits: Sequence[Traits]) -> list[TraitGroup]:
    """Return the indices in groups of runs with equal traits.

    Groups are ordered by their first run.
    """
    groups: list[TraitGroup] = []
    for index in indices:
        for group in groups:
            difference = traits[group.indices[0]].difference(traits[index])
            if difference is None:
                group.indices.append(index)
                break
            group.difference = group.difference or difference
        else:
            groups.append(TraitGroup([index], groups[-1].difference if groups else None))
    return groups
