"""Attention with seeded dropout equals torch's without dropout; runs of a stack equal single runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from labbench.train.engine.dropout import swap_dropout
from labbench.train.engine.schedules import StepCounter

N, L, K, E, HEADS = 3, 5, 4, 8, 2

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "batch_first": ({"batch_first": True}, {"need_weights": False}),
    "other dimensions": ({"kdim": 6, "vdim": 7, "batch_first": True}, {"average_attn_weights": False}),
    "no bias": ({"bias": False, "batch_first": True}, {}),
    "padding": ({"batch_first": True}, {"key_padding_mask": torch.arange(K) >= torch.tensor([[4], [2], [1]])}),
    "mask": ({"batch_first": True}, {"attn_mask": torch.ones(L, K).triu(1).bool()}),
    "float mask": ({"batch_first": True}, {"attn_mask": torch.linspace(-1, 1, N * HEADS * L * K).view(-1, L, K)}),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_equals_torch(name: str) -> None:
    settings, arguments = CASES[name]
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS, **settings).double()
    ours = copy.deepcopy(layer)
    swap_dropout(ours, 0, StepCounter())
    shapes = [(N, L, E), (N, K, settings.get("kdim", E)), (N, K, settings.get("vdim", E))]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    arranged = inputs if settings.get("batch_first") else [x.transpose(0, 1) for x in inputs]
    arguments = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in arguments.items()}
    results, expected = ours(*arranged, **arguments), layer(*arranged, **arguments)
    assert (results[1] is None) == (expected[1] is None)
    for result, reference in zip(results, expected, strict=True):
        if reference is not None:
            torch.testing.assert_close(result, reference, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(results[0].square().sum(), [*inputs, *ours.parameters()])
    references = torch.autograd.grad(expected[0].square().sum(), [*inputs, *layer.parameters()])
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)


def test_the_dropped_share_is_p_and_a_mask_depends_on_seed_and_step_alone() -> None:
    layer = nn.MultiheadAttention(E, HEADS, dropout=0.25, batch_first=True)
    counter = StepCounter()
    first, second = copy.deepcopy(layer), copy.deepcopy(layer)
    for ours in (first, second):
        swap_dropout(ours, 7, counter)
    x = torch.randn(64, 16, E)
    _, weights = first(x, x, x, average_attn_weights=False)
    torch.rand(3)
    assert torch.equal(second(x, x, x, average_attn_weights=False)[1], weights)
    assert (weights == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    counter.step += 1
    assert not torch.equal(first(x, x, x, average_attn_weights=False)[1], weights)
    assert (first.eval()(x, x, x)[1] > 0).all()
