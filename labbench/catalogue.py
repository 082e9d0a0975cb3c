"""The built-in tasks by name: the parameters of each, and the version of its results.

Kept free of torch so that a grid is checked, hashed and queued without waiting for it.
"""

from __future__ import annotations

from labbench.params import Param

BUILTIN: dict[str, dict[str, Param]] = {
    "digits": {
        "model": Param("str", "mlp", "network", choices=("mlp", "cnn")),
        "hidden": Param("ints", [128, 64], "widths of the hidden layers (mlp)", low=1),
        "channels": Param("ints", [8, 16], "channels of the convolutions (cnn)", low=1),
        "kernel": Param("int", 3, "side of the convolution kernels (cnn)", low=1, high=8),
        "pooling": Param("str", "max", "2x2 pooling after each convolution (cnn)", choices=("max", "avg", "none")),
        "activation": Param("str", "relu", "activation function", choices=("relu", "gelu", "tanh", "sigmoid")),
        "dropout": Param("float", 0.0, "probability of dropping a unit", low=0.0, below=1.0, per_run=True),
        "batchnorm": Param("bool", False, "batch normalisation before each activation"),
    },
}
"""Parameters of the built-in tasks, by task."""

TASK_VERSIONS: dict[str, int] = {"digits": 1}
"""Part of a run's identity: raised when the task's results change."""
