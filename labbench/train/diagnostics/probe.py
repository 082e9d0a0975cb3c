"""Gradient norms and dead units of networks at the end of an epoch.

With every engine, the weights of each run are loaded into one plain module, which computes the loss and its gradients
on a fixed part of the validation data. The training itself is not affected. `[runtime] watch` turns the measurement on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.data.samples import call_model
from labbench.train.engine.initial_weights import make_untrained_model
from labbench.train.engine.stepper import Workload
from labbench.train.host_copies import SyncPoint, to_host
from labbench.train.precision import place_model
from labbench.train.tasks.loss_config import loss_configs
from labbench.train.tasks.models import Step
from labbench.train.tasks.sample_metrics import compute_losses
from labbench.train.tasks.task import attributes_of

PROBE_SAMPLES = 256
"""Maximum number of validation samples in a measurement."""
SATURATION_SHARE = 0.01
"""A sigmoid or tanh is saturated within this distance from either end of its range, as a fraction of the range."""


class NetworkProbe:
    """Measure gradient norms and dead units of networks of one structure.

    The metrics are `grad_norm/LAYER` and `dead/LAYER`, with layer names like `0.linear`.
    """

    def __init__(self, config: Config, workload: Workload) -> None:
        """`config` is the config of any of the runs; they have one structure."""
        self._task = workload.task
        self._dtype_and_device = workload.data.dtype, workload.data.device
        self._sample = workload.data.sample_validation(PROBE_SAMPLES)
        with attributes_of(workload.task).restore_after():
            model = make_untrained_model(workload.task, config)
        self.model = place_model(model, workload.data.device, workload.data.dtype).eval()
        self.modules = {_layer_name(path, module): module for path, module in self.model.named_modules()}
        """Modules by name, including the model itself."""
        self._layers = {
            name: parameters
            for name, module in self.modules.items()
            if (parameters := [p for p in module.parameters(recurse=False) if p.requires_grad])
        }
        self._dead: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            if type(module) in _IS_DEAD:
                module.register_forward_hook(self._make_hook(name))

    def measure(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, float]:
        """Return the metrics of one run.

        `weights` is the state_dict of its model, tensors of any shape. `grad_norm/LAYER` is the 2-norm of the gradient
        of the mean loss with respect to the layer's direct parameters. `dead/LAYER` is the fraction of dead units. A
        unit (a channel, for images) is dead if for every sample its output is 0 (ReLU, step) or saturated (sigmoid,
        tanh).
        """
        values: dict[str, Tensor] = {}  # shape ()
        for name, gradients in self.compute_gradients(weights, config).items():
            squares = [gradient.abs().double().square().sum() for gradient in gradients]
            values[f"grad_norm/{name}"] = (
                torch.stack(squares).sum().sqrt()
                if squares
                else torch.zeros((), dtype=torch.float64, device=self._dtype_and_device[1])
            )
        dead, self._dead = self._dead, {}
        values |= {f"dead/{name}": is_dead.double().mean() for name, is_dead in dead.items()}
        if not values:
            return {}
        return dict(zip(values, to_host(torch.stack(list(values.values())), SyncPoint.PROBE).tolist(), strict=True))

    def compute_gradients(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, list[Tensor]]:
        """Return the gradients of the mean loss by layer.

        Gradients have the shapes of the layer's parameters. Parameters that the loss does not depend on are left out.
        """
        self.model.load_state_dict(weights)
        inputs, targets = self._sample
        parameters = [parameter for layer in self._layers.values() for parameter in layer]
        loss_config = loss_configs(self._task, [config], *self._dtype_and_device).first()
        loss = compute_losses(self._task, call_model(self.model, inputs), targets, loss_config).mean()
        gradients = iter(torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ())
        return {
            name: [g.to_dense() for _, g in zip(layer, gradients, strict=False) if g is not None]
            for name, layer in self._layers.items()
        }

    def _make_hook(self, name: str) -> Any:
        def record_dead_units(module: nn.Module, _: Any, outputs: Tensor) -> None:
            units = outputs.detach().flatten(2).movedim(2, 1).flatten(0, 1) if outputs.dim() > 2 else outputs.detach()
            self._dead[name] = _IS_DEAD[type(module)](units).all(dim=0)  # (units,)

        return record_dead_units


def _layer_name(path: str, module: nn.Module) -> str:
    kind = type(module).__name__.lower()
    return f"{path}.{kind}" if path else kind


def _is_zero(outputs: Tensor) -> Tensor:
    return outputs == 0


def _is_saturated_sigmoid(outputs: Tensor) -> Tensor:
    return (outputs < SATURATION_SHARE) | (outputs > 1 - SATURATION_SHARE)


def _is_saturated_tanh(outputs: Tensor) -> Tensor:
    return outputs.abs() > 1 - 2 * SATURATION_SHARE


_IS_DEAD = {
    nn.ReLU: _is_zero,
    Step: _is_zero,
    nn.Sigmoid: _is_saturated_sigmoid,
    nn.Tanh: _is_saturated_tanh,
}
"""Function per activation: True for outputs at which the activation's derivative is 0 or almost 0."""
