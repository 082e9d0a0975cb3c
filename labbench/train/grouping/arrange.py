"""Which runs step together, and how: by the structure of their models, after a check against the plain loop.

Models have one structure when they differ in nothing but the values of their tensors and the probabilities of dropout.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.data.placement import free_bytes
from labbench.train.engine.cuda_graph import Captured
from labbench.train.engine.dropout import SPATIAL_DIMENSIONS, dropout_probabilities
from labbench.train.engine.initial_weights import new_model, take_over
from labbench.train.engine.layers import known
from labbench.train.engine.schedules import Clock
from labbench.train.engine.single import Alone
from labbench.train.engine.stacked import Together
from labbench.train.engine.stepper import Lesson, Stepper, state_of
from labbench.train.grouping.equivalence import disagreement
from labbench.train.grouping.loop_or_stack import first_batch, why_alone
from labbench.train.grouping.memory import (
    PROBED,
    at_most,
    known_width,
    learn_from,
    peak_on_cuda,
    remember,
    structure_of,
    width_for,
)
from labbench.train.grouping.separation import enter, separated, traits_of
from labbench.train.run_state import Member
from labbench.train.tasks.task import attributes_of

WIDTH = 64
"""Runs that step together at the most, but on a GPU: there the memory alone decides."""


@dataclass
class Arranged:
    """Runs that are ready to train together."""

    members: list[Member]
    stepper: Stepper
    clock: Clock
    note: str | None = None
    """Why they are stepped in another way than they might be, for their logs."""
    structure: Hashable = None
    """By which it is remembered how many fit in memory."""


def arrange(members: Sequence[Member], lesson: Lesson) -> Iterator[Arranged]:
    """All members, in order, as stacks; each is made when it is asked for. They are all after equally many updates."""
    width = widest(members, lesson, free_bytes(lesson.data.device))
    for start in range(0, len(members), width):
        several = members[start : start + width]
        if train_alone(several, lesson):
            yield from (alone(member, lesson) for member in several)
            continue
        models, traits = [], []
        for member in several:
            models.append(first_model(member, lesson))
            traits.append(traits_of(lesson.task, member.config, models[-1]))
        for group in (group for alike in by_structure(models) for group in separated(alike, traits)):
            alike = group.indices
            structure = structure_of(models[alike[0]], lesson)
            fit = fitting(structure, [several[i] for i in alike], [models[i] for i in alike], lesson)
            for part in (alike[first : first + fit] for first in range(0, len(alike), fit)):
                enter(lesson.task, traits[part[0]])
                for arranged in together([several[i] for i in part], [models[i] for i in part], lesson, structure):
                    arranged.note = "\n".join(filter(None, (group.note, arranged.note))) or None
                    group.note = None  # once is enough
                    yield arranged


def train_alone(members: Sequence[Member], lesson: Lesson) -> bool:
    """Return True where no stack is to be tried: a run that resumes keeps its way, else `engine` decides."""
    way = members[0].way or lesson.engine
    return way == "loop" or (way == "auto" and len(members) == 1)


def widest(members: Sequence[Member], lesson: Lesson, free: int | None) -> int:
    """Of how many members models are made at a time: on a device with so many bytes `free`, as many as may fit there.

    How many do fit is measured once they are there; models that cannot are not to fill the host's memory.
    """
    if free is None or len(members) == 1:
        return WIDTH
    return at_most(free, first_model(members[0], lesson), lesson.data.dtype)


def first_model(member: Member, lesson: Lesson) -> nn.Module:
    """The model with which a member begins; one that goes on brings its own weights."""
    model = new_model(lesson.task, member.config)
    if member.resumed is None:
        member.note = take_over(model, lesson, member.config)
    return model


def alone(member: Member, lesson: Lesson, note: str | None = None) -> Arranged:
    """The member by itself, in the plain loop."""
    clock = Clock(member.recorder.step)
    stepper = Alone(first_model(member, lesson), member.config, lesson, clock)
    if member.resumed is not None:
        stepper.load([member.resumed])
    return Arranged([member], stepper, clock, note)


def fitting(structure: Hashable, members: list[Member], models: list[nn.Module], lesson: Lesson) -> int:
    """How many of these members, alike in structure, are to step at a time."""
    known, device = known_width(structure), lesson.data.device
    if known is None and device.type == "cuda" and len(members) > max(PROBED):
        free: int = torch.cuda.mem_get_info(device)[0]
        try:
            known = width_for(free, lambda runs: peak_on_cuda(device, partial(try_out, members[:runs], models, lesson)))
            remember(structure, known)
        except Exception:  # what cannot be stacked is found, and told, by the check that follows
            return len(members)
    return min(len(members), known or len(members))


def try_out(members: list[Member], models: list[nn.Module], lesson: Lesson) -> None:
    """An update and an evaluation of these members, which leave them as they were."""
    stack = copied_stack(members, models, lesson)
    stack.train(True)
    stack.step(first_batch([member.config["seed"] for member in members], lesson))
    stack.train(False)
    stack.evaluate(lesson.data.glimpse(lesson.evaluation_batch))


def copied_stack(members: list[Member], models: list[nn.Module], lesson: Lesson) -> Together:
    """Copies of these members, who come first among the models, as one: to try something with."""
    return new_stack(members, copy.deepcopy(models[: len(members)]), lesson, Clock(members[0].recorder.step))


def new_stack(members: list[Member], models: list[nn.Module], lesson: Lesson, clock: Clock) -> Together:
    """The members as one, after the updates that they have done; the first model is taken over."""
    dropouts = [dropout_probabilities(model) for model in models]
    states = [member.resumed or state_of(model) for member, model in zip(members, models, strict=True)]
    way = way_of(members[0], models[0], lesson)
    return Together(way, models[0], dropouts, states, [each.config for each in members], lesson, clock)


def way_of(member: Member, model: nn.Module, lesson: Lesson) -> str:
    """Return the way in which a stack is stepped: as the member was before, as `engine` says, or by its layers."""
    way = member.way or lesson.engine
    return ("stacked" if known(model) else "vmap") if way == "auto" else way


def together(
    members: list[Member], models: list[nn.Module], lesson: Lesson, structure: Hashable = None
) -> Iterator[Arranged]:
    """Members whose models have one structure: as one stack, or each alone where the check finds a difference."""
    if train_alone(members, lesson):
        yield alone(members[0], lesson)
        return
    way = way_of(members[0], models[0], lesson)
    note = None if way == "vmap" or known(models[0]) else 'engine = "stacked" takes models of known layers alone'
    if note is None:
        with attributes_of(lesson.task).kept():
            note = disagreement(way, models, [member.config for member in members], lesson)
    if note is not None:
        yield from one_after_another(members, lesson, note)
        return
    if (members[0].way or lesson.engine) == "auto":
        with attributes_of(lesson.task).kept():
            note = why_alone(way, members, lesson)
        if note is not None:
            yield from one_after_another(members, lesson, note)
            return
    clock = Clock(members[0].recorder.step)
    try:
        stack = new_stack(members, models, lesson, clock)
    except Exception as error:
        learn_from(error, structure, len(members))
        raise
    try:
        stepper, note = replayed(stack, lesson)
    except Exception as error:
        learn_from(error, structure, len(members))
        raise
    yield Arranged(members, stepper, clock, note, structure)


def replayed(stack: Together, lesson: Lesson) -> tuple[Stepper, str | None]:
    """The stack by a CUDA graph where there is CUDA; by itself, and why, where its step cannot be captured."""
    if not may_be_captured(lesson):
        return stack, None
    try:
        stack.train(True)
        captured = Captured(stack, lesson.batch_size)
        captured.capture()
        return captured, None
    except Exception as error:  # a user's forward may wait for the device, and torch's libraries may refuse
        if is_out_of_memory(error):
            raise
        return stack, f"stepped without a CUDA graph, because {type(error).__name__}: {error}".splitlines()[0]


def may_be_captured(lesson: Lesson) -> bool:
    """Whether there are CUDA graphs, and a step that is the same each time: one that waits for no data."""
    on_cuda = lesson.data.device.type == "cuda" and lesson.data.resident
    return on_cuda and not lesson.arithmetic.compiles and lesson.batch_size <= lesson.samples_per_epoch


def one_after_another(members: Sequence[Member], lesson: Lesson, note: str) -> Iterator[Arranged]:
    """Each alone; the first says why."""
    for number, member in enumerate(members):
        yield alone(member, lesson, None if number else f"trained alone, because {note}")


def by_structure(models: Sequence[nn.Module]) -> list[list[int]]:
    """The indices of models that have one structure, in the order of the first of each."""
    kinds: list[list[int]] = []
    for index, model in enumerate(models):
        for kind in kinds:
            if alike(models[kind[0]], model):
                kind.append(index)
                break
        else:
            kinds.append([index])
    return kinds


def alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same modules with the same settings, and tensors of the same shapes."""
    ours, theirs = dict(first.named_modules()), dict(second.named_modules())
    return (
        ours.keys() == theirs.keys()
        and all(_same_settings(ours[name], theirs[name]) for name in ours)
        and _shapes(first) == _shapes(second)
    )


def _shapes(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype, bool]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors]


TENSORS_AND_CHILDREN = ("_parameters", "_buffers", "_modules")


def _same_settings(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not type(second):
        return False
    apart = (*TENSORS_AND_CHILDREN, "p") if type(first) in SPATIAL_DIMENSIONS else TENSORS_AND_CHILDREN
    ours, theirs = ({k: v for k, v in vars(module).items() if k not in apart} for module in (first, second))
    return ours.keys() == theirs.keys() and all(_same(ours[name], theirs[name]) for name in ours)


def _same(first: Any, second: Any) -> bool:
    """Whether two plain values are equal. Others, such as tensors that are no buffers, are never the same."""
    if isinstance(first, FunctionType | type | torch.dtype | torch.device):
        return first is second or first == second
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple | set | frozenset):
        pairs = zip(_in_order(first), _in_order(second), strict=False)
        return len(first) == len(second) and all(_same(ours, theirs) for ours, theirs in pairs)
    return isinstance(first, int | float | str | bytes | None | complex) and bool(first == second)


def _in_order(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
