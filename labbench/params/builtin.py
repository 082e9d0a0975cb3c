"""Built-in tasks by name: their parameters, and the versions of their results.

Does not import torch, so that grids are checked, hashed and queued without waiting for it.
"""

from __future__ import annotations

from labbench.params.layers import ACTIVATION_NAMES, Shape, check_words
from labbench.params.param import Param, Params
from labbench.records import Config

CORRUPTION: dict[str, Param] = {
    "train_size": Param("int", None, "number of training samples, classes in proportion; default: all", low=1),
    "classes": Param("ints", None, "classes to distinguish, renumbered in this order; default: all", low=0),
    "label_noise": Param("float", 0.0, "fraction of the training labels replaced by another class", low=0.0, high=1.0),
    "random_labels": Param(
        "bool", False, "shuffle the training labels among the samples, so that nothing can be learned"
    ),
    "input_noise": Param("float", 0.0, "standard deviation of noise added to the inputs of all splits", low=0.0),
    "input_sparsity": Param("float", 0.0, "fraction of the inputs set to zero, in all splits", low=0.0, below=1.0),
}
"""Parameters that change the data of a classification task."""

DENSE: dict[str, Param] = {
    "hidden": Param("ints", [128, 64], "widths of the hidden layers (mlp)", low=1),
    "activation": Param("str", "relu", "activation function", choices=ACTIVATION_NAMES),
    "dropout": Param("float", 0.0, "dropout probability", low=0.0, below=1.0, per_run=True),
    "batchnorm": Param("bool", False, "batch normalization before each activation"),
    "layers": Param(
        "strs",
        None,
        'network layer by layer, instead of `model`: ["linear 32", "relu", "linear 10"]',
        check=check_words,
    ),
}
"""Parameters of fully connected networks and of networks given as a list of layers."""

INIT_FROM = Param(
    "str",
    None,
    "initial weights: a .safetensors or .pt file, or run:KEY, a run of this database that kept its model",
    per_run=True,
)
INITIAL_WEIGHTS: dict[str, Param] = {
    "init_from": INIT_FROM,
    "freeze": Param("bool", False, "train only the last layer; the others keep their initial weights"),
}
"""Parameters of the initial weights and of freezing layers."""

IMAGES: dict[str, Param] = {
    "model": Param("str", "mlp", "network", choices=("mlp", "cnn")),
    "hidden": DENSE["hidden"],
    "channels": Param("ints", [8, 16], "channels of the convolutions (cnn)", low=1),
    "kernel": Param("int", 3, "side length of the convolution kernels (cnn)", low=1, high=8),
    "pooling": Param("str", "max", "2x2 pooling after each convolution (cnn)", choices=("max", "avg", "none")),
    **DENSE,
    **INITIAL_WEIGHTS,
    **CORRUPTION,
}
"""Parameters of tasks with images: network, initial weights and changes of the data."""

IMAGE_SHAPES: dict[str, Shape] = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}
"""Shape of one image, (channels, height, width), by task."""

TOYS: dict[str, tuple[int, int]] = {
    "moons": (2, 2),
    "spirals": (2, 2),
    "xor": (2, 2),
    "and": (2, 2),
    "separable": (11, 2),
    "flowers": (4, 3),
}
"""Number of inputs and of classes of each data set of the task `toy`."""

LABELS = {key: CORRUPTION[key] for key in ("train_size", "label_noise", "random_labels")}

PRETRAINED: dict[str, Param] = {
    "hidden": Param("ints", [64, 64], DENSE["hidden"].help, low=1),
    "activation": DENSE["activation"],
    "source_classes": Param("ints", [0, 1, 2, 3, 4], "digits of the pre-training", low=0),
    "classes": Param("ints", [5, 6, 7, 8, 9], "digits to distinguish afterwards", low=0),
    "pretrain_epochs": Param("int", 20, "epochs of the pre-training, by Adam; 0: random weights", low=0),
    "pretrain_lr": Param("float", 0.003, "learning rate of the pre-training", low=0.0),
    **LABELS,
}
"""Parameters of a network that is pre-trained on some of the digits before the run."""

BUILTIN: dict[str, dict[str, Param]] = {
    **dict.fromkeys(IMAGE_SHAPES, IMAGES),
    "transfer": {
        "start": Param(
            "str",
            "finetuned",
            "from scratch; pre-trained, training all layers; or pre-trained, training only the last",
            choices=("scratch", "finetuned", "frozen"),
        ),
        "model": IMAGES["model"],
        "channels": IMAGES["channels"],
        "init_from": INIT_FROM,
        **PRETRAINED,
    },
    "probe": {
        "layer": Param("int", 1, "hidden layer whose outputs a linear classifier gets; 0: the pixels", low=0),
        **PRETRAINED,
    },
    "own": {
        "path": Param("str", "", ".csv or .npz file, or a folder with one folder of images per class"),
        "target": Param("str", None, "column of a table to predict; default: the last"),
        "standardize_target": Param(
            "bool", False, "train on targets of mean 0 and deviation 1 (numbers); metrics stay in the units of the data"
        ),
        **IMAGES,
    },
    "toy": {
        "data": Param("str", "moons", "data set", choices=tuple(TOYS)),
        "noise": Param("float", None, "standard deviation of input noise; default: by data set", low=0.0),
        "model": Param(
            "str", "mlp", "network, or a single unit with the perceptron rule", choices=("mlp", "perceptron")
        ),
        **DENSE,
        "hidden": Param("ints", [16, 16], DENSE["hidden"].help, low=1),
        **LABELS,
    },
    "texts": {
        "length": Param("int", 20, "number of words per text", low=1, high=1000),
        "rarity": Param(
            "float", 1.0, "exponent of word frequencies: the n-th word has frequency n ** -rarity", low=0.0
        ),
        "width": Param("int", 16, "size of a word's embedding", low=1),
        **{key: param for key, param in DENSE.items() if key != "layers"},
        "hidden": Param("ints", [], "widths of the hidden layers after the mean of the embeddings", low=1),
        **LABELS,
    },
}
"""Parameters of the built-in tasks, by task."""


def takes_weights(params: Params) -> bool:
    """Return True if `init_from` of a task is the built-in parameter of that name."""
    return params.get("init_from") == INIT_FROM


def sample_and_classes(task: str, config: Config) -> tuple[Shape, int] | None:
    """Return the shape of a sample and the number of classes.

    The task must be one that takes `layers`.

    Returns None if shape and classes are known only from the data.
    """
    if task in IMAGE_SHAPES:
        classes = config["classes"]
        return IMAGE_SHAPES[task], 10 if classes is None else len(classes)
    if task == "toy":
        n_inputs, n_classes = TOYS[config["data"]]
        return (n_inputs,), n_classes
    return None


EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "gap/accuracy")
"""Metrics that every built-in task measures at the end of each epoch, except `own` if its targets are numbers."""

TASK_VERSIONS: dict[str, int] = dict.fromkeys(BUILTIN, 1)
"""Version of each task's results, part of a run's identity; increased when the results change."""
