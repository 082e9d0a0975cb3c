"""The MLP of bench/launches.py with Adam in JAX: `vmap` over runs and `jit` of a scan over steps."""

from __future__ import annotations

import os
import time
from typing import Any

SCANNED_STEPS = 20
"""Steps in one call of the compiled function, an epoch of the digits."""


def measure_jax_mlp(runs: int, batch_size: int, seconds: float, *, backend: str) -> tuple[float, float]:
    """Return run-steps per second, and the seconds of the first call, which compiles.

    Raises:
        RuntimeError: JAX has another backend.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    import jax.numpy as jnp

    if jax.default_backend() != backend:
        raise RuntimeError(f"jax has no {backend} here, only {jax.default_backend()}")
    sizes = ((64, 128), (128, 64), (64, 10))
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        (jax.random.normal(key, (runs, i, o)) / i**0.5, jnp.zeros((runs, o)))
        for key, (i, o) in zip(keys, sizes, strict=True)
    ]
    state: Any = (weights, *(jax.tree.map(jnp.zeros_like, weights) for _ in range(2)), jnp.zeros(runs))
    inputs = jax.random.uniform(jax.random.key(1), (runs, SCANNED_STEPS, batch_size, 64))
    targets = jax.random.randint(jax.random.key(2), (runs, SCANNED_STEPS, batch_size), 0, 10)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for index, (w, b) in enumerate(weights):
            x = x @ w + b
            x = jax.nn.relu(x) if index < len(weights) - 1 else x
        return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1).mean()

    def step(state: Any, batch: Any) -> Any:
        w, m, v, t = state
        value, g = jax.value_and_grad(loss)(w, *batch)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)

        def update(w: Any, m: Any, v: Any) -> Any:
            return w - 1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

        return (jax.tree.map(update, w, m, v), m, v, t), value

    def train(state: Any, inputs: Any, targets: Any) -> Any:
        return jax.lax.scan(step, state, (inputs, targets))

    began = time.perf_counter()
    compiled = jax.jit(jax.vmap(train), donate_argnums=0)
    state, losses = compiled(state, inputs, targets)
    losses.block_until_ready()
    compile_seconds = time.perf_counter() - began
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        state, losses = compiled(state, inputs, targets)
        losses.block_until_ready()
        steps += SCANNED_STEPS
    return runs * steps / (time.perf_counter() - began), compile_seconds
