"""A look into the networks of a stack at an epoch's end, on request: gradient norms by layer, units that never speak.

Each run's weights are put into one plain module, whichever way the stack is stepped, and a fixed part of the validation
data goes forward and back. Nothing of the training is touched, and where nobody asked nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.dtypes import place_model
from labbench.train.engine.initial_weights import new_model
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.loss_config import loss_configs
from labbench.train.tasks.metrics import compute_losses
from labbench.train.tasks.models import Step
from labbench.train.tasks.task import attributes_of

PROBE_SAMPLES = 256
"""Of the validation data, the first ones."""
SATURATION_SHARE = 0.01
"""How near to its ends a sigmoid or tanh is that hardly passes a gradient on: a share of its range."""


class NetworkProbe:
    """What can be seen in networks of one structure: `grad_norm/LAYER` and `dead/LAYER`, a layer being `0.linear`."""

    def __init__(self, config: Config, workload: Workload) -> None:
        """`config` is that of one of the runs."""
        self._task = workload.task
        self._place = workload.data.dtype, workload.data.device
        self._sample = workload.data.sample_validation(PROBE_SAMPLES)
        with attributes_of(workload.task).restore_after():
            model = new_model(workload.task, config)
        self.model = place_model(model, workload.data.device, workload.data.dtype).eval()
        self.modules = {_layer_name(path, module): module for path, module in self.model.named_modules()}
        """By name, the model itself too."""
        self._layers = {
            name: parameters
            for name, module in self.modules.items()
            if (parameters := [p for p in module.parameters(recurse=False) if p.requires_grad])
        }
        self._dead: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            if type(module) in _IS_SILENT:
                module.register_forward_hook(self._make_hook(name))

    def measure(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, float]:
        """Of a run with these weights, its model's state_dict, and this config.

        A gradient norm is that of the mean loss by all of a layer's own parameters. A unit, which is a channel of an
        image, is dead where a ReLU or step is 0 and a sigmoid or tanh at its end on the whole sample.
        """
        seen = {}
        for name, gradients in self.gradients(weights, config).items():
            squares = [gradient.abs().double().square().sum() for gradient in gradients]
            seen[f"grad_norm/{name}"] = torch.stack(squares).sum().sqrt().item() if squares else 0.0
        dead, self._dead = self._dead, {}
        return seen | {f"dead/{name}": silent.double().mean().item() for name, silent in dead.items()}

    def gradients(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, list[Tensor]]:
        """By layer those of the mean loss on the sample, one a parameter that the loss depends on."""
        self.model.load_state_dict(weights)
        inputs, targets = self._sample
        parameters = [parameter for layer in self._layers.values() for parameter in layer]
        own = loss_configs(self._task, [config], *self._place).first()
        loss = compute_losses(self._task, self.model(inputs), targets, own).mean()
        found = iter(torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ())
        return {
            name: [g.to_dense() for _, g in zip(layer, found, strict=False) if g is not None]
            for name, layer in self._layers.items()
        }

    def _make_hook(self, name: str) -> Any:
        def listen(module: nn.Module, _: Any, outputs: Tensor) -> None:
            units = outputs.detach().flatten(2).movedim(2, 1).flatten(0, 1) if outputs.dim() > 2 else outputs.detach()
            self._dead[name] = _IS_SILENT[type(module)](units).all(dim=0)

        return listen


def _layer_name(path: str, module: nn.Module) -> str:
    kind = type(module).__name__.lower()
    return f"{path}.{kind}" if path else kind


def _is_zero(outputs: Tensor) -> Tensor:
    return outputs == 0


def _is_saturated_sigmoid(outputs: Tensor) -> Tensor:
    return (outputs < SATURATION_SHARE) | (outputs > 1 - SATURATION_SHARE)


def _is_saturated_tanh(outputs: Tensor) -> Tensor:
    return outputs.abs() > 1 - 2 * SATURATION_SHARE


_IS_SILENT = {
    nn.ReLU: _is_zero,
    Step: _is_zero,
    nn.Sigmoid: _is_saturated_sigmoid,
    nn.Tanh: _is_saturated_tanh,
}
"""By activation: whether a unit's output says nothing of its input."""
