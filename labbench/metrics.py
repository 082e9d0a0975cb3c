"""Classification, goals and ranking of metrics by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, TypeAlias

from labbench.errors import InputError, did_you_mean

Goal: TypeAlias = Literal["min", "max", "none"]
"""Better values of a metric: lower, higher, or neither."""

GOALS: tuple[Goal, ...] = ("min", "max", "none")

_SPLITS = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), 0),
    "test": 1,
    **dict.fromkeys(("train", "training"), 2),
}
"""Rank of the words that name the data of a metric, held-out data first."""

_COUNTERS = {
    *("epoch", "step", "timestep", "iter", "iteration", "sample", "token", "example", "frame", "episode", "batch"),
    *("round", "update", "num", "n", "global", "total", "env", "seen", "sampled", "consumed", "processed", "trainer"),
}
"""Words that make up the names of counters: `epoch`, `trainer/global_step`, `num_env_steps_sampled`."""

_CONDITIONS = {
    *("lr", "grad", "gradient", "gnorm", "dead", "stderr", "throughput"),
    *("memory", "mem", "gpu", "cpu", "utilization", "watt"),
    *("time", "timestamp", "progress", "runtime", "wall", "walltime", "elapsed", "eta", "duration", "sec", "second"),
}
"""Words of metrics of the training itself or of its cost."""

_CONDITION_PHRASES = ({"learning", "rate"}, {"exploration", "rate"}, {"clip", "fraction"})
"""Words that together mean the same."""

_SETTINGS = {
    *("scale", "weight", "coef", "coeff", "coefficient", "temperature", "temp", "momentum", "mom", "decay", "wd"),
    *(
        "beta",
        "epsilon",
        "ep",
        "entropy",
        "norm",
        "std",
        "size",
        "bsz",
        "range",
        "param",
        "parameter",
        "flop",
        "gflop",
        "flo",
    ),
}
"""Last words of metrics that are settings or states of the training: `loss_scale`, `kl_weight`, `policy/entropy`."""

_NO_SETTINGS = (["cross", "entropy"], ["acc", "norm"])
"""Last words of metrics that end like a setting; `acc_norm` is an accuracy of language models."""

_LOWER_IS_BETTER = (
    # losses and likelihoods
    *("loss", "nll", "nllloss", "ce", "bce", "xent", "crossentropy", "logloss", "hinge", "huber", "pinball"),
    *("perplexity", "ppl", "surprisal", "deviance", "bpb", "bpc", "bpd", "bpp", "bpt", "kl", "kld", "kldiv", "jsd"),
    "divergence",
    # errors of numbers, ranks and forecasts
    *("error", "err", "mse", "rmse", "nrmse", "mae", "nmae", "medae", "mape", "smape", "wmape", "mdape", "mase"),
    *("msle", "rmsle", "rmspe", "mspe", "rae", "rse", "rrse", "crps", "absrel", "sqrel", "residual", "deviation"),
    *("wape", "rmsse", "owa", "silog", "rpe"),
    # errors of classes, words and probabilities
    *("wer", "cer", "ter", "mer", "der", "eer", "ber", "fer", "hter", "ece", "mce", "ace", "brier", "hamming"),
    *("fpr", "fnr", "fdr", "far", "frr", "acer", "dcf", "mindcf", "tdcf", "false", "miss", "inaccuracy", "mistake"),
    *("misclassification", "hallucination", "levenshtein"),
    # distances and qualities of generated data
    *("fid", "kid", "fvd", "fad", "lpips", "frechet", "mmd", "wasserstein", "emd", "chamfer", "hausdorff", "hd"),
    *("assd", "mcd", "epe", "ade", "fde", "mpjpe", "distance", "dist", "distortion", "inertia", "niqe", "brisque"),
    # costs, and what goes wrong
    *("regret", "cost", "risk", "gap", "latency", "delay", "ttft", "tpot", "dead", "failure", "fail", "violation"),
    *("crash", "drawdown", "suboptimality"),
    *("collision", "forgetting", "toxicity", "aic", "bic", "invalid", "misclassified", "wrong", "incorrect"),
)  # fmt: skip
"""Words of metrics whose lower values are better, as papers and libraries abbreviate them."""

_LOSSES = {"loss", "nll", "ce", "bce", "xent", "crossentropy", "perplexity", "ppl", "mse", "rmse", "mae"}
"""Words of losses."""

_LOWER_PHRASES = (
    {"cross", "entropy"},
    {"bit", "per"},
    {"bit", "dim"},
    {"med", "ae"},
    {"neg", "elbo"},
    {"parity", "difference"},
    {"nat", "per"},
    {"negative", "likelihood"},
    {"neg", "likelihood"},
    {"edit", "levenshtein"},
    {"davies", "bouldin"},
    {"mean", "rank"},
    {"median", "rank"},
    {"abs", "rel"},
    {"sq", "rel"},
)
"""Words that together mean the same."""

_LOWER_ALONE = ("per", "recon", "reconstruction")
"""Metrics whose lower values are better: phoneme error rate, and what a variational autoencoder calls its losses."""

_LOWER_ENDINGS = ("loss", "error", "rmse", "perplexity")
"""Ends of words that are written together: `valloss`, `logloss`."""

_REVERSING = {"free", "reduction", "improvement", "gain", "reciprocal"}
"""Words that reverse the meaning: `error_free_rate`, `loss_reduction`, `mean_reciprocal_rank`."""

_TRAINER_GOALS: dict[str, Goal] = {"dead/": "min", "grad_norm/": "none", "gap/": "min"}
"""Goals of the metrics that the training loop measures besides the task's, by the start of their names."""

_LAST_COUNTS = {"gap", "dead", "forgetting"}
"""Words of metrics that are best in an untrained network: a gap between training and validation, dead units."""

_MAX_LISTED = 8
"""Maximum number of metrics that an error lists."""

_WORD = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")


def is_axis(metric: str) -> bool:
    """Return True if a metric measures progress or the machine, not the model."""
    return metric in ("epoch", "samples") or metric.startswith(("time/", "system/"))


def is_quality(metric: str) -> bool:
    """Return True if a metric can measure the quality of a run.

    Learning rates, gradient norms, times, memory and counters do not, in any spelling: `lr-Adam`, `train/grad_norm`,
    `eval/samples_per_second`, `learningRate`.
    """
    all_words = _split_words(metric)
    words = set(all_words)
    is_counter = words <= _COUNTERS | _SPLITS.keys() and not words.isdisjoint(_COUNTERS)
    is_condition = not words.isdisjoint(_CONDITIONS) or any(phrase <= words for phrase in _CONDITION_PHRASES)
    return not (is_axis(metric) or is_counter or is_condition or _is_setting(all_words))


@lru_cache(maxsize=4096)  # every read of a curve needs the goals of all metrics
def default_goal(metric: str) -> Goal:
    """Return the goal of a metric by the words of its name: `min` for losses and errors, `none` for conditions.

    Other names, such as scores, have the goal `max`. A declared goal takes precedence.
    """
    words = _split_words(metric)
    measured = [word for word in words if word not in _SPLITS]
    is_lower = any(word in _LOWER_WORDS or word.endswith(_LOWER_ENDINGS) for word in words)
    is_lower = is_lower or any(phrase <= set(words) for phrase in _LOWER_WORDS_TOGETHER)
    is_lower = (
        is_lower or measured[-2:] in (["l", "1"], ["l", "2"]) or (len(measured) == 1 and measured[0] in _LOWER_ALONE)
    )
    is_reversed = not _REVERSING.isdisjoint(words) or (
        measured[:1] == ["neg"] and {"likelihood", "elbo"}.isdisjoint(words)
    )
    if is_axis(metric) or _is_setting(words) or (words and words[-1] in _CONDITIONS - {"dead"}):
        is_speed = "throughput" in words or ("per" in words and words[-1] in ("sec", "second"))
        return "max" if is_speed else "none"
    if is_lower:
        return "max" if is_reversed else "min"
    return "max" if is_quality(metric) else "none"


@lru_cache(maxsize=4096)
def is_loss(metric: str) -> bool:
    """Return True for losses and likelihoods, which are finite unless the training diverges: `val/loss`, `nll`."""
    words = _split_words(metric)
    is_named = any(word in _LOSSES or word.endswith("loss") for word in words) or {"cross", "entropy"} <= set(words)
    return is_named and default_goal(metric) == "min"


def counts_by_last(metric: str) -> bool:
    """Return True if a run counts with its last value of a metric: gaps, dead units, forgetting, times, counters.

    Their best values belong to an untrained network.
    """
    return is_axis(metric) or not _LAST_COUNTS.isdisjoint(_split_words(metric))


def is_of_test_data(metric: str) -> bool:
    """Return True if the name says that a metric was measured on test data."""
    return "test" in _split_words(metric)


def trainer_goal(metric: str) -> Goal | None:
    """Return the goal that the training loop declares for a metric of its own, None for any other metric."""
    return next((goal for start, goal in _TRAINER_GOALS.items() if metric.startswith(start)), None)


def metric_rank(metric: str) -> tuple[bool, int, bool, str]:
    """Return the sort key of a metric.

    Metrics of quality come first, by split (validation, test, training, none), losses before others.

    The split may be anywhere in the name: `val/loss`, `eval_loss`, `loss.dev`, `valLoss`.
    """
    words = _split_words(metric)
    split = min((_SPLITS[word] for word in words if word in _SPLITS), default=len(_SPLITS))
    return not is_quality(metric), split, "loss" not in words, metric


def quality_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that measure quality, in the order of `metric_rank`."""
    return sorted(filter(is_quality, metrics), key=metric_rank)


def ranking_metrics(goals: Mapping[str, Goal]) -> list[str]:
    """Return the metrics of quality that can rank runs: their goal is `min` or `max`."""
    return [name for name in quality_metrics(goals) if goals[name] != "none"]


def default_metric(goals: Mapping[str, Goal], declared: Iterable[str]) -> str | None:
    """Return the metric to show first: the first `declared` one that can rank runs, else the first by `metric_rank`.

    `goals` has the logged metrics; None if all of them measure progress or the machine. What the training loop
    itself declares, such as gaps between splits, does not count.
    """
    ranking = [name for name in ranking_metrics(goals) if trainer_goal(name) is None]
    names = [*(name for name in declared if name in ranking), *charted_metrics(goals)]
    return names[0] if names else None


STEEP_RATIO = 20.0
"""Ratio of the largest to the smallest value above which an axis or a colour scale is logarithmic."""


def suits_log_axis(low: float, high: float, goal: Goal) -> bool:
    """Return True if values from `low` to `high` suit a log axis: positive, over `STEEP_RATIO`, not to be maximized."""
    return goal != "max" and low > 0 and high > STEEP_RATIO * low


def unknown_metric(metric: str, metrics: Iterable[str]) -> InputError:
    """Return the error for a metric that is not among the logged `metrics`."""
    names = sorted(metrics, key=metric_rank)
    if not names:
        return InputError(f"no run has logged the metric `{metric}`, nor any other metric")
    others = f" and {len(names) - _MAX_LISTED} others" if len(names) > _MAX_LISTED else ""
    hint = did_you_mean(metric, names) or f"; the metrics are {', '.join(names[:_MAX_LISTED])}{others}"
    if set(metric) & set("=<>~"):
        hint += "; a filter follows the metric"
    return InputError(f"no run has logged the metric `{metric}`{hint}")


def charted_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that are drawn over an axis, in the order of `metric_rank`."""
    return sorted((name for name in metrics if not is_axis(name)), key=metric_rank)


def page_order(metrics: Iterable[str]) -> list[str]:
    """Return the charted metrics in the order of a page of charts: the first follows its counterpart in training."""
    names = charted_metrics(metrics)
    if not names:
        return []
    measured = _without_split(names[0])
    training = (name for name in names[1:] if _without_split(name) == measured and metric_rank(name)[1] == 2)
    if (counterpart := next(training, None)) is not None:
        names.remove(counterpart)
        names.insert(0, counterpart)
    return names


def _without_split(metric: str) -> list[str]:
    return [word for word in _split_words(metric) if word not in _SPLITS]


def _is_setting(words: list[str]) -> bool:
    """Return True if the last word before any numbers names a setting, as in `loss_scale` and `beta1`."""
    names = words[: max((i for i, word in enumerate(words, 1) if not word.isdecimal()), default=0)]
    return bool(names) and names[-1] in _SETTINGS and names[-2:] not in _NO_SETTINGS


def _split_words(metric: str) -> list[str]:
    """Return the words of a name in lower case and singular.

    Words are separated by punctuation or capitals.
    """
    return [_singular(word.lower()) for word in _WORD.findall(metric)]


def _singular(word: str) -> str:
    return word if word.endswith("ss") else word.removesuffix("s")


_LOWER_WORDS = frozenset(map(_singular, _LOWER_IS_BETTER))
_LOWER_WORDS_TOGETHER = tuple(frozenset(map(_singular, phrase)) for phrase in _LOWER_PHRASES)
