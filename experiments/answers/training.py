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
"""Accuracy that every optimizer reaches, high enough to separate them: at 0.9 they hardly differ."""


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
        found = [study.winner(**{row: value, column: other}) for other in columns]
        table.append([format_setting(value), *(format_cell(best) for best in found)])
    return table


def optimizers(experiment: Experiment) -> Answer:
    study, costs, known = experiment.study(), experiment.costs(COMPARED_ACCURACY, "steps"), settings_by_rule(experiment)
    best = {name: study.where(**settings)[0] for name, settings in known.items()}
    ranked = sorted(best, key=lambda name: study.order.index(best[name]))
    basins = {name: study.usable_rates(**settings) for name, settings in known.items()}
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
        found, basin = study.winner(**known[name]), basins[name]
        reach = f"{format_setting(basin.low)} to {format_setting(basin.high)}" if basin else "none"
        rate = format_setting(study.config(best[name])["lr"])
        table.append([name, format_cell(found), rate, format_cost(costs.winner(**known[name])), reach])
    first, second, last = (known[name] for name in (ranked[0], ranked[1], ranked[-1]))
    sentences = [
        f"at the best learning rate of each, {comparison_clause(ranked[0], ranked[1], study.lead(first, second))}; "
        f"{comparison_clause(ranked[0], f'{ranked[-1]} (last)', study.lead(first, last))}",
        *speed_sentences(costs, known),
    ]
    if widest is not None:
        names = [name for name, basin in basins.items() if basin and basin.decades == widest]
        sentences.append(
            f"widest range of learning rates within 5 % of the best: {join_words(names)}, a factor of {10**widest:g}"
        )
    return Answer(sentences, table)


def speed_sentences(costs: Study, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare the updates to an accuracy, each optimizer at its fastest learning rate."""
    fastest = {name: found[0] for name, settings in known.items() if (found := costs.where(**settings))}
    swift = sorted(fastest, key=lambda name: costs.order.index(fastest[name]))
    if len(swift) < 2:
        return []
    first = swift[0]
    longer = {name: factor(costs.lead(known[name], known[first])) for name in swift[1:]}
    clear = [f"{format_interval(more)} for {name}" for name, more in longer.items() if more.excludes(1.0)]
    alike = [name for name, more in longer.items() if not more.excludes(1.0)]
    told = [f"the number is larger by a factor of {join_words(clear)}"] if clear else []
    told += [f"no significant difference for {join_words(alike)}"] if alike else []
    return [
        f"{first} needs the fewest updates to an accuracy of {COMPARED_ACCURACY:g}, each optimizer at its fastest "
        "learning rate: "
        f"of {first}, {format_cost(costs.winner(**known[first]))}; {'; '.join(told)}"
    ]


def format_cost(logarithm: Interval | None, unit: float = 1.0) -> str:
    """Return the cost of a set-up from its logarithm; a dash if not every seed reached the target."""
    return format_interval(factor(logarithm, unit)) if logarithm is not None else "–"


def gradient_descent(experiment: Experiment) -> Answer:
    study, sizes = experiment.study(), experiment.values("batch_size")
    seen, seconds = (experiment.costs(LEARNT_ACCURACY, axis) for axis in ("samples", "seconds"))
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
        here, rate = {"batch_size": size}, study.config(best[size])["lr"]
        samples, lost = seen.winner(**here), worse.mean(worse.where(**here, lr=rate))
        units = [format_cost(samples), format_cost(samples, size), format_cost(seconds.winner(**here), 1e-3)]
        table.append(
            [format_setting(size), format_cell(study.winner(**here)), format_setting(rate), *units, format_cell(lost)]
        )
    lead = study.lead({"batch_size": ranked[0]}, {"batch_size": ranked[-1]})
    furthest = comparison_clause(names[ranked[0]], f"{names[ranked[-1]]} (last)", lead)
    reached = [size for size in sorted(sizes) if seen.where(batch_size=size)]
    sentences = [f"after the same number of samples, at the best learning rate of each, {furthest}"]
    if len(reached) > 1:
        counts = [f"{format_cost(seen.winner(batch_size=size))} with {names[size]}" for size in reached]
        sentences.append(f"samples until an accuracy of {LEARNT_ACCURACY:g}: {join_words(counts)}")
    if missing := [names[size] for size in sizes if size not in reached]:
        sentences.append(f"with {join_words(missing)} no learning rate reaches {LEARNT_ACCURACY:g} with every seed")
    sentences.append("noise is measured as the share of epochs in which the validation loss rises")
    return Answer(sentences, table)


def worsening(experiment: Experiment) -> Study:
    """Return the share of epochs in which the validation loss rises, by run."""
    changes = [np.diff(experiment.reader.series(run.key, "val/loss")[1]) for run in experiment.runs]
    shares = [float((change > 0).mean()) if len(change) else None for change in changes]
    alike = zip(experiment.runs, shares, strict=True)
    return Study([Observation(run.config, run.config.get("seed"), share) for run, share in alike], "worse", "min")


def noisy_sparse(experiment: Experiment) -> Answer:
    study = experiment.study()
    noises, sparsities, sizes = (experiment.values(key) for key in ("label_noise", "input_sparsity", "batch_size"))
    table = [["wrong labels", "zeroed inputs", "batch", "SGD", "Adam", "Adam − SGD"]]
    leads: dict[tuple[float, float, int], tuple[int, int]] = {}
    for noise in noises:
        for sparsity in sparsities:
            for size in sizes:
                here = {"label_noise": noise, "input_sparsity": sparsity, "batch_size": size}
                adam, sgd = (study.where(optimizer=name, **here)[0] for name in ("adam", "sgd"))
                leads[noise, sparsity, size] = adam, sgd
                ours, theirs = ({"optimizer": name, **here} for name in ("adam", "sgd"))
                values = [study.winner(**theirs), study.winner(**ours), study.lead(ours, theirs)]
                table.append([f"{noise:.0%}", f"{sparsity:.0%}", str(size), *map(format_cell, values)])
    everywhere = study.difference([adam for adam, _ in leads.values()], [sgd for _, sgd in leads.values()])
    sentences = [
        f"averaged over all conditions, {comparison_clause('Adam', 'SGD (with or without momentum)', everywhere)}"
    ]
    for place, name in enumerate(("wrong labels", "zeroed inputs", "smaller batches")):
        levels = sorted({key[place] for key in leads}, reverse=name == "smaller batches")
        more, less = ([leads[key] for key in leads if key[place] == level] for level in (levels[-1], levels[0]))
        plus = [a for a, _ in more] + [s for _, s in less]
        minus = [s for _, s in more] + [a for a, _ in less]
        share = 1 / len(more)
        growth = study.contrast(dict.fromkeys(plus, share), dict.fromkeys(minus, share))
        sentences.append(f"with {name}, {change_clause('the advantage of Adam', growth)}")
    return Answer(sentences, table)


def rare_words(experiment: Experiment) -> Answer:
    study, known = experiment.study(), settings_by_rule(experiment)
    rarities = sorted(experiment.values("rarity"))
    table = [["optimizer", *(f"rarity {format_setting(rarity)}" for rarity in rarities)]]
    for name, settings in known.items():
        winners = [study.winner(rarity=rarity, **settings) for rarity in rarities]
        table.append([name, *(format_cell(found) for found in winners)])
    sentences = []
    for name in ("Adam", "Adagrad"):
        ours, sgd = (
            [study.where(rarity=rarity, optimizer=optimizer)[0] for rarity in rarities]
            for optimizer in (name.lower(), "sgd")
        )
        here = {"rarity": rarities[-1]}
        lead = study.lead({"optimizer": name.lower(), **here}, {"optimizer": "sgd", **here})
        told = comparison_clause(name, "SGD (with or without momentum)", lead)
        growth = study.contrast({ours[-1]: 1.0, sgd[0]: 1.0}, {sgd[-1]: 1.0, ours[0]: 1.0})
        gains = change_clause(f"the advantage of {name}", growth)
        sentences.append(f"if most words are rare, {told}; from equally frequent words to these, {gains}")
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
            found = study.where(lr=rate, batchnorm=flag)
            told = f" ({diverged} of {len(runs)} diverged)" if diverged else ""
            row.append((format_cell(study.mean(found)) if found else "") + told)
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
        table.append([display_name(kind), *(format_cell(found) for found in winners)])
        good = [len(h) for h, found in zip(depths, winners, strict=True) if found and found.mean >= LEARNT_ACCURACY]
        deepest[kind] = max(good, default=0)
    reach = [f"{display_name(kind)} {depth or 'none'}" for kind, depth in deepest.items()]
    sentences = [
        f"largest number of hidden layers at which the best learning rate reaches "
        f"{LEARNT_ACCURACY:g}: {join_words(reach)}"
    ]
    shallow, deep = depths[0], depths[-1]
    for kind in kinds:
        ends = [{"activation": kind, "hidden": hidden} for hidden in (deep, shallow)]
        told = change_clause("the accuracy", study.lead(*ends))
        sentences.append(f"{display_name(kind)}: from {len(shallow)} to {len(deep)} hidden layers {told}")
    shares = {kind: gradient_ratio(experiment, activation=kind, hidden=deep) for kind in kinds}
    told = [f"{display_name(kind)} {share:.2g}" for kind, share in shares.items() if share is not None]
    if told:
        sentences.append(
            f"with {len(deep)} hidden layers, ratio of the first to the last layer's gradient norm after one epoch "
            f"(median of the runs): {join_words(told)}"
        )
    dead = {kind: last_layer_means(experiment, "dead/", activation=kind, hidden=deep) for kind in kinds}
    told = [f"{display_name(kind)} {np.median(values):.0%}" for kind, values in dead.items() if values]
    if told:
        sentences.append(
            f"share of units dead or saturated for every sample at the end of training: {join_words(told)}"
        )
    return Answer(sentences, table)


def gradient_ratio(experiment: Experiment, **wanted: Any) -> float | None:
    """Return the ratio of the first to the last layer's gradient norm after an epoch, median of these runs."""
    shares = []
    for run in experiment.runs:
        layers = sorted((name for name in run.summary if name.startswith("grad_norm/")), key=layer_number)
        if has_settings(run.config, wanted) and layers:
            first, last = (experiment.reader.series(run.key, layers[end])[1][0] for end in (0, -1))
            shares.append(first / last)
    return float(np.median(shares)) if shares else None


def last_layer_means(experiment: Experiment, kind: str, **wanted: Any) -> list[float]:
    """Return the mean over layers of their last values, by run."""
    found = []
    for run in experiment.runs:
        values = [summary.last for name, summary in run.summary.items() if name.startswith(kind)]
        if has_settings(run.config, wanted) and values:
            found.append(float(np.mean(values)))
    return found


def layer_number(metric: str) -> int:
    """Return the position of a layer, 3 for `grad_norm/3.linear`."""
    return int(metric.partition("/")[2].partition(".")[0])


def perceptron(experiment: Experiment) -> Answer:
    study, trained = experiment.study(), experiment.study("train/accuracy")
    models = {"perceptron": "perceptron", "mlp": "two layers"}
    table = [["data", *(f"{name}, {where}" for name in models.values() for where in ("training", "validation"))]]
    sentences = []
    for data in experiment.values("data"):
        found = {model: {"data": data, "model": model} for model in models}
        both = [format_cell(one.mean(one.where(**wanted))) for wanted in found.values() for one in (trained, study)]
        table.append([data, *both])
        lead = study.difference(*(study.where(**found[model]) for model in ("mlp", "perceptron")))
        verdict = comparison_clause("a network with two layers", "the perceptron", lead)
        learnt = f"training accuracy is {both[0]} for the perceptron and {both[2]} for two layers"
        sentences.append(f"`{data}`: {learnt}; in validation {verdict}")
    return Answer(sentences[::-1], table)
