"""Steppers of single runs and of stacks, and of copies of the runs for trials."""

from __future__ import annotations

import copy

from torch import nn

from labbench.train.engine.initial_weights import load_initial_weights, make_untrained_model
from labbench.train.engine.layers import is_supported
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.penalties import calls_model


def make_initial_model(run: TrainingRun, workload: Workload) -> nn.Module:
    """Return the run's model with its initial weights.

    A resumed run loads its checkpoint later.

    Raises:
        InputError: The weights of `init_from` cannot be loaded.
    """
    model = make_untrained_model(workload.task, run.config)
    if run.resume_state is None:
        run.note = load_initial_weights(model, workload, run.config)
    return model


def make_single_stepper(run: TrainingRun, model: nn.Module, workload: Workload) -> SingleStepper:
    """Return a stepper of one run with the engine `loop`, at its current step.

    The stepper takes ownership of the model.
    """
    stepper = SingleStepper(model, run.config, workload, StepCounter(run.metric_buffer.step))
    if run.resume_state is not None:
        stepper.load([run.resume_state])
    return stepper


def make_stacked_stepper(
    runs: list[TrainingRun], models: list[nn.Module], workload: Workload, step_counter: StepCounter
) -> StackedStepper:
    """Return a stepper of the runs at their current step.

    The stepper takes ownership of the first model.
    """
    stack_members = [
        StackMember.from_model(model, run.config, run.resume_state) for run, model in zip(runs, models, strict=True)
    ]
    engine = choose_engine(runs[0], models[0], workload)
    return StackedStepper(engine, models[0], stack_members, workload, step_counter)


def make_trial_stepper(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> StackedStepper:
    """Return a stepper of copies of the runs.

    `models` starts with the models of the runs; further ones are ignored.
    """
    return make_stacked_stepper(
        runs, copy.deepcopy(models[: len(runs)]), workload, StepCounter(runs[0].metric_buffer.step)
    )


def choose_engine(run: TrainingRun, model: nn.Module, workload: Workload) -> str:
    """Return the engine of a stack.

    A resumed run keeps its engine; otherwise `[runtime] engine` decides. "auto" is `stacked` for a Sequential of
    supported layers, unless a penalty may call the model, and `vmap` for any other model.
    """
    engine = run.engine or workload.engine
    if engine != "auto":
        return engine
    return "stacked" if is_supported(model) and not calls_model(workload.task) else "vmap"
