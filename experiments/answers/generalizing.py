"""Results of the experiments on generalization: gap, features, transfer, scaling."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from answers.study import Experiment, PowerLaw, Study, factor, format_cell, power_law
from answers.training import LEARNT_ACCURACY, format_cost, pivot
from answers.words import Answer, change_clause, comparison_clause, display_name, join_words
from labbench.charts.plotext_chart import NamedSeries, PlotCanvas, draw_curves
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
            settings = [{"dropout": dropout, "batchnorm": flag, "train_size": size} for size in sizes]
            pairs = [format_cell(study.mean(study.where(**s))) for s in settings for study in (gap, accuracy)]
            table.append([format_setting(dropout), format_setting(flag), *pairs])
    most = max(experiment.values("dropout"))
    treatments = {f"dropout {most:g}": ({"dropout": most}, {"dropout": 0.0})}
    treatments["batch normalization"] = {"batchnorm": True}, {"batchnorm": False}
    sentences = []
    for name, (treated, control) in treatments.items():
        for study, outcome in ((gap, "the gap"), (accuracy, "validation accuracy")):
            pairs_by_size = {n: [study.where(**s, train_size=n) for s in (treated, control)] for n in sizes}
            changes = [f"{format_change(study.difference(*pair))} with {n}" for n, pair in pairs_by_size.items()]
            sentences.append(f"{name} changes {outcome} by {join_words(changes)} samples")
    plain = {size: gap.where(dropout=0.0, batchnorm=False, train_size=size) for size in sizes}
    growth = change_clause("the gap of the plain network", gap.difference(plain[sizes[-1]], plain[sizes[0]]))
    sentences.append(f"from {sizes[0]} to {sizes[-1]} samples {growth}")
    sentences.append("training accuracy is measured with dropout active, so some gaps are negative")
    return Answer(sentences, table)


def count_parameters(hidden: list[int]) -> int:
    """Return the number of parameters of a fully connected network for the digits."""
    widths = [INPUT_COUNT, *hidden, CLASS_COUNT]
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


def depth(experiment: Experiment) -> Answer:
    study = experiment.study()
    shapes = sorted(experiment.values("hidden"), key=len)
    best = [study.where(hidden=hidden)[0] for hidden in shapes]
    table = [["hidden layers", "widths", "parameters", "best accuracy", "at lr"]]
    for hidden, setup in zip(shapes, best, strict=True):
        accuracy = study.winner(hidden=hidden)
        rate = format_setting(study.config(setup)["lr"])
        row = [str(len(hidden)), format_setting(hidden), f"{count_parameters(hidden):,}"]
        table.append([*row, format_cell(accuracy), rate])
    single_layer = {"hidden": shapes[0]}
    deepest = study.lead({"hidden": shapes[-1]}, single_layer)
    deep = comparison_clause(f"a network with {len(shapes[-1])} hidden layers", "one with a single layer", deepest)
    sentences = [f"with about the same number of parameters, at the best learning rate of each, {deep}"]
    for hidden in shapes[1:-1]:
        lead = study.lead({"hidden": hidden}, single_layer)
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
    comparisons = [
        ("convolution with max pooling", largest, "the fully connected network", dense),
        ("convolution without pooling", conv, "the fully connected network", dense),
        ("max pooling", largest, "average pooling", average),
    ]
    sentences = []
    for first, first_shape, second, second_shape in comparisons:
        clauses = []
        for size in sizes:
            pair = (study.where(layers=shape, train_size=size) for shape in (first_shape, second_shape))
            clause = comparison_clause(first, second, study.difference(*pair))
            clauses.append(f"with {size} samples, {clause}")
        sentences.append("; ".join(clauses))
    return Answer(sentences, table)


def representation(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, numbers = sorted(experiment.values("train_size")), sorted(experiment.values("layer"))
    learned, random = max(experiment.values("pretrain_epochs")), 0
    table = [["features", *(f"{size} samples" for size in sizes)]]
    for layer in numbers:
        for epochs in (random, learned) if layer else (random,):
            name = f"layer {layer}, {'learned' if epochs else 'random'}" if layer else "pixels"
            values = [
                format_cell(study.mean(study.where(layer=layer, pretrain_epochs=epochs, train_size=n))) for n in sizes
            ]
            table.append([name, *values])
    sentences = []
    for size in sizes:
        pixels = study.where(layer=0, train_size=size)
        setups = study.where(pretrain_epochs=learned, train_size=size)
        best = next(setup for setup in setups if study.config(setup)["layer"] > 0)
        layer = study.config(best)["layer"]
        untrained = study.where(layer=layer, pretrain_epochs=random, train_size=size)
        to_pixels = comparison_clause(
            f"layer {layer}, the best learned one,", "pixels", study.difference([best], pixels)
        )
        to_random = comparison_clause("it", "the same layer with random weights", study.difference([best], untrained))
        sentences.append(f"with {size} samples, {to_pixels}; {to_random}")
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
    for name, settings in kinds.items():
        for hidden in experiment.values("hidden"):
            studies = (*metrics.values(), last)
            values = [format_cell(study.mean(study.where(hidden=hidden, **settings))) for study in studies]
            reaching = costs.where(hidden=hidden, **settings)
            cost = format_cost(costs.mean(reaching) if reaching else None, samples)
            table.append([name, format_setting(hidden), cost, *values])
    trained, validated = (study.mean(study.where(hidden=widest, random_labels=True)) for study in metrics.values())
    width = format_setting(widest)
    sentences = [
        f"with shuffled labels, the network of width {width} reaches an accuracy of {format_interval(trained)} in "
        f"training and {format_interval(validated)} in validation; chance is 0.1",
        memorization_sentence(costs, samples, widest),
    ]
    for name, settings in kinds.items():
        if "wrong" in name:
            best, final = (
                format_interval(study.mean(study.where(hidden=widest, **settings)))
                for study in (metrics["val/accuracy"], last)
            )
            sentences.append(f"with {name}, the same network reaches {best} in validation and ends at {final}")
    return Answer(sentences, table)


def memorization_sentence(costs: Study, samples: int, hidden: list[int]) -> str:
    """Compare the epochs needed for shuffled and for true labels."""
    true, shuffled = (costs.where(hidden=hidden, label_noise=0.0, random_labels=flag) for flag in (False, True))
    if not true or not shuffled:
        lacking = "shuffled" if true else "true"
        return f"with {lacking} labels, training accuracy does not reach {LEARNT_ACCURACY:g} with every seed"
    epochs, shuffled_epochs = (format_cost(costs.mean(setups), samples) for setups in (true, shuffled))
    ratio = format_interval(factor(costs.difference(shuffled, true)))
    return (
        f"to reach a training accuracy of {LEARNT_ACCURACY:g}, it needs {epochs} epochs with true labels and "
        f"{shuffled_epochs} with shuffled ones: memorizing takes {ratio} times as long"
    )


def transfer(experiment: Experiment) -> Answer:
    study = experiment.study()
    sizes, starts = sorted(experiment.values("train_size")), experiment.values("start")
    table = [["network", "start", *(f"{size} labels" for size in sizes)]]
    sentences = []
    for model in experiment.values("model"):
        setups = {start: {n: study.where(model=model, start=start, train_size=n) for n in sizes} for start in starts}
        sentences.append(f"{display_name(model)}: {saved_labels_sentence(study, sizes, setups)}")
        for start, by_size in setups.items():
            cells = [format_cell(study.mean(by_size[size])) for size in sizes]
            table.append([display_name(model), display_name(start), *cells])
        for start in [start for start in starts if start != "scratch"]:
            differences = {size: study.difference(setups[start][size], setups["scratch"][size]) for size in sizes}
            ahead = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean > 0]
            behind = [str(size) for size, d in differences.items() if d.excludes(0.0) and d.mean < 0]
            fewest = comparison_clause(
                f"the {display_name(start)} network", "the one trained from scratch", differences[sizes[0]]
            )
            outcomes = [f"ahead with {join_words(ahead)} labels"] if ahead else []
            outcomes += [f"behind with {join_words(behind)} labels"] if behind else []
            summary = f"it is significantly {join_words(outcomes)}" if outcomes else "no difference is significant"
            sentences.append(f"{display_name(model)}: with {sizes[0]} labels, {fewest}; {summary}")
    return Answer(sentences, table)


def saved_labels_sentence(study: Study, sizes: list[int], setups: dict[str, dict[int, list[int]]]) -> str:
    """State how many labels training from scratch needs to match fine-tuning with the fewest labels.

    `setups` are the configurations by start and number of labels.
    """
    accuracy = study.mean(setups["finetuned"][sizes[0]]).mean
    enough = [size for size in sizes if study.mean(setups["scratch"][size]).mean >= accuracy]
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
    xs = np.geomspace(sizes[0], sizes[-1], 50)
    picture = draw_curves(
        [
            NamedSeries(f"fit, D^{by_data.exponent.mean:.2f}", np.log10(xs), np.array([by_data.at(x) for x in xs])),
            *(
                NamedSeries(f"width {max(hidden)}", np.log10(sizes), np.array([loss(hidden, size) for size in sizes]))
                for hidden in (shapes[0], shapes[len(shapes) // 2], shapes[-1])
            ),
        ],
        PlotCanvas(columns=90, rows=18, colour=False),
        title="lowest validation loss",
        x_label="log10 of the number of training samples D",
        log=True,
    )
    return Answer(sentences, table, picture)


def format_power_law(letter: str, law: PowerLaw) -> str:
    """Return `D^k with k = −0.60 [−0.65, −0.55]`, the factor and the largest deviation."""
    deviation = f"largest deviation of a point {law.largest_deviation:.0%}"
    factor_text = f"{format_number(law.factor)} at {letter} = 1"
    return f"{letter}^k with k = {format_interval(law.exponent)} ({factor_text}; {deviation})"


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
