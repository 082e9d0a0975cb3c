"""Results of the experiments on training: optimizers, learning rates, batch sizes, activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from answers.study import Experiment, Study, factor, format_cell, has_settings
from answers.words import Answer, change_clause, comparison_clause, display_name, join_words
from labbench.analysis import Observation
from labbench.analysis.intervals import Interval
from labbench.reports.formatting import format_interval
from labbench.text import format_setting

LEARNT_ACCURACY = 0.9
"""Accuracy at which a network counts as trained."""
COMPARED_ACCURACY = 0.97
"""Accuracy that every optimizer reaches, high enough to separate them; at 0.9 they hardly differ."""


def rule_name(config: Mapping[str, Any]) -> str:
    """Return the name of an optimizer, momentum included."""
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
    if config["optimizer"] == "sgd" and config.get("momentum"):
        return "Nesterov" if config.get("nesterov") else "momentum"
    return name[config["optimizer"]]


def settings_by_rule(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return the settings of each optimizer of an experiment, by name."""
    keys = [k for k in ("optimizer", "momentum", "nesterov") if any(k in run.config for run in experiment.runs)]
    return {rule_name(run.config): {key: run.config[key] for key in keys} for run in experiment.runs}


def quickstart(experiment: Experiment) -> Answer:
    study, rates = experiment.study(), experiment.values("lr")
    adam, sgd = study.where(optimizer="adam"), study.where(optimizer="sgd")
    lead = study.lead({"optimizer": "adam"}, {"optimizer": "sgd"})
    best_adam, best_sgd = (format_setting(study.config(setups[0])["lr"]) for setups in (adam, sgd))
    return Answer(
        [
            f"at the best learning rate of each, {comparison_clause('Adam', 'SGD', lead)}",
            f"the best learning rate is {best_adam} for Adam and {best_sgd} for SGD",
        ],
        pivot(study, "optimizer", "lr", experiment.values("optimizer"), rates),
    )


def pivot(study: Study, row: str, column: str, rows: list[Any], columns: list[Any]) -> list[list[str]]:
    """Return a table of the best value by two parameters, over all others."""
    table = [[row, *(f"{column} {format_setting(value)}" for value in columns)]]
    for value in rows:
        winners = [study.winner(**{row: value, column: other}) for other in columns]
        table.append([format_setting(value), *(format_cell(winner) for winner in winners)])
    return table


def optimizers(experiment: Experiment) -> Answer:
    study, costs, rules = experiment.study(), experiment.costs(COMPARED_ACCURACY, "steps"), settings_by_rule(experiment)
    best = {name: study.where(**settings)[0] for name, settings in rules.items()}
    ranked = sorted(best, key=lambda name: study.order.index(best[name]))
    basins = {name: study.usable_rates(**settings) for name, settings in rules.items()}
    widest = max((basin.decades for basin in basins.values() if basin), default=None)
    table = [
        [
            "optimizer",
            "best accuracy",
            "at lr",
            f"updates to {COMPARED_ACCURACY:g}",
            "learning rates within 5 % of the best",
        ]
    ]
    for name in ranked:
        winner, basin = study.winner(**rules[name]), basins[name]
        rates = f"{format_setting(basin.low)} to {format_setting(basin.high)}" if basin else "none"
        best_rate = format_setting(study.config(best[name])["lr"])
        table.append([name, format_cell(winner), best_rate, format_cost(costs.winner(**rules[name])), rates])
    first, second, last = (rules[name] for name in (ranked[0], ranked[1], ranked[-1]))
    sentences = [
        f"at the best learning rate of each, {comparison_clause(ranked[0], ranked[1], study.lead(first, second))}; "
        f"{comparison_clause(ranked[0], f'{ranked[-1]} (last)', study.lead(first, last))}",
        *speed_sentences(costs, rules),
    ]
    if widest is not None:
        names = [name for name, basin in basins.items() if basin and basin.decades == widest]
        sentences.append(
            f"widest range of learning rates within 5 % of the best: {join_words(names)}, a factor of {10**widest:g}"
        )
    return Answer(sentences, table)


def speed_sentences(costs: Study, rules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare the updates to an accuracy, each optimizer at its fastest learning rate.

    `rules` are the settings of each optimizer, by name.
    """
    fastest = {name: setups[0] for name, settings in rules.items() if (setups := costs.where(**settings))}
    ranked = sorted(fastest, key=lambda name: costs.order.index(fastest[name]))
    if len(ranked) < 2:
        return []
    first = ranked[0]
    ratios = {name: factor(costs.lead(rules[name], rules[first])) for name in ranked[1:]}
    slower = [f"{format_interval(ratio)} for {name}" for name, ratio in ratios.items() if ratio.excludes(1.0)]
    equal = [name for name, ratio in ratios.items() if not ratio.excludes(1.0)]
    clauses = [f"the number is larger by a factor of {join_words(slower)}"] if slower else []
    clauses += [f"no significant difference for {join_words(equal)}"] if equal else []
    return [
        f"{first} needs the fewest updates to an accuracy of {COMPARED_ACCURACY:g}, each optimizer at its fastest "
        "learning rate: "
        f"of {first}, {format_cost(costs.winner(**rules[first]))}; {'; '.join(clauses)}"
    ]


def format_cost(logarithm: Interval | None, unit: float = 1.0) -> str:
    """Return a cost from its logarithm, divided by `unit`; a dash if not every seed reached the target."""
    return format_interval(factor(logarithm, unit)) if logarithm is not None else "–"


def gradient_descent(experiment: Experiment) -> Answer:
    study, sizes = experiment.study(), experiment.values("batch_size")
    samples, seconds = (experiment.costs(LEARNT_ACCURACY, axis) for axis in ("samples", "seconds"))
    worse = worsening(experiment)
    names = {size: "the full batch" if size > 1000 else f"batch size {size}" for size in sizes}
    best = {size: study.where(batch_size=size)[0] for size in sizes}
    ranked = sorted(sizes, key=lambda size: study.order.index(best[size]))
    header = [
        "batch",
        "best accuracy",
        "at lr",
        f"samples to {LEARNT_ACCURACY:g}",
        "updates",
        "compute time, ms",
        "share of epochs with rising loss",
    ]
    table = [header]
    for size in sizes:
        winner, rate = study.winner(batch_size=size), study.config(best[size])["lr"]
        cost, time = samples.winner(batch_size=size), seconds.winner(batch_size=size)
        rising = worse.mean(worse.where(batch_size=size, lr=rate))
        costs = [format_cost(cost), format_cost(cost, size), format_cost(time, 1e-3)]
        table.append([format_setting(size), format_cell(winner), format_setting(rate), *costs, format_cell(rising)])
    lead = study.lead({"batch_size": ranked[0]}, {"batch_size": ranked[-1]})
    furthest = comparison_clause(names[ranked[0]], f"{names[ranked[-1]]} (last)", lead)
    reaching = [size for size in sorted(sizes) if samples.where(batch_size=size)]
    sentences = [f"after the same number of samples, at the best learning rate of each, {furthest}"]
    if len(reaching) > 1:
        counts = [f"{format_cost(samples.winner(batch_size=size))} with {names[size]}" for size in reaching]
        sentences.append(f"samples until an accuracy of {LEARNT_ACCURACY:g}: {join_words(counts)}")
    if missing := [names[size] for size in sizes if size not in reaching]:
        sentences.append(f"with {join_words(missing)} no learning rate reaches {LEARNT_ACCURACY:g} with every seed")
    sentences.append("noise is measured as the share of epochs in which the validation loss rises")
    return Answer(sentences, table)


def worsening(experiment: Experiment) -> Study:
    """Return the share of epochs in which the validation loss rises, by run."""
    changes = [np.diff(experiment.reader.series(run.key, "val/loss")[1]) for run in experiment.runs]
    shares = [float((change > 0).mean()) if len(change) else None for change in changes]
    pairs = zip(experiment.runs, shares, strict=True)
    return Study([Observation(run.config, run.config.get("seed"), share) for run, share in pairs], "worse", "min")


def noisy_sparse(experiment: Experiment) -> Answer:
    study = experiment.study()
    noises, sparsities, sizes = (experiment.values(key) for key in ("label_noise", "input_sparsity", "batch_size"))
    table = [["wrong labels", "zeroed inputs", "batch", "SGD", "Adam", "Adam − SGD"]]
    leads: dict[tuple[float, float, int], tuple[int, int]] = {}
    for noise in noises:
        for sparsity in sparsities:
            for size in sizes:
                condition = {"label_noise": noise, "input_sparsity": sparsity, "batch_size": size}
                adam, sgd = ({"optimizer": name, **condition} for name in ("adam", "sgd"))
                leads[noise, sparsity, size] = study.where(**adam)[0], study.where(**sgd)[0]
                values = [study.winner(**sgd), study.winner(**adam), study.lead(adam, sgd)]
                table.append([f"{noise:.0%}", f"{sparsity:.0%}", str(size), *map(format_cell, values)])
    average = study.average_difference([adam for adam, _ in leads.values()], [sgd for _, sgd in leads.values()])
    sentences = [
        f"averaged over all conditions, {comparison_clause('Adam', 'SGD (with or without momentum)', average)}"
    ]
    for index, name in enumerate(("wrong labels", "zeroed inputs", "smaller batches")):
        levels = sorted({key[index] for key in leads}, reverse=name == "smaller batches")
        more, less = ([leads[key] for key in leads if key[index] == level] for level in (levels[-1], levels[0]))
        plus = [a for a, _ in more] + [s for _, s in less]
        minus = [s for _, s in more] + [a for a, _ in less]
        lead = study.average_difference(plus, minus)  # half of the growth of the advantage
        growth = Interval(2 * lead.mean, *(None if end is None else 2 * end for end in (lead.low, lead.high)))
        sentences.append(f"with {name}, {change_clause('the advantage of Adam', growth)}")
    return Answer(sentences, table)


def rare_words(experiment: Experiment) -> Answer:
    study, rules = experiment.study(), settings_by_rule(experiment)
    rarities = sorted(experiment.values("rarity"))
    table = [["optimizer", *(f"rarity {format_setting(rarity)}" for rarity in rarities)]]
    for name, settings in rules.items():
        winners = [study.winner(rarity=rarity, **settings) for rarity in rarities]
        table.append([name, *(format_cell(winner) for winner in winners)])
    sentences = []
    for name in ("Adam", "Adagrad"):
        adaptive, sgd = (
            [study.where(rarity=rarity, optimizer=optimizer)[0] for rarity in rarities]
            for optimizer in (name.lower(), "sgd")
        )
        rarest = rarities[-1]
        lead = study.lead({"optimizer": name.lower(), "rarity": rarest}, {"optimizer": "sgd", "rarity": rarest})
        comparison = comparison_clause(name, "SGD (with or without momentum)", lead)
        growth = study.contrast({adaptive[-1]: 1.0, sgd[0]: 1.0}, {sgd[-1]: 1.0, adaptive[0]: 1.0})
        change = change_clause(f"the advantage of {name}", growth)
        sentences.append(f"if most words are rare, {comparison}; from equally frequent words to these, {change}")
    return Answer(sentences, table)


def batchnorm(experiment: Experiment) -> Answer:
    study = experiment.study()
    basins = {flag: study.usable_rates(batchnorm=flag) for flag in (False, True)}
    without, with_it = basins[False], basins[True]
    rates = sorted(experiment.values("lr"))
    table = [["lr", "without", "with batch normalization"]]
    for rate in rates:
        row = [format_setting(rate)]
        for flag in (False, True):
            runs = [run for run in experiment.runs if run.config["lr"] == rate and run.config["batchnorm"] is flag]
            diverged = sum(run.status == "diverged" for run in runs)
            setups = study.where(lr=rate, batchnorm=flag)
            note = f" ({diverged} of {len(runs)} diverged)" if diverged else ""
            row.append((format_cell(study.mean(setups)) if setups else "") + note)
        table.append(row)
    lead = study.lead({"batchnorm": True}, {"batchnorm": False})
    gain = comparison_clause("the best learning rate with it", "the best one without", lead)
    if without is None or with_it is None:
        lacking = "with" if with_it is None else "without"
        return Answer([f"{lacking} batch normalization no learning rate comes within 5 % of the best; {gain}"], table)
    factor = with_it.high / without.high
    verdict = (
        f"{factor:g} times larger" if factor > 1 else "no larger" if factor == 1 else f"{1 / factor:g} times lower"
    )
    return Answer(
        [
            f"the largest learning rate within 5 % of the best accuracy is {verdict} with batch normalization: "
            f"{format_setting(with_it.high)}, against {format_setting(without.high)}",
            f"the smallest is {format_setting(with_it.low)}, against {format_setting(without.low)}",
            gain,
        ],
        table,
    )


def activations(experiment: Experiment) -> Answer:
    study, kinds = experiment.study(), experiment.values("activation")
    depths = sorted(experiment.values("hidden"), key=len)
    table = [["activation", *(f"{len(hidden)} hidden" for hidden in depths)]]
    deepest: dict[str, int] = {}
    for kind in kinds:
        winners = [study.winner(activation=kind, hidden=hidden) for hidden in depths]
        table.append([display_name(kind), *(format_cell(winner) for winner in winners)])
        trained = [len(h) for h, best in zip(depths, winners, strict=True) if best and best.mean >= LEARNT_ACCURACY]
        deepest[kind] = max(trained, default=0)
    depth_list = [f"{display_name(kind)} {depth or 'none'}" for kind, depth in deepest.items()]
    sentences = [
        f"largest number of hidden layers at which the best learning rate reaches "
        f"{LEARNT_ACCURACY:g}: {join_words(depth_list)}"
    ]
    shallow, deep = depths[0], depths[-1]
    for kind in kinds:
        ends = [{"activation": kind, "hidden": hidden} for hidden in (deep, shallow)]
        change = change_clause("the accuracy", study.lead(*ends))
        sentences.append(f"{display_name(kind)}: from {len(shallow)} to {len(deep)} hidden layers {change}")
    ratios = {kind: gradient_ratio(experiment, activation=kind, hidden=deep) for kind in kinds}
    ratio_list = [f"{display_name(kind)} {ratio:.2g}" for kind, ratio in ratios.items() if ratio is not None]
    if ratio_list:
        sentences.append(
            f"with {len(deep)} hidden layers, ratio of the first to the last layer's gradient norm after one epoch "
            f"(median of the runs): {join_words(ratio_list)}"
        )
    dead = {kind: layer_means(experiment, "dead/", activation=kind, hidden=deep) for kind in kinds}
    dead_list = [f"{display_name(kind)} {np.median(values):.0%}" for kind, values in dead.items() if values]
    if dead_list:
        sentences.append(
            f"share of units dead or saturated for every sample at the end of training: {join_words(dead_list)}"
        )
    return Answer(sentences, table)


def gradient_ratio(experiment: Experiment, **settings: Any) -> float | None:
    """Return the ratio of the first to the last layer's gradient norm after an epoch, median of these runs."""
    ratios = []
    for run in experiment.runs:
        layers = sorted((name for name in run.summary if name.startswith("grad_norm/")), key=layer_number)
        if has_settings(run.config, settings) and layers:
            first, last = (experiment.reader.series(run.key, layers[index])[1][0] for index in (0, -1))
            ratios.append(first / last)
    return float(np.median(ratios)) if ratios else None


def layer_means(experiment: Experiment, prefix: str, **settings: Any) -> list[float]:
    """Return the last value of the metrics with a prefix, averaged over layers, one number per run."""
    means = []
    for run in experiment.runs:
        values = [summary.last for name, summary in run.summary.items() if name.startswith(prefix)]
        if has_settings(run.config, settings) and values:
            means.append(float(np.mean(values)))
    return means


def layer_number(metric: str) -> int:
    """Return the position of a layer, 3 for `grad_norm/3.linear`."""
    return int(metric.partition("/")[2].partition(".")[0])


def perceptron(experiment: Experiment) -> Answer:
    study, trained = experiment.study(), experiment.study("train/accuracy")
    models = {"perceptron": "perceptron", "mlp": "two layers"}
    table = [["data", *(f"{name}, {split}" for name in models.values() for split in ("training", "validation"))]]
    sentences = []
    for data in experiment.values("data"):
        cells = [
            format_cell(metric.mean(metric.where(data=data, model=model)))
            for model in models
            for metric in (trained, study)
        ]
        table.append([data, *cells])
        lead = study.difference(*(study.where(data=data, model=model) for model in ("mlp", "perceptron")))
        verdict = comparison_clause("a network with two layers", "the perceptron", lead)
        training = f"training accuracy is {cells[0]} for the perceptron and {cells[2]} for two layers"
        sentences.append(f"`{data}`: {training}; in validation {verdict}")
    return Answer(sentences[::-1], table)
