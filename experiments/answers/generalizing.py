"""The answers of the experiments on what a network then knows: the gap, features, transfer, sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from answers.study import Experiment, PowerLaw, Study, cell, power_law
from answers.training import pivot
from answers.words import Answer, compared, listed, moved
from labbench.analysis.figures import change, with_interval
from labbench.plot import Curve, draw
from labbench.text import number, setting

INPUTS, CLASSES = 64, 10
"""Of the digits."""


def regularization(experiment: Experiment) -> Answer:
    gap, accuracy = experiment.study("gap/accuracy", at="last"), experiment.study()
    sizes = sorted(experiment.values("train_size"))
    table = [["dropout", "batch norm", *(f"{what}, {size} samples" for size in sizes for what in ("gap", "accuracy"))]]
    for dropout in experiment.values("dropout"):
        for flag in (False, True):
            here = [{"dropout": dropout, "batchnorm": flag, "train_size": size} for size in sizes]
            pairs = [cell(study.mean(study.where(**one))) for one in here for study in (gap, accuracy)]
            table.append([setting(dropout), setting(flag), *pairs])
    most = max(experiment.values("dropout"))
    sentences = []
    for size in sizes:
        told = []
        for study, what in ((gap, "the gap"), (accuracy, "the accuracy in validation")):
            dropped = study.difference(
                study.where(dropout=most, train_size=size), study.where(dropout=0.0, train_size=size)
            )
            normed = study.difference(
                study.where(batchnorm=True, train_size=size), study.where(batchnorm=False, train_size=size)
            )
            told.append(
                f"{what} changes by {change(dropped)} with dropout {most:g} and by {change(normed)} with batch norm"
            )
        sentences.append(f"with {size} samples {listed(told)}")
    plain = {size: gap.where(dropout=0.0, batchnorm=False, train_size=size) for size in sizes}
    growth = moved("the gap of the plain network", gap.difference(plain[sizes[-1]], plain[sizes[0]]))
    sentences.append(f"from {sizes[0]} to {sizes[-1]} samples {growth}")
    sentences.append("accuracy in training is measured while dropout is at work, so that some gaps are below 0")
    return Answer(sentences, table)


def parameters_of(hidden: list[int]) -> int:
    """Weights and biases of a fully connected network for the digits."""
    widths = [INPUTS, *hidden, CLASSES]
    return sum(given * taken + taken for given, taken in pairwise(widths))


def depth(experiment: Experiment) -> Answer:
    study = experiment.study()
    shapes = sorted(experiment.values("hidden"), key=len)
    best = [study.where(hidden=hidden)[0] for hidden in shapes]
    table = [["hidden layers", "widths", "parameters", "best accuracy", "at lr"]]
    for hidden, setup in zip(shapes, best, strict=True):
        found = study.winner(hidden=hidden)
        rate = setting(study.config(setup)["lr"])
        row = [str(len(hidden)), setting(hidden), f"{parameters_of(hidden):,}"]
        table.append([*row, cell(found), rate])
    deep = compared(
        f"a network of {len(shapes[-1])} hidden layers", "one of a single layer", study.difference(best[-1:], best[:1])
    )
    sentences = [f"at about equally many parameters and the best learning rate of each, {deep}"]
    for hidden, setup in zip(shapes[1:-1], best[1:-1], strict=True):
        told = compared(f"one of {len(hidden)}", "one of a single layer", study.difference([setup], best[:1]))
        sentences.append(told)
    return Answer(sentences, table)


def layers(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes = sorted(experiment.values("train_size"))
    shapes = experiment.values("layers")
    table = [["layers", *(f"{size} samples" for size in sizes)]]
    for shape in shapes:
        values = [cell(study.mean(study.where(layers=shape, train_size=size))) for size in sizes]
        table.append([", ".join(shape), *values])
    dense = next(shape for shape in shapes if not any("conv" in layer for layer in shape))
    single = [shape for shape in shapes if sum("conv" in layer for layer in shape) == 1]
    conv = next(shape for shape in single if not any("pool" in layer for layer in shape))
    largest = next(shape for shape in single if "maxpool 2" in shape)
    average = next(shape for shape in single if "avgpool 2" in shape)
    asked = [
        ("convolution and maximum pooling", largest, "the fully connected network", dense),
        ("convolution without pooling", conv, "the fully connected network", dense),
        ("maximum pooling", largest, "average pooling", average),
    ]
    sentences = []
    for first, one, second, other in asked:
        differences = [
            study.difference(*(study.where(layers=s, train_size=size) for s in (one, other))) for size in sizes
        ]
        told = [f"with {n} samples {compared(first, second, d)}" for n, d in zip(sizes, differences, strict=True)]
        sentences.append("; ".join(told))
    return Answer(sentences, table)


def representation(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, numbers = sorted(experiment.values("train_size")), sorted(experiment.values("layer"))
    learnt, drawn = max(experiment.values("pretrain_epochs")), 0
    table = [["features", *(f"{size} samples" for size in sizes)]]
    for layer in numbers:
        for epochs in (drawn, learnt) if layer else (drawn,):
            name = f"layer {layer}, {'learnt' if epochs else 'as drawn'}" if layer else "pixels"
            values = [cell(study.mean(study.where(layer=layer, pretrain_epochs=epochs, train_size=n))) for n in sizes]
            table.append([name, *values])
    sentences = []
    for size in sizes:
        pixels = study.where(layer=0, train_size=size)
        layer = study.where(pretrain_epochs=learnt, train_size=size)
        best = next(setup for setup in layer if study.config(setup)["layer"] > 0)
        which = study.config(best)["layer"]
        beside = study.where(layer=which, pretrain_epochs=drawn, train_size=size)
        told = compared(f"layer {which}, the best that was learnt,", "pixels", study.difference([best], pixels))
        random = compared("it", "the same layer as it was drawn", study.difference([best], beside))
        sentences.append(f"with {size} samples {told}; {random}")
    return Answer(sentences, table)


def generalization(experiment: Experiment) -> Answer:
    metrics = {"train/accuracy": experiment.study("train/accuracy"), "val/accuracy": experiment.study()}
    widest = max(experiment.values("hidden"), key=max)
    kinds: dict[str, dict[str, Any]] = {
        "true labels": {"label_noise": 0.0, "random_labels": False},
        **{f"{share:.0%} wrong": {"label_noise": share} for share in experiment.values("label_noise") if share},
        "shuffled labels": {"random_labels": True},
    }
    table = [["labels", "width", "best in training", "best in validation", "at the end in validation"]]
    last = experiment.study(at="last")
    for name, wanted in kinds.items():
        for hidden in experiment.values("hidden"):
            studies = (*metrics.values(), last)
            values = [cell(study.mean(study.where(hidden=hidden, **wanted))) for study in studies]
            table.append([name, setting(hidden), *values])
    trained, validated = (study.mean(study.where(hidden=widest, random_labels=True)) for study in metrics.values())
    width = setting(widest)
    sentences = [
        f"of shuffled labels the network of width {width} gets {with_interval(trained)} right in training and "
        f"{with_interval(validated)} in validation, where chance is 0.1"
    ]
    for name, wanted in kinds.items():
        if "wrong" in name:
            here = {"hidden": widest, **wanted}
            best, end = metrics["val/accuracy"], last
            sentences.append(
                f"with {name} the same network reaches {with_interval(best.mean(best.where(**here)))} in validation "
                f"and ends at {with_interval(end.mean(end.where(**here)))}"
            )
    return Answer(sentences, table)


def transfer(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, starts = sorted(experiment.values("train_size")), experiment.values("start")
    table = [["network", "start", *(f"{size} labels" for size in sizes)]]
    sentences = []
    for model in experiment.values("model"):
        here = {start: {n: study.where(model=model, start=start, train_size=n) for n in sizes} for start in starts}
        for start, found in here.items():
            table.append([model, start, *(cell(study.mean(found[size])) for size in sizes)])
        for start in [start for start in starts if start != "scratch"]:
            differences = {size: study.difference(here[start][size], here["scratch"][size]) for size in sizes}
            ahead = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean > 0]
            behind = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean < 0]
            fewest = compared(start, "from scratch", differences[sizes[0]])
            told = [f"ahead with {listed(ahead)} labels"] if ahead else []
            told += [f"behind with {listed(behind)}"] if behind else []
            sentences.append(
                f"{model}: with {sizes[0]} labels {fewest}; {'clearly ' + listed(told) if told else 'nowhere clear'}"
            )
        sentences += saved(study, model, sizes, here)
    return Answer(sentences, table)


def saved(study: Study, model: str, sizes: list[int], here: dict[str, dict[int, list[int]]]) -> list[str]:
    """How many labels from scratch it takes to be as good as fine-tuned with the fewest."""
    reached = study.mean(here["finetuned"][sizes[0]]).mean
    enough = [size for size in sizes if study.mean(here["scratch"][size]).mean >= reached]
    if not enough or enough[0] == sizes[0]:
        return []
    return [f"{model}: from scratch it takes {enough[0]} labels to be as good on average as fine-tuned with {sizes[0]}"]


def scaling(experiment: Experiment) -> Answer:
    study = experiment.study("val/loss")
    shapes = sorted(experiment.values("hidden"), key=max)
    sizes = sorted(experiment.values("train_size"))

    def loss(hidden: list[int], size: int) -> float:
        return study.mean(study.where(hidden=hidden, train_size=size)).mean

    table = pivot(study, "hidden", "train_size", shapes, sizes)
    table[0] = ["width (parameters)", *(f"{size} samples" for size in sizes)]
    for row, hidden in zip(table[1:], shapes, strict=True):
        row[0] = f"{row[0]} ({parameters_of(hidden):,})"
    by_data = power_law(sizes, [loss(shapes[-1], size) for size in sizes])
    counts = [parameters_of(hidden) for hidden in shapes]
    by_size = power_law(counts, [loss(hidden, sizes[-1]) for hidden in shapes])
    sentences = [
        f"in the widest network the loss falls with the samples as {told_law('D', by_data)}",
        f"with all samples it falls with the parameters as {told_law('N', by_size)}",
        limit(study, shapes, sizes),
    ]
    places = np.geomspace(sizes[0], sizes[-1], 50)
    picture = draw(
        [
            Curve(f"fit, D^{by_data.exponent.mean:.2f}", np.log10(places), np.array([by_data.at(x) for x in places])),
            *(
                Curve(f"width {max(hidden)}", np.log10(sizes), np.array([loss(hidden, size) for size in sizes]))
                for hidden in (shapes[0], shapes[len(shapes) // 2], shapes[-1])
            ),
        ],
        title="lowest loss in validation",
        x_label="logarithm (base 10) of the training samples D",
        columns=90,
        rows=18,
        log=True,
        colour=False,
    )
    return Answer(sentences, table, picture)


def told_law(letter: str, law: PowerLaw) -> str:
    """`D^−0.60 [−0.65, −0.55]`, and how straight it is."""
    straight = f"no point is further than {law.strays:.0%} from that"
    return f"{letter} to the power of {with_interval(law.exponent)} ({number(law.factor)} at 1; {straight})"


def limit(study: Study, shapes: list[list[int]], sizes: list[int]) -> str:
    """Whether more data help the smallest network as much as the largest."""
    gains = [
        study.difference(*(study.where(hidden=h, train_size=n) for n in (sizes[0], sizes[-1])))
        for h in (shapes[0], shapes[-1])
    ]
    narrow, wide = (f"width {max(hidden)}" for hidden in (shapes[0], shapes[-1]))
    return (
        f"from {sizes[0]} to {sizes[-1]} samples the loss falls by {with_interval(gains[0])} at {narrow} "
        f"and by {with_interval(gains[1])} at {wide}"
    )
