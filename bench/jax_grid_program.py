"""The runs of an MLP grid in JAX: `jit` of `vmap` over runs of a `scan` over epochs and batches.

Started by bench/jax_grid.py in an environment with JAX and numpy alone. Compiles the training of each group of runs,
prints `{"compile_seconds": ...}`, and trains all groups once for each line on stdin, always from the initial weights,
printing their losses and accuracies as one line of JSON.

    python jax_grid_program.py FOLDER GROUP...      groups are files FOLDER/GROUP.npz; FOLDER/data.npz has the samples
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5
"""Constant of batch normalization, as in torch."""


def forward(weights: Any, statistics: Any, x: Any, masks: Any, *, train: bool) -> tuple[Any, Any]:
    """Return scores (N, C) and the new running statistics of batch normalization, for inputs (N, D).

    `masks` are the scaled dropout masks of the hidden layers, (N, width) each, or None.
    """
    moved = []
    for index, layer in enumerate(weights):
        x = x @ layer["weight"]
        if "bias" in layer:
            x = x + layer["bias"]
        if index == len(weights) - 1:
            break
        if "scale" in layer:
            x, new = normalize(x, layer, statistics[index], train=train)
            moved.append(new)
        x = jax.nn.relu(x)
        if train and masks is not None:
            x = x * masks[index]
    return x, moved


def normalize(x: Any, layer: Any, running: Any, *, train: bool) -> tuple[Any, Any]:
    """Return batch-normalized x (N, D) and the running (mean, variance), (D,) each."""
    mean, variance = running
    if train:
        count = x.shape[0]
        batch_mean, batch_variance = x.mean(axis=0), x.var(axis=0)
        unbiased = batch_variance * (count / (count - 1))
        running = (0.9 * mean + 0.1 * batch_mean, 0.9 * variance + 0.1 * unbiased)
        mean, variance = batch_mean, batch_variance
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * layer["scale"] + layer["shift"], running


def cross_entropies(scores: Any, y: Any) -> Any:
    """Return the cross-entropy of each sample, (N,), for scores (N, C) and classes (N,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1)[:, 0]


def draw_masks(key: Any, weights: Any, count: int, dropout: float) -> Any:
    """Return the scaled dropout masks of the hidden layers, (count, width) each."""
    keys = jax.random.split(key, len(weights) - 1)
    shapes = [(count, layer["weight"].shape[1]) for layer in weights[:-1]]
    return [
        jax.random.bernoulli(key, 1 - dropout, shape) / (1 - dropout) for key, shape in zip(keys, shapes, strict=True)
    ]


def make_training(group: Any, data: Any) -> Any:
    """Return the function of one run that trains it: (weights, settings, order, key) -> (losses, accuracies).

    Losses are (epochs, batches), accuracies of the validation data (epochs,).
    """
    inputs, targets, val_inputs, val_targets = data
    batch_size, dropout, is_adam = int(group["batch_size"]), float(group["dropout"]), bool(group["is_adam"])

    def step(state: Any, indices: Any, settings: Any) -> Any:
        weights, statistics, moments, count, key = state
        masks = None
        if dropout:
            key, drawn = jax.random.split(key)
            masks = draw_masks(drawn, weights, indices.shape[0], dropout)
        x, y = inputs[indices], targets[indices]

        def mean_loss(weights: Any) -> Any:
            scores, moved = forward(weights, statistics, x, masks, train=True)
            return cross_entropies(scores, y).mean(), (moved, (scores.argmax(axis=1) == y).mean())

        (loss, (statistics, accuracy)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(weights)
        count = count + 1
        weights, moments = update(weights, gradients, moments, count, settings)
        return (weights, statistics, moments, count, key), (loss, accuracy)

    def update(weights: Any, gradients: Any, moments: Any, count: Any, settings: Any) -> Any:
        first, second = moments
        lr, momentum = settings["lr"], settings["momentum"]
        if not is_adam:
            first = jax.tree.map(lambda m, g: momentum * m + g, first, gradients)
            return jax.tree.map(lambda w, m: w - lr * m, weights, first), (first, second)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate, scale = lr / (1 - 0.9**count), 1 / (1 - 0.999**count)
        moved = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v * scale) + 1e-8), weights, first, second)
        return moved, (first, second)

    def train(weights: Any, settings: Any, order: Any, key: Any) -> Any:
        def epoch(state: Any, indices: Any) -> Any:
            whole = indices.shape[0] // batch_size * batch_size
            batches = indices[:whole].reshape(-1, batch_size)
            state, (losses, accuracies) = jax.lax.scan(lambda s, batch: step(s, batch, settings), state, batches)
            if whole < indices.shape[0]:
                state, (loss, accuracy) = step(state, indices[whole:], settings)
                losses, accuracies = jnp.append(losses, loss), jnp.append(accuracies, accuracy)
            scores, _ = forward(state[0], state[1], val_inputs, None, train=False)
            correct = (scores.argmax(axis=1) == val_targets).mean()
            return state, (losses, accuracies.mean(), cross_entropies(scores, val_targets).mean(), correct)

        statistics = [
            (jnp.zeros_like(layer["scale"]), jnp.ones_like(layer["scale"])) for layer in weights if "scale" in layer
        ]
        zeros = jax.tree.map(jnp.zeros_like, weights)
        state = (weights, statistics, (zeros, zeros if is_adam else None), jnp.zeros(()), key)
        _, (losses, train_accuracies, val_losses, accuracies) = jax.lax.scan(epoch, state, order)
        return losses, train_accuracies, val_losses, accuracies

    return train


def read_group(path: Path) -> dict[str, Any]:
    """Read a group of runs; arrays named `0.weight` become the layers of the weights, with the runs first."""
    arrays = dict(np.load(path))
    layers: list[dict[str, Any]] = []
    for name in sorted(name for name in arrays if name[0].isdigit()):
        number, _, part = name.partition(".")
        while len(layers) <= int(number):
            layers.append({})
        layers[int(number)][part] = jnp.asarray(arrays.pop(name))
    return arrays | {"weights": layers}


def compile_group(group: dict[str, Any], data: Any) -> Any:
    """Compile the training of a group; return a function without arguments that trains it."""
    seeds = group["seeds"]
    settings = {name: jnp.asarray(group[name]) for name in ("lr", "momentum")}
    arguments = (group["weights"], settings, jnp.asarray(group["order"]), jax.vmap(jax.random.key)(seeds))
    compiled = jax.jit(jax.vmap(make_training(group, data))).lower(*arguments).compile()
    return lambda: compiled(*arguments)


def main() -> None:
    folder, *names = map(Path, sys.argv[1:])
    samples = np.load(folder / "data.npz")
    data = [jnp.asarray(samples[name]) for name in ("inputs", "targets", "val_inputs", "val_targets")]
    groups = [read_group(folder / f"{name}.npz") for name in names]
    start = time.perf_counter()
    trainings = [compile_group(group, data) for group in groups]
    print(json.dumps({"compile_seconds": time.perf_counter() - start}), flush=True)
    for _ in sys.stdin:
        results = [training() for training in trainings]
        report = {
            str(name): {"losses": np.asarray(losses).tolist(), "accuracies": np.asarray(accuracies[:, -1]).tolist()}
            for name, (losses, _, _, accuracies) in zip(names, results, strict=True)
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
