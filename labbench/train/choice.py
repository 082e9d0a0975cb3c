"""Whether runs that could step together are quicker one after another: a network that keeps a core busy by itself is.

Where a plain step is short, most of it is overhead, which a stack shares, and nothing is tried. Elsewhere one run
takes a few steps in a plain loop, and copies of several those that a stack needs to find its tiles, until one step is
quicker.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from labbench.train.alone import Alone
from labbench.train.clock import Clock
from labbench.train.members import Member
from labbench.train.starting import new_model
from labbench.train.stepper import Lesson, Stepper
from labbench.train.together import Together

SHORT_SECONDS = 1e-3
"""A plain step that takes less is mostly overhead."""
REPAID_STEPS = 100
"""Steps of a run from which on a trial costs less than it may bring."""
FEW = 6
"""Runs of which copies are tried, where a stack is stepped in tiles: by vmap all go at a time, and share more."""
MARGIN = 0.97
"""How much quicker the plain loop must be: timing is noisy, and stacks share more than steps."""


def why_alone(members: list[Member], lesson: Lesson, copied: Callable[[], Together]) -> str | None:
    """Why these members should train one after another, or None; `copied` makes a stack of copies of them."""
    if lesson.data.device.type != "cpu" or members[0].epochs * lesson.steps_per_epoch < REPAID_STEPS:
        return None
    if lesson.arithmetic.compiles:  # a trial would time the compiler
        return None
    batch = first_batch([member.config["seed"] for member in members], lesson)
    alone = Alone(new_model(lesson.task, members[0].config), members[0].config, lesson, Clock())
    loop = statistics.median(  # the best of short steps is luck; those of a stack are long, and of differing widths
        timed(alone, batch[:1], lambda taken: len(taken) == 5)
    )
    if loop < SHORT_SECONDS:
        return None
    stack = copied()

    def quicker(taken: list[float]) -> bool:
        return loop > MARGIN * min(taken) / len(members)

    found = timed(stack, batch, lambda taken: quicker(taken) or (stack.settled and len(taken) > 2))
    if quicker(found):
        return None
    together = min(found) / len(members)
    return f"the plain loop is quicker: {loop * 1000:.1f} ms a step, {together * 1000:.1f} ms in a stack"


def timed(stepper: Stepper, batch: torch.Tensor, enough: Callable[[list[float]], bool]) -> list[float]:
    """Seconds of some steps, at least one, until they are enough.

    Those that this thread computed: on a busy machine a long step is interrupted more often than a short one, and a
    stack's would seem slow.
    """
    stepper.train(True)
    taken: list[float] = []
    while not taken or not enough(taken):
        began = time.thread_time()
        stepper.step(batch)
        taken.append(time.thread_time() - began)
    return taken


def first_batch(seeds: list[int], lesson: Lesson) -> torch.Tensor:
    """The numbers of the samples with which each run begins: (S, N)."""
    return lesson.data.first(seeds, lesson.batch_size)
