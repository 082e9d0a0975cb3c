"""The layers for GPUs compute what the plain loop computes; in float64 on a CPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from helpers.meta_training import STACKED_MODELS, full_config
from helpers.training import CPU
from labbench.train.data.dataset import load_digits
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, make_model


@pytest.mark.parametrize("layers", STACKED_MODELS)
def test_a_stack_with_gpu_layers_equals_the_loop(layers: str) -> None:
    model = STACKED_MODELS[layers]
    task = FileTask({}, lambda config: load_digits(), model, cross_entropy, accuracy)
    workload = Workload(task, load_digits().to(CPU, torch.float64), 50, gpu_layers=True)
    configs = [full_config(seed, {"batch_size": 50}) for seed in range(3)]
    models = [make_model(task, config) for config in configs]
    loops = [SingleStepper(make_model(task, config), config, workload, StepCounter()) for config in configs]
    members = list(map(StackMember.from_model, models, configs))
    stack = StackedStepper("stacked", models[0], members, workload, StepCounter())
    for index, loop in enumerate(loops):
        loop.load([stack.state(index)])
    for stepper in (stack, *loops):
        stepper.train(True)
    for batch in list(workload.data.batches([0, 1, 2], 1, 50))[:3]:
        losses, _ = stack.step(batch)
        for index, loop in enumerate(loops):
            torch.testing.assert_close(losses[index], loop.step(batch[index : index + 1])[0][0], rtol=1e-10, atol=1e-12)
    split = workload.data.sample_validation()
    for stepper in (stack, *loops):
        stepper.train(False)
    losses, _ = stack.evaluate(split)
    for index, loop in enumerate(loops):
        torch.testing.assert_close(losses[index], loop.evaluate(split)[0][0], rtol=1e-9, atol=1e-11)
    for index, loop in enumerate(loops):
        for name, tensor in loop.state(0).tensors.items():
            torch.testing.assert_close(stack.state(index).tensors[name], tensor, rtol=1e-9, atol=1e-11)
