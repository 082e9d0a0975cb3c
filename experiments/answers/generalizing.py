"""Results of the experiments on generalization: gap, features, transfer, scaling."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from answers.study import Experiment, PowerLaw, Study, factor, format_cell, power_law
from answers.training import LEARNT_ACCURACY, format_cost, pivot
from answers.words import Answer, change_clause, comparison_clause, display_name, join_words
from labbench.charts.plotext_chart import Canvas, NamedSeries, draw_curves
from labbench.reports.formatting import format_change, format_interval
from labbench.text import format_number, format_setting

INPUT_COUNT, CLASS_COUNT = 64, 10
"""Shape of the digits."""


def regularization(experiment: Experiment) -> Answer:
    gap, accuracy = experiment.study("gap/accuracy", at="last"), experiment.study()
    sizes = sorted(experiment.values("train_size"))
    table = [["dropout", "batch norm", *(f"{what}, {size} samples" for size in sizes for what in ("gap", "accuracy"))]]
    for dropout in experiment.values("dropout"):
        for flag in (False, True):
            here = [{"dropout": dropout, "batchnorm": flag, "train_size": size} for size in sizes]
            pairs = [format_cell(study.mean(study.where(**one))) for one in here for study in (gap, accuracy)]
            table.append([format_setting(dropout), format_setting(flag), *pairs])
    most = max(experiment.values("dropout"))
    treatments = {f"dropout {most:g}": ({"dropout": most}, {"dropout": 0.0})}
    treatments["batch normalization"] = {"batchnorm": True}, {"batchnorm": False}
    sentences = []
    for name, (treated, left) in treatments.items():
        for study, what in ((gap, "the gap"), (accuracy, "validation accuracy")):
            both = [(study.where(**treated, train_size=n), study.where(**left, train_size=n)) for n in sizes]
            changes = [
                f"{format_change(study.difference(*pair))} with {n}" for n, pair in zip(sizes, both, strict=True)
            ]
            sentences.append(f"{name} changes {what} by {join_words(changes)} samples")
    plain = {size: gap.where(dropout=0.0, batchnorm=False, train_size=size) for size in sizes}
    growth = change_clause("the gap of the plain network", gap.difference(plain[sizes[-1]], plain[sizes[0]]))
    sentences.append(f"from {sizes[0]} to {sizes[-1]} samples {growth}")
    sentences.append("training accuracy is measured with dropout active, so some gaps are negative")
    return Answer(sentences, table)


def count_parameters(hidden: list[int]) -> int:
    """Return the number of parameters of a fully connected network for the digits."""
    widths = [INPUT_COUNT, *hidden, CLASS_COUNT]
    return sum(given * taken + taken for given, taken in pairwise(widths))


def depth(experiment: Experiment) -> Answer:
    study = experiment.study()
    shapes = sorted(experiment.values("hidden"), key=len)
    best = [study.where(hidden=hidden)[0] for hidden in shapes]
    table = [["hidden layers", "widths", "parameters", "best accuracy", "at lr"]]
    for hidden, setup in zip(shapes, best, strict=True):
        found = study.winner(hidden=hidden)
        rate = format_setting(study.config(setup)["lr"])
        row = [str(len(hidden)), format_setting(hidden), f"{count_parameters(hidden):,}"]
        table.append([*row, format_cell(found), rate])
    one = {"hidden": shapes[0]}
    deepest = study.lead({"hidden": shapes[-1]}, one)
    deep = comparison_clause(f"a network with {len(shapes[-1])} hidden layers", "one with a single layer", deepest)
    sentences = [f"with about the same number of parameters, at the best learning rate of each, {deep}"]
    for hidden in shapes[1:-1]:
        lead = study.lead({"hidden": hidden}, one)
        sentences.append(comparison_clause(f"one with {len(hidden)}", "one with a single layer", lead))
    return Answer(sentences, table)


def layers(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes = sorted(experiment.values("train_size"))
    shapes = experiment.values("layers")
    table = [["layers", *(f"{size} samples" for size in sizes)]]
    for shape in shapes:
        values = [format_cell(study.mean(study.where(layers=shape, train_size=size))) for size in sizes]
        table.append([", ".join(shape), *values])
    dense = next(shape for shape in shapes if not any("conv" in layer for layer in shape))
    single = [shape for shape in shapes if sum("conv" in layer for layer in shape) == 1]
    conv = next(shape for shape in single if not any("pool" in layer for layer in shape))
    largest = next(shape for shape in single if "maxpool 2" in shape)
    average = next(shape for shape in single if "avgpool 2" in shape)
    asked = [
        ("convolution with max pooling", largest, "the fully connected network", dense),
        ("convolution without pooling", conv, "the fully connected network", dense),
        ("max pooling", largest, "average pooling", average),
    ]
    sentences = []
    for first, one, second, other in asked:
        differences = [
            study.difference(*(study.where(layers=s, train_size=size) for s in (one, other))) for size in sizes
        ]
        told = [
            f"with {n} samples, {comparison_clause(first, second, d)}" for n, d in zip(sizes, differences, strict=True)
        ]
        sentences.append("; ".join(told))
    return Answer(sentences, table)


def representation(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, numbers = sorted(experiment.values("train_size")), sorted(experiment.values("layer"))
    learnt, drawn = max(experiment.values("pretrain_epochs")), 0
    table = [["features", *(f"{size} samples" for size in sizes)]]
    for layer in numbers:
        for epochs in (drawn, learnt) if layer else (drawn,):
            name = f"layer {layer}, {'learned' if epochs else 'random'}" if layer else "pixels"
            values = [
                format_cell(study.mean(study.where(layer=layer, pretrain_epochs=epochs, train_size=n))) for n in sizes
            ]
            table.append([name, *values])
    sentences = []
    for size in sizes:
        pixels = study.where(layer=0, train_size=size)
        layer = study.where(pretrain_epochs=learnt, train_size=size)
        best = next(setup for setup in layer if study.config(setup)["layer"] > 0)
        which = study.config(best)["layer"]
        beside = study.where(layer=which, pretrain_epochs=drawn, train_size=size)
        told = comparison_clause(f"layer {which}, the best learned one,", "pixels", study.difference([best], pixels))
        random = comparison_clause("it", "the same layer with random weights", study.difference([best], beside))
        sentences.append(f"with {size} samples, {told}; {random}")
    return Answer(sentences, table)


def generalization(experiment: Experiment) -> Answer:
    metrics = {"train/accuracy": experiment.study("train/accuracy"), "val/accuracy": experiment.study()}
    widest = max(experiment.values("hidden"), key=max)
    kinds: dict[str, dict[str, Any]] = {
        "true labels": {"label_noise": 0.0, "random_labels": False},
        **{f"{share:.0%} wrong labels": {"label_noise": share} for share in experiment.values("label_noise") if share},
        "shuffled labels": {"random_labels": True},
    }
    passes = f"epochs to {LEARNT_ACCURACY:g} in training"
    table = [["labels", "width", passes, "best in training", "best in validation", "final in validation"]]
    last = experiment.study(at="last")
    costs = experiment.costs(LEARNT_ACCURACY, "samples", "train/accuracy")
    samples = experiment.values("train_size")[0]
    for name, wanted in kinds.items():
        for hidden in experiment.values("hidden"):
            studies = (*metrics.values(), last)
            values = [format_cell(study.mean(study.where(hidden=hidden, **wanted))) for study in studies]
            paid = costs.where(hidden=hidden, **wanted)
            table.append(
                [name, format_setting(hidden), format_cost(costs.mean(paid) if paid else None, samples), *values]
            )
    trained, validated = (study.mean(study.where(hidden=widest, random_labels=True)) for study in metrics.values())
    width = format_setting(widest)
    sentences = [
        f"with shuffled labels, the network of width {width} reaches an accuracy of {format_interval(trained)} in "
        f"training and {format_interval(validated)} in validation; chance is 0.1",
        memorization_sentence(costs, samples, widest),
    ]
    for name, wanted in kinds.items():
        if "wrong" in name:
            here = {"hidden": widest, **wanted}
            best, end = metrics["val/accuracy"], last
            sentences.append(
                f"with {name}, the same network reaches {format_interval(best.mean(best.where(**here)))} in validation "
                f"and ends at {format_interval(end.mean(end.where(**here)))}"
            )
    return Answer(sentences, table)


def memorization_sentence(costs: Study, samples: int, hidden: list[int]) -> str:
    """Compare the epochs needed for shuffled and for true labels."""
    true, shuffled = (costs.where(hidden=hidden, label_noise=0.0, random_labels=flag) for flag in (False, True))
    if not true or not shuffled:
        lacking = "shuffled" if true else "true"
        return f"with {lacking} labels, training accuracy does not reach {LEARNT_ACCURACY:g} with every seed"
    learning, knowing = (format_cost(costs.mean(found), samples) for found in (true, shuffled))
    longer = format_interval(factor(costs.difference(shuffled, true)))
    return (
        f"to reach a training accuracy of {LEARNT_ACCURACY:g}, it needs {learning} epochs with true "
        f"labels and {knowing} with "
        f"shuffled ones: memorizing takes {longer} times as long"
    )


def transfer(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, starts = sorted(experiment.values("train_size")), experiment.values("start")
    table = [["network", "start", *(f"{size} labels" for size in sizes)]]
    sentences = []
    for model in experiment.values("model"):
        here = {start: {n: study.where(model=model, start=start, train_size=n) for n in sizes} for start in starts}
        sentences.append(f"{display_name(model)}: {saved_labels_sentence(study, sizes, here)}")
        for start, found in here.items():
            table.append(
                [display_name(model), display_name(start), *(format_cell(study.mean(found[size])) for size in sizes)]
            )
        for start in [start for start in starts if start != "scratch"]:
            differences = {size: study.difference(here[start][size], here["scratch"][size]) for size in sizes}
            ahead = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean > 0]
            behind = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean < 0]
            fewest = comparison_clause(
                f"the {display_name(start)} network", "the one trained from scratch", differences[sizes[0]]
            )
            told = [f"ahead with {join_words(ahead)} labels"] if ahead else []
            told += [f"behind with {join_words(behind)} labels"] if behind else []
            where = f"it is significantly {join_words(told)}" if told else "no difference is significant"
            sentences.append(f"{display_name(model)}: with {sizes[0]} labels, {fewest}; {where}")
    return Answer(sentences, table)


def saved_labels_sentence(study: Study, sizes: list[int], here: dict[str, dict[int, list[int]]]) -> str:
    """Return how many labels training from scratch needs to match fine-tuning with the fewest labels."""
    reached = study.mean(here["finetuned"][sizes[0]]).mean
    enough = [size for size in sizes if study.mean(here["scratch"][size]).mean >= reached]
    if enough[:1] == sizes[:1]:
        return f"pre-training saves no labels: with {sizes[0]}, training from scratch is as good on average"
    needed = f"{enough[0]} labels" if enough else f"more than {sizes[-1]} labels"
    return f"training from scratch needs {needed} to match fine-tuning with {sizes[0]} on average"


def scaling(experiment: Experiment) -> Answer:
    study = experiment.study("val/loss")
    shapes = sorted(experiment.values("hidden"), key=max)
    sizes = sorted(experiment.values("train_size"))

    def loss(hidden: list[int], size: int) -> float:
        return study.mean(study.where(hidden=hidden, train_size=size)).mean

    table = pivot(study, "hidden", "train_size", shapes, sizes)
    table[0] = ["width (parameters)", *(f"{size} samples" for size in sizes)]
    for row, hidden in zip(table[1:], shapes, strict=True):
        row[0] = f"{row[0]} ({count_parameters(hidden):,})"
    by_data = power_law(sizes, [loss(shapes[-1], size) for size in sizes])
    counts = [count_parameters(hidden) for hidden in shapes]
    by_size = power_law(counts, [loss(hidden, sizes[-1]) for hidden in shapes])
    sentences = [
        f"in the widest network the loss falls with the number of samples D as {format_power_law('D', by_data)}",
        f"with all samples it falls with the number of parameters N as {format_power_law('N', by_size)}",
        data_scaling_sentence(experiment.factors("val/loss"), shapes, sizes),
    ]
    places = np.geomspace(sizes[0], sizes[-1], 50)
    picture = draw_curves(
        [
            NamedSeries(
                f"fit, D^{by_data.exponent.mean:.2f}", np.log10(places), np.array([by_data.at(x) for x in places])
            ),
            *(
                NamedSeries(f"width {max(hidden)}", np.log10(sizes), np.array([loss(hidden, size) for size in sizes]))
                for hidden in (shapes[0], shapes[len(shapes) // 2], shapes[-1])
            ),
        ],
        Canvas(columns=90, rows=18, colour=False),
        title="lowest validation loss",
        x_label="log10 of the number of training samples D",
        log=True,
    )
    return Answer(sentences, table, picture)


def format_power_law(letter: str, law: PowerLaw) -> str:
    """Return `D^k with k = −0.60 [−0.65, −0.55]`, the factor and the largest deviation."""
    straight = f"largest deviation of a point {law.strays:.0%}"
    return (
        f"{letter}^k with k = {format_interval(law.exponent)} ({format_number(law.factor)} at {letter} = 1; {straight})"
    )


def data_scaling_sentence(logarithms: Study, shapes: list[list[int]], sizes: list[int]) -> str:
    """Compare the gain from more data between the smallest and the largest network."""
    few_many = [[logarithms.where(hidden=h, train_size=n)[0] for n in (sizes[0], sizes[-1])] for h in shapes]
    (few, many), (few_wide, many_wide) = few_many[0], few_many[-1]
    narrow, wide = (factor(logarithms.difference([a], [b])) for a, b in ((few, many), (few_wide, many_wide)))
    more = factor(logarithms.contrast({few_wide: 1.0, many: 1.0}, {many_wide: 1.0, few: 1.0}))
    verdict = f"a ratio of {format_interval(more)}" if more.excludes(1.0) else "no significant difference"
    return (
        f"{sizes[-1]} instead of {sizes[0]} samples reduce the loss by a factor of {format_interval(narrow)} at width "
        f"{max(shapes[0])} and {format_interval(wide)} at width {max(shapes[-1])}: {verdict}"
    )
