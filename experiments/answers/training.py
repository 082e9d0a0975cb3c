"""The answers of the experiments on how networks train: update rules, learning rates, batches, activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from answers.study import Experiment, Study, cell, fits
from answers.words import Answer, compared, listed, moved
from labbench.text import duration, number, setting

TRAINS = 0.9
"""Accuracy from which a network is said to have learnt the digits."""


def rule(config: Mapping[str, Any]) -> str:
    """An update rule by its name."""
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adagrad": "Adagrad"}
    if config["optimizer"] == "sgd" and config.get("momentum"):
        return "Nesterov" if config.get("nesterov") else "momentum"
    return name[config["optimizer"]]


def rules(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The settings of each update rule of an experiment, by its name."""
    keys = [k for k in ("optimizer", "momentum", "nesterov") if any(k in run.config for run in experiment.runs)]
    return {rule(run.config): {key: run.config[key] for key in keys} for run in experiment.runs}


def quickstart(experiment: Experiment) -> Answer:
    study, rates = experiment.study(), experiment.values("lr")
    adam, sgd = study.where(optimizer="adam"), study.where(optimizer="sgd")
    return Answer(
        [
            f"each at its best learning rate, {compared('Adam', 'SGD', study.difference(adam[:1], sgd[:1]))}",
            f"Adam does best at {setting(study.config(adam[0])['lr'])}, SGD at {setting(study.config(sgd[0])['lr'])}",
        ],
        pivot(study, "optimizer", "lr", experiment.values("optimizer"), rates),
    )


def pivot(study: Study, row: str, column: str, rows: list[Any], columns: list[Any]) -> list[list[str]]:
    """The best value by two parameters, over the learning rates if those are neither."""
    table = [[row, *(f"{column} {setting(value)}" for value in columns)]]
    for value in rows:
        found = [study.winner(**{row: value, column: other}) for other in columns]
        table.append([setting(value), *(cell(best) for best in found)])
    return table


def optimizers(experiment: Experiment) -> Answer:
    study, known = experiment.study(), rules(experiment)
    best = {name: study.where(**settings)[0] for name, settings in known.items()}
    ranked = sorted(best, key=lambda name: study.order.index(best[name]))
    costs = {name: experiment.cost(TRAINS, "steps", **settings) for name, settings in known.items()}
    basins = {name: study.usable(**settings) for name, settings in known.items()}
    winner = study.difference([best[ranked[0]]], [best[ranked[1]]])
    last = study.difference([best[ranked[0]]], [best[ranked[-1]]])
    swift = [name for name in costs if costs[name] is not None]
    first = min((costs[name] for name in swift), default=None)
    widest = max((basin.decades for basin in basins.values() if basin), default=None)
    table = [["rule", "best accuracy", "at lr", f"updates to {TRAINS:g}", "learning rates within 5 % of the best"]]
    for name in ranked:
        found, basin, cost = study.winner(**known[name]), basins[name], costs[name]
        reach = f"{setting(basin.low)} to {setting(basin.high)}" if basin else "none"
        rate = setting(study.config(best[name])["lr"])
        table.append([name, cell(found), rate, number(cost) if cost is not None else "–", reach])
    sentences = [
        f"at the best learning rate of each, {compared(ranked[0], ranked[1], winner)}; "
        f"{compared(ranked[0], f'{ranked[-1]}, the last,', last)}"
    ]
    if first is not None:
        names = [f"{name} ({number(costs[name])})" for name in sorted(swift, key=lambda name: costs[name])]
        sentences.append(f"updates to an accuracy of {TRAINS:g} (median, each at its fastest rate): {listed(names)}")
    if widest is not None:
        names = [name for name, basin in basins.items() if basin and basin.decades == widest]
        sentences.append(f"the most forgiving: {listed(names)}, within 5 % of the best over a factor of {10**widest:g}")
    return Answer(sentences, table)


def gradient_descent(experiment: Experiment) -> Answer:
    study, sizes = experiment.study(), experiment.values("batch_size")
    names = {size: "all samples a step" if size > 1000 else f"{size} a step" for size in sizes}
    best = {size: study.where(batch_size=size)[0] for size in sizes}
    ranked = sorted(sizes, key=lambda size: study.order.index(best[size]))
    header = [
        "batch",
        "best accuracy",
        "at lr",
        f"samples to {TRAINS:g}",
        "updates",
        "seconds of computing",
        "epochs that got worse",
    ]
    table, seen = [header], {}
    for size in sizes:
        found = study.winner(batch_size=size)
        costs = [experiment.cost(TRAINS, axis, batch_size=size) for axis in ("samples", "steps", "seconds")]
        seen[size] = costs[0]
        units = [number(cost) if cost is not None else "–" for cost in costs[:2]] + [
            duration(costs[2]) if costs[2] is not None else "–"
        ]
        rate, worse = study.config(best[size])["lr"], f"{worsening(experiment, study.config(best[size])):.0%}"
        table.append([setting(size), cell(found), setting(rate), *units, worse])
    difference = study.difference([best[ranked[0]]], [best[ranked[-1]]])
    furthest = compared(names[ranked[0]], f"{names[ranked[-1]]}, the last,", difference)
    reached = sorted((count, size) for size, count in seen.items() if count is not None)
    sentences = [f"after equally many samples and at the best learning rate of each, {furthest}"]
    if len(reached) > 1:
        counts = [f"{names[size]} {number(count)}" for count, size in reached]
        sentences.append(f"samples seen until an accuracy of {TRAINS:g}: {listed(counts)}")
    if missing := [names[size] for size, count in seen.items() if count is None]:
        sentences.append(f"with {listed(missing)} no learning rate got to {TRAINS:g} in time")
    sentences.append("noise is the share of epochs after which the loss in validation was higher than before")
    return Answer(sentences, table)


def worsening(experiment: Experiment, config: Mapping[str, Any]) -> float:
    """The share of epochs of a set-up's runs after which the loss in validation was higher than before."""
    alike = [run for run in experiment.runs if all(run.config.get(key) == value for key, value in config.items())]
    changes = [np.diff(experiment.reader.series(run.key, "val/loss")[1]) for run in alike]
    return float((np.concatenate(changes) > 0).mean())


def noisy_sparse(experiment: Experiment) -> Answer:
    study = experiment.study()
    noises, sparsities, sizes = (experiment.values(key) for key in ("label_noise", "input_sparsity", "batch_size"))
    table = [["wrong labels", "zeros", "batch", "SGD", "Adam", "Adam − SGD"]]
    leads: dict[tuple[float, float, int], tuple[int, int]] = {}
    for noise in noises:
        for sparsity in sparsities:
            for size in sizes:
                here = {"label_noise": noise, "input_sparsity": sparsity, "batch_size": size}
                adam, sgd = (study.where(optimizer=name, **here)[0] for name in ("adam", "sgd"))
                leads[noise, sparsity, size] = adam, sgd
                values = [study.mean([sgd]), study.mean([adam]), study.difference([adam], [sgd])]
                table.append([f"{noise:.0%}", f"{sparsity:.0%}", str(size), *map(cell, values)])
    everywhere = study.difference([adam for adam, _ in leads.values()], [sgd for _, sgd in leads.values()])
    sentences = [f"averaged over all, {compared('Adam', 'SGD (with or without momentum)', everywhere)}"]
    for place, name in enumerate(("wrong labels", "zeros among the inputs", "smaller batches")):
        levels = sorted({key[place] for key in leads}, reverse=name == "smaller batches")
        more, less = ([leads[key] for key in leads if key[place] == level] for level in (levels[-1], levels[0]))
        plus = [a for a, _ in more] + [s for _, s in less]
        minus = [s for _, s in more] + [a for a, _ in less]
        share = 1 / len(more)
        growth = study.contrast(dict.fromkeys(plus, share), dict.fromkeys(minus, share))
        sentences.append(f"with {name}, {moved('what Adam gains', growth)}")
    return Answer(sentences, table)


def rare_words(experiment: Experiment) -> Answer:
    study, known = experiment.study(), rules(experiment)
    rarities = sorted(experiment.values("rarity"))
    table = [["rule", *(f"rarity {setting(rarity)}" for rarity in rarities)]]
    for name, settings in known.items():
        winners = [study.winner(rarity=rarity, **settings) for rarity in rarities]
        table.append([name, *(cell(found) for found in winners)])
    sentences = []
    for name in ("Adam", "Adagrad"):
        ours, sgd = (
            [study.where(rarity=rarity, optimizer=optimizer)[0] for rarity in rarities]
            for optimizer in (name.lower(), "sgd")
        )
        told = compared(name, "SGD (with or without momentum)", study.difference(ours[-1:], sgd[-1:]))
        growth = study.contrast({ours[-1]: 1.0, sgd[0]: 1.0}, {sgd[-1]: 1.0, ours[0]: 1.0})
        sentences.append(
            f"where most words are rare, {told}; from words all alike to that, {moved(f'what {name} gains', growth)}"
        )
    return Answer(sentences, table)


def batchnorm(experiment: Experiment) -> Answer:
    study = experiment.study()
    basins = {flag: study.usable(batchnorm=flag) for flag in (False, True)}
    without, with_it = basins[False], basins[True]
    rates = sorted(experiment.values("lr"))
    table = [["lr", "without", "with batch normalisation"]]
    for rate in rates:
        row = [setting(rate)]
        for flag in (False, True):
            runs = [run for run in experiment.runs if run.config["lr"] == rate and run.config["batchnorm"] is flag]
            diverged = sum(run.status == "diverged" for run in runs)
            found = study.where(lr=rate, batchnorm=flag)
            told = f" ({diverged} of {len(runs)} diverged)" if diverged else ""
            row.append((cell(study.mean(found)) if found else "") + told)
        table.append(row)
    best = [study.where(batchnorm=flag)[0] for flag in (True, False)]
    gain = compared("with it, the best rate", "the best without", study.difference(best[:1], best[1:]))
    if without is None or with_it is None:
        lacking = "with" if with_it is None else "without"
        return Answer([f"{lacking} batch normalisation no learning rate comes within 5 % of the best; {gain}"], table)
    factor = with_it.high / without.high
    verdict = (
        f"{factor:g} times larger" if factor > 1 else "no larger" if factor == 1 else f"{1 / factor:g} times lower"
    )
    return Answer(
        [
            f"the largest learning rate within 5 % of the best accuracy is {verdict} with batch normalisation: "
            f"{setting(with_it.high)} against {setting(without.high)}",
            f"the smallest is {setting(with_it.low)} against {setting(without.low)}",
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
        table.append([kind, *(cell(found) for found in winners)])
        good = [len(h) for h, found in zip(depths, winners, strict=True) if found and found.mean >= TRAINS]
        deepest[kind] = max(good, default=0)
    reach = [f"{kind} {depth or 'at no depth'}" for kind, depth in deepest.items()]
    sentences = [f"hidden layers at which the best learning rate still gets to {TRAINS:g}: {listed(reach)}"]
    shallow, deep = depths[0], depths[-1]
    for kind in kinds:
        ends = [study.where(activation=kind, hidden=hidden)[:1] for hidden in (deep, shallow)]
        told = moved("the accuracy", study.difference(*ends))
        sentences.append(f"{kind}: from {len(shallow)} to {len(deep)} hidden layers {told}")
    shares = {kind: fading(experiment, activation=kind, hidden=deep) for kind in kinds}
    told = [f"{kind} {number(share)}" for kind, share in shares.items() if share is not None]
    if told:
        sentences.append(
            f"after an epoch of {len(deep)} hidden layers the gradient of the first layer is this share of the last "
            f"one's (median of the runs): {listed(told)}"
        )
    dead = {kind: watched(experiment, "dead/", activation=kind, hidden=deep) for kind in kinds}
    told = [f"{kind} {np.median(values):.0%}" for kind, values in dead.items() if values]
    if told:
        sentences.append(f"of its units, dead or saturated for every sample at the end of training: {listed(told)}")
    return Answer(sentences, table)


def fading(experiment: Experiment, **wanted: Any) -> float | None:
    """The gradient norm of the first layer over that of the last, after an epoch: the median of these runs."""
    shares = []
    for run in experiment.runs:
        layers = sorted((name for name in run.summary if name.startswith("grad_norm/")), key=place)
        if fits(run.config, wanted) and layers:
            first, last = (experiment.reader.series(run.key, layers[end])[1][0] for end in (0, -1))
            shares.append(first / last)
    return float(np.median(shares)) if shares else None


def watched(experiment: Experiment, kind: str, **wanted: Any) -> list[float]:
    """By run, the mean over its layers of what was measured of each of them last."""
    found = []
    for run in experiment.runs:
        values = [summary.last for name, summary in run.summary.items() if name.startswith(kind)]
        if fits(run.config, wanted) and values:
            found.append(float(np.mean(values)))
    return found


def place(metric: str) -> int:
    """Where in its network the layer of `grad_norm/3.linear` is."""
    return int(metric.partition("/")[2].partition(".")[0])


def perceptron(experiment: Experiment) -> Answer:
    study = experiment.study()
    models = {"perceptron": "perceptron", "mlp": "two layers"}
    sentences, table = [], [["data", *models.values()]]
    for data in experiment.values("data"):
        found = {model: study.where(data=data, model=model) for model in models}
        values = {model: study.mean(here) for model, here in found.items()}
        table.append([data, *map(cell, values.values())])
        told = listed([f"{models[model]} {cell(value)}" for model, value in values.items()])
        verdict = compared(
            "a network of two layers", "the perceptron", study.difference(found["mlp"], found["perceptron"])
        )
        sentences.append(f"`{data}`: {told}: {verdict}")
    return Answer(sentences[::-1], table)
