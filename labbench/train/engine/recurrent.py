"""Recurrent layers of a stack: GRU (Cho et al., 2014), LSTM (Hochreiter & Schmidhuber, 1997) and simple RNN.

torch's layers cannot be mapped over runs. These compute the same formulas for S runs at once: one product for the
inputs of all time steps, one product per time step for the states, and a backward pass without an autograd graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from labbench.train.engine.vmap_calls import call_stacked


def stack_recurrent_layers(model: nn.Module) -> None:
    """Make the recurrent layers of a model callable inside `vmap`."""
    for module in model.modules():
        if type(module) in (nn.GRU, nn.LSTM, nn.RNN) and is_stackable(module):
            module.forward = _Forward(cast(nn.RNNBase, module))


def is_stackable(module: Any) -> bool:
    """Return True for a recurrent layer without dropout between layers and without projections."""
    return not (module.proj_size or (module.dropout and module.num_layers > 1))


class _Forward:
    """Forward of a recurrent layer, with the arguments and results of torch's."""

    def __init__(self, module: nn.RNNBase) -> None:
        self.module = module

    def __call__(self, inputs: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """Return outputs and final states, for inputs (T, N, I), (N, T, I) if `batch_first`, or (T, I)."""
        module, is_lstm = self.module, self.module.mode == "LSTM"
        states: Sequence[Tensor | None] = hx if is_lstm and hx is not None else (hx, None)
        if not isinstance(inputs, Tensor):
            raise TypeError("packed sequences cannot be stacked: pass a padded tensor")
        unbatched = inputs.dim() == 2
        if unbatched:
            inputs = inputs.unsqueeze(1)
            states = [None if state is None else state.unsqueeze(1) for state in states]
        elif module.batch_first:
            inputs = inputs.transpose(0, 1)
        finals: list[Tensor] = []
        for layer in range(module.num_layers):
            directions = []
            for direction in range(2 if module.bidirectional else 1):
                index = len(finals)
                first, cell = (None if state is None else state[index] for state in states)
                suffix = f"l{layer}{'_reverse' if direction else ''}"
                sequence = self._run(inputs.flip(0) if direction else inputs, first, cell, suffix)  # (T, N, H or 2H)
                finals.append(sequence[-1])
                outputs = sequence[..., : module.hidden_size]
                directions.append(outputs.flip(0) if direction else outputs)
            inputs = torch.cat(directions, dim=2) if module.bidirectional else directions[0]
        hidden = torch.stack([final[:, : module.hidden_size] for final in finals])
        cells = torch.stack([final[:, module.hidden_size :] for final in finals])
        if unbatched:
            inputs, hidden, cells = inputs.squeeze(1), hidden.squeeze(1), cells.squeeze(1)
        elif module.batch_first:
            inputs = inputs.transpose(0, 1)
        return inputs, (hidden, cells) if is_lstm else hidden

    def _run(self, inputs: Tensor, hidden: Tensor | None, cell: Tensor | None, suffix: str) -> Tensor:
        """Return the states of one layer in one direction, (T, N, H); for LSTM hidden and cell states, (T, N, 2H)."""
        module = self.module
        weights = [getattr(module, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh")]
        biases = [getattr(module, f"{name}_{suffix}") if module.bias else None for name in ("bias_ih", "bias_hh")]
        return call_stacked(partial(run_layer, module.mode), inputs, hidden, cell, *weights, *biases)


def run_layer(
    mode: str, inputs: Tensor, hidden: Tensor | None, cell: Tensor | None, *parameters: Tensor | None
) -> Tensor:
    """Return the states (S, T, N, H) of a layer for inputs (S, T, N, I)."""
    S, T, N, _ = inputs.shape
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    assert weight_ih is not None
    assert weight_hh is not None
    H = weight_hh.shape[2]
    columns = inputs.reshape(S, T * N, -1)
    if bias_ih is None:
        gates = torch.bmm(columns, weight_ih.transpose(1, 2))
    else:
        gates = torch.baddbmm(bias_ih.unsqueeze(1), columns, weight_ih.transpose(1, 2))
    gates = gates.view(S, T, N, -1)  # (S, T, N, G * H)
    zeros = inputs.new_zeros(S, N, H)
    hidden, cell = (zeros if state is None else state for state in (hidden, cell))
    bias = inputs.new_zeros(S, weight_hh.shape[1]) if bias_hh is None else bias_hh
    function = {"GRU": _GRU, "LSTM": _LSTM}.get(mode, _RNN)
    extra = mode == "RNN_RELU" if function is _RNN else cell
    states: Tensor = function.apply(gates, hidden, extra, weight_hh, bias)
    return states


def _weight_gradients(grad_gates: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weight (S, GH, H) and bias (S, GH) of the states.

    `grad_gates` has shape (S, T, N, GH), the `previous` states (S, T, N, H).
    """
    rows = grad_gates.flatten(1, 2)
    return torch.bmm(rows.transpose(1, 2), previous.flatten(1, 2)), rows.sum(1)


class _GRU(torch.autograd.Function):
    """Sequence of GRU cells, given the products of the inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        S, T, N, _ = x.shape
        H = weight.shape[2]
        transposed, bias = weight.transpose(1, 2), bias.unsqueeze(1)
        states, gates, recurrent = (x.new_empty(S, T, N, size) for size in (H, 3 * H, H))
        h = hidden
        for t in range(T):
            from_state = torch.baddbmm(bias, h, transposed)  # (S, N, 3H)
            gate = gates[:, t]
            torch.add(x[:, t, :, : 2 * H], from_state[..., : 2 * H], out=gate[..., : 2 * H]).sigmoid_()
            reset, update, new = gate.split(H, dim=2)
            recurrent[:, t] = from_state[..., 2 * H :]
            torch.addcmul(x[:, t, :, 2 * H :], reset, recurrent[:, t], out=new).tanh_()
            h = torch.lerp(new, h, update, out=states[:, t])
        ctx.save_for_backward(hidden, weight, states, gates, recurrent)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_states,) = grads
        hidden, weight, states, gates, recurrent = ctx.saved_tensors
        H = weight.shape[2]
        previous = torch.cat([hidden.unsqueeze(1), states[:, :-1]], dim=1)  # (S, T, N, H)
        reset, update, new = gates.split(H, dim=3)
        # factors of the gradients, for all time steps at once
        of_update = (previous - new) * update * (1 - update)
        of_new = (1 - update) * (1 - new * new)
        of_reset = recurrent * reset * (1 - reset)
        from_input, from_state = torch.empty_like(gates), torch.empty_like(gates)
        grad = torch.zeros_like(hidden)
        for t in range(states.shape[1] - 1, -1, -1):
            grad = grad + grad_states[:, t]
            into = from_state[:, t]
            grad_new = torch.mul(grad, of_new[:, t], out=from_input[:, t, :, 2 * H :])
            torch.mul(grad_new, of_reset[:, t], out=into[..., :H])
            torch.mul(grad, of_update[:, t], out=into[..., H : 2 * H])
            torch.mul(grad_new, reset[:, t], out=into[..., 2 * H :])
            grad = torch.baddbmm(grad * update[:, t], into, weight)
        from_input[..., : 2 * H] = from_state[..., : 2 * H]
        grad_weight, grad_bias = _weight_gradients(from_state, previous)
        return from_input, grad, None, grad_weight, grad_bias


class _LSTM(torch.autograd.Function):
    """Sequence of LSTM cells, given the products of the inputs; returns hidden and cell states."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        S, T, N, _ = x.shape
        H = weight.shape[2]
        transposed, bias = weight.transpose(1, 2), bias.unsqueeze(1)
        states, gates, tanhs = (x.new_empty(S, T, N, size) for size in (2 * H, 4 * H, H))
        h, c = hidden, cell
        for t in range(T):
            gate = torch.baddbmm(bias, h, transposed).add_(x[:, t])  # (S, N, 4H): input, forget, new, output
            gate[..., : 2 * H].sigmoid_()
            gate[..., 2 * H : 3 * H].tanh_()
            gate[..., 3 * H :].sigmoid_()
            gates[:, t] = gate
            enter, forget, new, out = gate.split(H, dim=2)
            c = torch.addcmul(forget * c, enter, new, out=states[:, t, :, H:])
            torch.tanh(c, out=tanhs[:, t])
            h = torch.mul(out, tanhs[:, t], out=states[:, t, :, :H])
        ctx.save_for_backward(hidden, cell, weight, states, gates, tanhs)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_states,) = grads
        hidden, cell, weight, states, gates, tanhs = ctx.saved_tensors
        H = weight.shape[2]
        previous = torch.cat([hidden.unsqueeze(1), states[:, :-1, :, :H]], dim=1)
        previous_cells = torch.cat([cell.unsqueeze(1), states[:, :-1, :, H:]], dim=1)
        enter, forget, new, out = gates.split(H, dim=3)
        # factors of the gradients, for all time steps at once
        of_enter, of_forget = new * enter * (1 - enter), previous_cells * forget * (1 - forget)
        of_new, of_out = enter * (1 - new * new), tanhs * out * (1 - out)
        of_tanh = out * (1 - tanhs * tanhs)
        grad_gates = torch.empty_like(gates)
        grad_h, grad_c = torch.zeros_like(hidden), torch.zeros_like(hidden)
        for t in range(states.shape[1] - 1, -1, -1):
            grad_h = grad_h + grad_states[:, t, :, :H]
            grad_c = torch.addcmul(grad_c + grad_states[:, t, :, H:], grad_h, of_tanh[:, t])
            into = grad_gates[:, t]
            torch.mul(grad_c, of_enter[:, t], out=into[..., :H])
            torch.mul(grad_c, of_forget[:, t], out=into[..., H : 2 * H])
            torch.mul(grad_c, of_new[:, t], out=into[..., 2 * H : 3 * H])
            torch.mul(grad_h, of_out[:, t], out=into[..., 3 * H :])
            grad_h, grad_c = torch.bmm(into, weight), grad_c * forget[:, t]
        grad_weight, grad_bias = _weight_gradients(grad_gates, previous)
        return grad_gates, grad_h, grad_c, grad_weight, grad_bias


class _RNN(torch.autograd.Function):
    """Sequence of simple cells, given the products of the inputs, with tanh or ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor, relu: bool, weight: Tensor, bias: Tensor) -> Tensor:
        states, h, activation = torch.empty_like(x), hidden, torch.relu_ if relu else torch.tanh_
        for t in range(x.shape[1]):
            h = activation(torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2)).add_(x[:, t]))
            states[:, t] = h
        ctx.save_for_backward(hidden, weight, states)
        ctx.relu = relu
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_states,) = grads
        hidden, weight, states = ctx.saved_tensors
        previous = torch.cat([hidden.unsqueeze(1), states[:, :-1]], dim=1)
        factors = (states > 0).to(states.dtype) if ctx.relu else 1 - states * states
        grad_gates, grad = torch.empty_like(states), torch.zeros_like(hidden)
        for t in range(states.shape[1] - 1, -1, -1):
            torch.mul(grad + grad_states[:, t], factors[:, t], out=grad_gates[:, t])
            grad = torch.bmm(grad_gates[:, t], weight)
        grad_weight, grad_bias = _weight_gradients(grad_gates, previous)
        return grad_gates, grad, None, grad_weight, grad_bias
