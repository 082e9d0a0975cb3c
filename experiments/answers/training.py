"""The answers of the experiments on how networks train: update rules, learning rates, batches, activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from answers.study import Experiment, Study, cell, factor, fits
from answers.words import Answer, compared, listed, moved, proper
from labbench.analysis import Observation
from labbench.analysis.figures import with_interval
from labbench.analysis.intervals import Interval
from labbench.text import setting

TRAINS = 0.9
"""Accuracy from which a network is said to have learnt the digits."""
WELL = 0.97
"""Accuracy that every update rule reaches, and at which they differ: at 0.9 after two epochs they hardly do."""


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
    lead = study.lead({"optimizer": "adam"}, {"optimizer": "sgd"})
    return Answer(
        [
            f"each at its best learning rate, {compared('Adam', 'SGD', lead)}",
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
    study, costs, known = experiment.study(), experiment.costs(WELL, "steps"), rules(experiment)
    best = {name: study.where(**settings)[0] for name, settings in known.items()}
    ranked = sorted(best, key=lambda name: study.order.index(best[name]))
    basins = {name: study.usable(**settings) for name, settings in known.items()}
    widest = max((basin.decades for basin in basins.values() if basin), default=None)
    table = [["rule", "best accuracy", "at lr", f"updates to {WELL:g}", "learning rates within 5 % of the best"]]
    for name in ranked:
        found, basin = study.winner(**known[name]), basins[name]
        reach = f"{setting(basin.low)} to {setting(basin.high)}" if basin else "none"
        rate = setting(study.config(best[name])["lr"])
        table.append([name, cell(found), rate, updates(costs.winner(**known[name])), reach])
    first, second, last = (known[name] for name in (ranked[0], ranked[1], ranked[-1]))
    sentences = [
        f"at the best learning rate of each, {compared(ranked[0], ranked[1], study.lead(first, second))}; "
        f"{compared(ranked[0], f'{ranked[-1]}, the last,', study.lead(first, last))}",
        *speeds(costs, known),
    ]
    if widest is not None:
        names = [name for name, basin in basins.items() if basin and basin.decades == widest]
        sentences.append(f"the most forgiving: {listed(names)}, within 5 % of the best over a factor of {10**widest:g}")
    return Answer(sentences, table)


def speeds(costs: Study, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who is first at an accuracy, each at its fastest learning rate, and how much longer the others take."""
    fastest = {name: found[0] for name, settings in known.items() if (found := costs.where(**settings))}
    swift = sorted(fastest, key=lambda name: costs.order.index(fastest[name]))
    if len(swift) < 2:
        return []
    first = swift[0]
    longer = {name: factor(costs.lead(known[name], known[first])) for name in swift[1:]}
    clear = [f"{name} ({with_interval(more)})" for name, more in longer.items() if more.excludes(1.0)]
    alike = [name for name, more in longer.items() if not more.excludes(1.0)]
    told = [f"it takes {listed(clear)} times as many"] if clear else []
    told += [f"{listed(alike)} cannot be told from it"] if alike else []
    return [
        f"the fewest updates to an accuracy of {WELL:g}, each rule at its fastest rate, are those of {first}, "
        f"{updates(costs.winner(**known[first]))}; {'; '.join(told)}"
    ]


def updates(logarithm: Interval | None, unit: float = 1.0) -> str:
    """What a set-up paid, from its logarithm; a dash where it never got there with every seed."""
    return with_interval(factor(logarithm, unit)) if logarithm is not None else "–"


def gradient_descent(experiment: Experiment) -> Answer:
    study, sizes = experiment.study(), experiment.values("batch_size")
    seen, seconds = (experiment.costs(TRAINS, axis) for axis in ("samples", "seconds"))
    worse = worsening(experiment)
    names = {size: "all samples a step" if size > 1000 else f"{size} a step" for size in sizes}
    best = {size: study.where(batch_size=size)[0] for size in sizes}
    ranked = sorted(sizes, key=lambda size: study.order.index(best[size]))
    header = [
        "batch",
        "best accuracy",
        "at lr",
        f"samples to {TRAINS:g}",
        "updates",
        "milliseconds of computing",
        "epochs that got worse",
    ]
    table = [header]
    for size in sizes:
        here, rate = {"batch_size": size}, study.config(best[size])["lr"]
        samples, lost = seen.winner(**here), worse.mean(worse.where(**here, lr=rate))
        units = [updates(samples), updates(samples, size), updates(seconds.winner(**here), 1e-3)]
        table.append([setting(size), cell(study.winner(**here)), setting(rate), *units, cell(lost)])
    lead = study.lead({"batch_size": ranked[0]}, {"batch_size": ranked[-1]})
    furthest = compared(names[ranked[0]], f"{names[ranked[-1]]}, the last,", lead)
    reached = [size for size in sorted(sizes) if seen.where(batch_size=size)]
    sentences = [f"after equally many samples and at the best learning rate of each, {furthest}"]
    if len(reached) > 1:
        counts = [f"{names[size]} {updates(seen.winner(batch_size=size))}" for size in reached]
        sentences.append(f"samples seen until an accuracy of {TRAINS:g}: {listed(counts)}")
    if missing := [names[size] for size in sizes if size not in reached]:
        sentences.append(f"with {listed(missing)} no learning rate got to {TRAINS:g} with every seed")
    sentences.append("noise is the share of epochs after which the loss in validation was higher than before")
    return Answer(sentences, table)


def worsening(experiment: Experiment) -> Study:
    """Of each run, the share of epochs after which the loss in validation was higher than before."""
    changes = [np.diff(experiment.reader.series(run.key, "val/loss")[1]) for run in experiment.runs]
    shares = [float((change > 0).mean()) if len(change) else None for change in changes]
    alike = zip(experiment.runs, shares, strict=True)
    return Study([Observation(run.config, run.config.get("seed"), share) for run, share in alike], "worse", "min")


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
                ours, theirs = ({"optimizer": name, **here} for name in ("adam", "sgd"))
                values = [study.winner(**theirs), study.winner(**ours), study.lead(ours, theirs)]
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
        here = {"rarity": rarities[-1]}
        lead = study.lead({"optimizer": name.lower(), **here}, {"optimizer": "sgd", **here})
        told = compared(name, "SGD (with or without momentum)", lead)
        growth = study.contrast({ours[-1]: 1.0, sgd[0]: 1.0}, {sgd[-1]: 1.0, ours[0]: 1.0})
        gains = moved(f"what {name} gains", growth)
        sentences.append(f"where most words are rare, {told}; against words that come all alike, {gains}")
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
    lead = study.lead({"batchnorm": True}, {"batchnorm": False})
    gain = compared("with it, the best rate", "the best without", lead)
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
        table.append([proper(kind), *(cell(found) for found in winners)])
        good = [len(h) for h, found in zip(depths, winners, strict=True) if found and found.mean >= TRAINS]
        deepest[kind] = max(good, default=0)
    reach = [f"{proper(kind)} {depth or 'at no depth'}" for kind, depth in deepest.items()]
    sentences = [f"hidden layers at which the best learning rate still gets to {TRAINS:g}: {listed(reach)}"]
    shallow, deep = depths[0], depths[-1]
    for kind in kinds:
        ends = [{"activation": kind, "hidden": hidden} for hidden in (deep, shallow)]
        told = moved("the accuracy", study.lead(*ends))
        sentences.append(f"{proper(kind)}: from {len(shallow)} to {len(deep)} hidden layers {told}")
    shares = {kind: fading(experiment, activation=kind, hidden=deep) for kind in kinds}
    told = [f"{proper(kind)} {share:.2g}" for kind, share in shares.items() if share is not None]
    if told:
        sentences.append(
            f"after an epoch of {len(deep)} hidden layers the gradient of the first layer is this share of the last "
            f"one's (median of the runs): {listed(told)}"
        )
    dead = {kind: watched(experiment, "dead/", activation=kind, hidden=deep) for kind in kinds}
    told = [f"{proper(kind)} {np.median(values):.0%}" for kind, values in dead.items() if values]
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
    study, trained = experiment.study(), experiment.study("train/accuracy")
    models = {"perceptron": "perceptron", "mlp": "two layers"}
    table = [["data", *(f"{name}, {where}" for name in models.values() for where in ("in training", "in validation"))]]
    sentences = []
    for data in experiment.values("data"):
        found = {model: {"data": data, "model": model} for model in models}
        both = [cell(one.mean(one.where(**wanted))) for wanted in found.values() for one in (trained, study)]
        table.append([data, *both])
        lead = study.difference(*(study.where(**found[model]) for model in ("mlp", "perceptron")))
        verdict = compared("a network of two layers", "the perceptron", lead)
        learnt = f"in training the perceptron gets to {both[0]} and two layers to {both[2]}"
        sentences.append(f"`{data}`: {learnt}; in validation {verdict}")
    return Answer(sentences[::-1], table)
