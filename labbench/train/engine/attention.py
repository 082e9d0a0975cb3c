"""Multi-head attention (Vaswani et al., 2017) with seeded dropout, for one run or a stack.

torch's layer drops attention weights with a generator, so that its masks depend on everything drawn before. Here the
layer of torch gets another forward, with the same parameters, arguments and results.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from labbench.train.engine.vmap_calls import call_stacked

Dropout = TypeVar("Dropout", bound=nn.Module)


def find_attentions(model: nn.Module) -> list[nn.MultiheadAttention]:
    """Return the attention layers whose dropout can be seeded."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn
    ]


def seed_attention(module: nn.MultiheadAttention, dropout: Dropout) -> Dropout:
    """Make an attention layer drop its weights with this layer, which gets all runs at once, and return it."""
    module.seeded_dropout = dropout  # a child, so that it follows the mode of the model
    module.forward = partial(attend, module)  # type: ignore[method-assign]
    return dropout


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return outputs and attention weights as `nn.MultiheadAttention` does.

    Inputs have shape (N, L, E) with `batch_first`, else (L, N, E), or (L, E).
    """
    unbatched = query.dim() == 2
    if unbatched:
        query, key, value = (each.unsqueeze(0) for each in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    elif not module.batch_first:
        query, key, value = (each.transpose(0, 1) for each in (query, key, value))
    bias = _attention_bias(key_padding_mask, attn_mask, query, module.num_heads)
    tensors = (query, key, value, bias, *_input_projections(module), module.out_proj.weight, module.out_proj.bias)
    function = partial(_attend_stacked, module.num_heads, module.seeded_dropout, need_weights)
    packed = call_stacked(function, *tensors)
    size = query.shape[1] * query.shape[2]
    outputs = packed[:, :size].unflatten(1, query.shape[1:])  # (N, L, E)
    if unbatched:
        outputs = outputs.squeeze(0)
    elif not module.batch_first:
        outputs = outputs.transpose(0, 1)
    if not need_weights:
        return outputs, None
    attention = packed[:, size:].unflatten(1, (module.num_heads, query.shape[1], key.shape[1]))  # (N, h, L, K)
    attention = attention.mean(1) if average_attn_weights else attention
    return outputs, attention.squeeze(0) if unbatched else attention


def _input_projections(module: Any) -> tuple[Tensor | None, ...]:
    """Return the weights, then the biases of query, key and value."""
    if module._qkv_same_embed_dim:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    biases = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return *weights, *biases


def _attention_bias(padding: Tensor | None, mask: Tensor | None, query: Tensor, heads: int) -> Tensor | None:
    """Return what is added to the scores, shape (N or 1, heads or 1, L or 1, K); masks are bool or float."""
    bias = None
    if padding is not None:
        bias = _as_bias(padding, query)[:, None, None]  # (N, 1, 1, K)
    if mask is not None:
        scores = _as_bias(mask, query)
        scores = scores[None, None] if scores.dim() == 2 else scores.unflatten(0, (-1, heads))
        bias = scores if bias is None else bias + scores
    return bias


def _as_bias(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _attend_stacked(
    heads: int,
    dropout: nn.Module,
    need_weights: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *parameters: Any,
) -> Tensor:
    """Return the outputs of S runs, (S, N, L * E), followed by the attention weights (S, N, heads * L * K) if needed.

    Inputs have shape (S, N, L, E).
    """
    *projections, out_weight, out_bias = parameters
    weights, biases = projections[:3], projections[3:]
    S, N, L, _ = query.shape
    projected = [
        _project(x, weight, b).unflatten(3, (heads, -1)).transpose(2, 3).reshape(S * N * heads, x.shape[2], -1)
        for x, weight, b in zip((query, key, value), weights, biases, strict=True)
    ]  # (S * N * heads, L or K, E / heads)
    q, k, v = projected
    scores = torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2)).view(S, N, heads, L, -1)
    if bias is not None:
        scores = scores + bias
    attention = dropout(scores.softmax(dim=-1))  # (S, N, heads, L, K)
    mixed = torch.bmm(attention.view(S * N * heads, L, -1), v).view(S, N, heads, L, -1)
    outputs = _project(mixed.transpose(2, 3).flatten(3), out_weight, out_bias)  # (S, N, L, E)
    return torch.cat([outputs.flatten(2), attention.flatten(2)], dim=2) if need_weights else outputs.flatten(2)


def _project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer of S runs to x (S, N, L, I)."""
    rows, columns = x.flatten(1, 2), weight.transpose(1, 2)
    y = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, columns)
    outputs: Tensor = y.unflatten(1, x.shape[1:3])
    return outputs
