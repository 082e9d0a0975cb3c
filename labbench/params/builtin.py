"""The built-in tasks by name: the parameters of each, and the version of its results.

Kept free of torch so that a grid is checked, hashed and queued without waiting for it.
"""

from __future__ import annotations

from labbench.params.layers import ACTIVATION_NAMES, Shape, check_words
from labbench.params.param import Param, Params
from labbench.records import Config

CORRUPTION: dict[str, Param] = {
    "train_size": Param("int", None, "samples to train on, classes in proportion; all if not given", low=1),
    "classes": Param("ints", None, "the classes to tell apart, numbered anew in this order; all if not given", low=0),
    "label_noise": Param("float", 0.0, "share of the training labels replaced by another class", low=0.0, high=1.0),
    "random_labels": Param("bool", False, "training labels shuffled among the samples: nothing is left to learn"),
    "input_noise": Param("float", 0.0, "standard deviation of noise added to the inputs of all splits", low=0.0),
    "input_sparsity": Param("float", 0.0, "share of the inputs set to zero, in all splits", low=0.0, below=1.0),
}
"""What may be done to the data of a task with classes."""

DENSE: dict[str, Param] = {
    "hidden": Param("ints", [128, 64], "widths of the hidden layers (mlp)", low=1),
    "activation": Param("str", "relu", "activation function", choices=ACTIVATION_NAMES),
    "dropout": Param("float", 0.0, "probability of dropping a unit", low=0.0, below=1.0, per_run=True),
    "batchnorm": Param("bool", False, "batch normalisation before each activation"),
    "layers": Param(
        "strs",
        None,
        'the network layer by layer, instead of `model`: ["linear 32", "relu", "linear 10"]',
        check=check_words,
    ),
}
"""Networks of fully connected layers, or of a list of layers."""

INIT_FROM = Param(
    "str",
    None,
    "weights to begin with: a .safetensors or .pt file, or run:KEY, a run of this database that kept its model",
    per_run=True,
)
INITIAL_WEIGHTS: dict[str, Param] = {
    "init_from": INIT_FROM,
    "freeze": Param("bool", False, "only the last layer learns; all before it stays as it began"),
}
"""Where a network's weights come from, and which of them learn."""

IMAGES: dict[str, Param] = {
    "model": Param("str", "mlp", "network", choices=("mlp", "cnn")),
    "hidden": DENSE["hidden"],
    "channels": Param("ints", [8, 16], "channels of the convolutions (cnn)", low=1),
    "kernel": Param("int", 3, "side of the convolution kernels (cnn)", low=1, high=8),
    "pooling": Param("str", "max", "2x2 pooling after each convolution (cnn)", choices=("max", "avg", "none")),
    **DENSE,
    **INITIAL_WEIGHTS,
    **CORRUPTION,
}
"""Networks for images, where they begin, and what may be done to these."""

IMAGE_SHAPES: dict[str, Shape] = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}
"""Of one image: (channels, height, width)."""

TOYS: dict[str, tuple[int, int]] = {
    "moons": (2, 2),
    "spirals": (2, 2),
    "xor": (2, 2),
    "and": (2, 2),
    "separable": (11, 2),
    "flowers": (4, 3),
}
"""Inputs and classes of each data set of the task `toy`."""

LABELS = {key: CORRUPTION[key] for key in ("train_size", "label_noise", "random_labels")}

PRETRAINED: dict[str, Param] = {
    "hidden": Param("ints", [64, 64], DENSE["hidden"].help, low=1),
    "activation": DENSE["activation"],
    "source_classes": Param("ints", [0, 1, 2, 3, 4], "the digits to learn before", low=0),
    "classes": Param("ints", [5, 6, 7, 8, 9], "the digits to tell apart afterwards", low=0),
    "pretrain_epochs": Param("int", 20, "epochs of learning before, by Adam; 0: weights as they are drawn", low=0),
    "pretrain_lr": Param("float", 0.003, "learning rate of that", low=0.0),
    **LABELS,
}
"""A network that has learnt some of the digits before the run begins."""

BUILTIN: dict[str, dict[str, Param]] = {
    **dict.fromkeys(IMAGE_SHAPES, IMAGES),
    "transfer": {
        "start": Param(
            "str",
            "finetuned",
            "from scratch; pre-trained, all layers learning; or pre-trained, only the last one learning",
            choices=("scratch", "finetuned", "frozen"),
        ),
        "model": IMAGES["model"],
        "channels": IMAGES["channels"],
        "init_from": INIT_FROM,
        **PRETRAINED,
    },
    "probe": {
        "layer": Param("int", 1, "hidden layer whose values a linear classifier gets; 0: the pixels", low=0),
        **PRETRAINED,
    },
    "own": {
        "path": Param("str", "", "a .csv or .npz file, or a folder with a folder of images for each class"),
        "target": Param("str", None, "the column of a table to tell from the others; the last one if not given"),
        **IMAGES,
    },
    "toy": {
        "data": Param("str", "moons", "data set", choices=tuple(TOYS)),
        "noise": Param("float", None, "deviation of noise on the inputs; what suits the data if not given", low=0.0),
        "model": Param("str", "mlp", "network, or a single unit with its own rule", choices=("mlp", "perceptron")),
        **DENSE,
        "hidden": Param("ints", [16, 16], DENSE["hidden"].help, low=1),
        **LABELS,
    },
    "texts": {
        "length": Param("int", 20, "words of a text", low=1, high=1000),
        "rarity": Param("float", 1.0, "how fast words get rarer: the n-th comes as often as n ** -rarity", low=0.0),
        "width": Param("int", 16, "numbers that stand for a word (the embedding)", low=1),
        **{key: param for key, param in DENSE.items() if key != "layers"},
        "hidden": Param("ints", [], "widths of the hidden layers behind the mean of the words", low=1),
        **LABELS,
    },
}
"""Parameters of the built-in tasks, by task."""


def takes_weights(params: Params) -> bool:
    """Whether a task's `init_from` means what it does for the built-in ones."""
    return params.get("init_from") == INIT_FROM


def sample_and_classes(task: str, config: Config) -> tuple[Shape, int] | None:
    """The shape of a sample and how many classes there are, for a config of a task that takes `layers`.

    None where only the data can tell.
    """
    if task in IMAGE_SHAPES:
        kept = config["classes"]
        return IMAGE_SHAPES[task], 10 if kept is None else len(kept)
    if task == "toy":
        inputs, classes = TOYS[config["data"]]
        return (inputs,), classes
    return None


EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "gap/accuracy")
"""What every built-in task measures at each epoch's end, but for `own`, whose targets may be numbers."""

TASK_VERSIONS: dict[str, int] = dict.fromkeys(BUILTIN, 1)
"""Part of a run's identity: raised when the task's results change."""
