"""Evaluation of a split, and a check of it before training.

What is computed after an epoch for the first time, such as the task's epoch metrics, would fail each run after an epoch
of its own: the check fails before the first step.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.data.dataset import Data, Split, SplitName
from labbench.train.data.samples import concatenate, map_tensors
from labbench.train.early_stopping import EarlyStopping
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.grouping.equivalence import CHECKED_SAMPLES
from labbench.train.grouping.separation import read_traits
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.rng import Purpose, generator_seed, seeded_generators
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.losses import cross_entropy
from labbench.train.tasks.optional_parts import compute_epoch_metrics
from labbench.train.tasks.sample_metrics import MetricMeans, add_generalization_gap, read_means
from labbench.train.tasks.task import FileTask, attributes_of, optional_parts, takes_config

PROBABILITIES_NOTE = (
    "trained with probabilities as outputs, although the default loss, cross-entropy, takes scores: leave softmax out "
    "of forward"
)
PROBABILITY_ERROR = 1e-2
"""Largest deviation from 1 of a sum of probabilities, also in bfloat16."""


def measure_split(
    stepper: Stepper,
    workload: Workload,
    name: SplitName,
    batches: Iterable[Split],
    configs: Sequence[Config],
    others: Mapping[str, MetricMeans] = MappingProxyType({}),
) -> list[dict[str, float]]:
    """Return each run's mean loss and metrics over the batches of a split, by `name/METRIC`.

    The means of `others`, by prefix, come first; all are copied to the host at once.
    """
    stepper.train(False)
    means, function = MetricMeans(), optional_parts(workload.task).epoch_metrics
    outputs, targets = [], []
    for batch in batches:
        losses, metrics = stepper.evaluate(batch)
        means.add({"loss": losses, **metrics})
        if function is not None:
            outputs.append(stepper.predict(batch))
            targets.append(batch[1])
    measured = read_means({**others, f"{name}/": means}, len(configs))
    if function is None:
        return measured
    all_outputs, all_targets = concatenate(outputs, dim=1), concatenate(targets)  # (S, samples, ...), (samples, ...)
    for index, (config, values) in enumerate(zip(configs, measured, strict=True)):
        own_outputs = map_tensors(operator.itemgetter(index), all_outputs)
        keywords = {"config": dict(config)} if takes_config(function) else {}
        with sync_point(SyncPoint.TASK_METRICS):
            metrics_of_split = compute_epoch_metrics(function, own_outputs, all_targets, **keywords)
        values |= {f"{name}/{metric}": value for metric, value in metrics_of_split.items()}
    return measured


def check_evaluation(model: nn.Module, run: TrainingRun, workload: Workload) -> str | None:
    """Do a step and what follows an epoch with a copy of a new run's model, and the first samples of each split.

    The random generators and the attributes of the task are restored. A built-in task needs no check.
    Returns a note on outputs that do not suit the loss, None if there is none.

    Raises:
        Exception: The error of the task's code.
        InputError: The task's metrics are unusable, or the metric of `[stop]` is not measured.
    """
    task = workload.task
    if not isinstance(task, FileTask) or run.epoch > 0 or read_traits(task, run.config, model).has_model:
        return None
    try:
        model = copy.deepcopy(model)
    except Exception:  # a user's module may hold anything
        return None
    seed, device = generator_seed(run.config["seed"], Purpose.GENERATOR), workload.data.device
    precision = replace(workload.precision, compiles=False)
    workload = replace(workload, precision=precision, fixed={**workload.fixed, "ema_decay": None})
    with seeded_generators(seed, device), attributes_of(task).restore_after():
        try:
            stepper = SingleStepper(model, run.config, workload, StepCounter())
            step_metrics = _measure_step(stepper, workload)
        except (Exception, SystemExit):  # the run's own first step reports it, if it is no fault of the copy
            return None
        if step_metrics is None:
            return None
        values = _measure_epoch(stepper, workload, run, step_metrics)
        EarlyStopping(run.early_stopping.stop).reason_to_stop(values)
        stepper.end_epoch(0, values)
        return _outputs_note(stepper, workload)


def _measure_epoch(
    stepper: SingleStepper, workload: Workload, run: TrainingRun, step_metrics: Iterable[str]
) -> dict[str, float]:
    """Return the metrics of an epoch on the first samples, without the test split.

    Means over training steps, of the loss and `step_metrics`, are nan.
    """
    measured: dict[str, float] = {}
    for name in _evaluated_splits(workload):
        measured |= _measure_first(stepper, workload, name, run.config)
    values = {name: value for name, value in measured.items() if not name.startswith("test/")}
    if "train/loss" in values:
        values["train/eval_loss"] = values["train/loss"]
    values = add_generalization_gap(values | {f"train/{name}": math.nan for name in ("loss", *step_metrics)})
    stop = run.early_stopping.stop
    if stop is not None and stop.metric not in values and workload.data.has_validation:
        values |= _measure_whole(stepper, workload, "val", run.config)  # the first samples may lack a metric
    return values


def _outputs_note(stepper: SingleStepper, workload: Workload) -> str | None:
    """Return a note if the default loss, which takes scores, gets probabilities."""
    if workload.task.loss is not cross_entropy:
        return None
    outputs = stepper.predict(_first_batch(workload, "val" if workload.data.has_validation else "train"))  # (1, N, C)
    if not isinstance(outputs, Tensor) or outputs.dim() != 3 or outputs.shape[2] < 2:
        return None
    with sync_point(SyncPoint.SETUP):
        are_probabilities = bool((outputs >= 0).all() and ((outputs.sum(dim=2) - 1).abs() < PROBABILITY_ERROR).all())
    return PROBABILITIES_NOTE if are_probabilities else None


def _measure_step(stepper: SingleStepper, workload: Workload) -> Mapping[str, Tensor] | None:
    """Return the metrics of a step, (1, N), which a model may need before its first evaluation; the weights stay.

    Returns None if the loss is not finite: the run will diverge.
    """
    before = {name: parameter.detach().clone() for name, parameter in stepper.parameters.items()}
    stepper.train(True)
    batch = workload.data.first_batch([stepper.config["seed"]], _batch_size(workload))
    losses, metrics = stepper.step(batch)
    with torch.no_grad(), sync_point(SyncPoint.SETUP):
        for name, parameter in stepper.parameters.items():
            parameter.copy_(before[name])
        return metrics if losses.isfinite().all() else None


def _evaluated_splits(workload: Workload) -> list[SplitName]:
    """Return the splits that are evaluated in training; of Datasets, whose samples take long to read, only one."""
    data = workload.data
    splits: dict[SplitName, bool] = {
        "val": data.has_validation,
        "train": optional_parts(workload.task).train_metrics == "eval",
        "test": data.has_test,
    }
    names = [name for name, is_evaluated in splits.items() if is_evaluated]
    return names if isinstance(data, Data) else names[:1]


def _measure_first(stepper: Stepper, workload: Workload, name: SplitName, config: Config) -> dict[str, float]:
    """Return the metrics of a split's first batch, or if its epoch metrics fail, of the whole split.

    They may fail for a part of a split, such as one without positive samples.
    """
    try:
        (measured,) = measure_split(stepper, workload, name, [_first_batch(workload, name)], [config])
    except (Exception, SystemExit):  # a user's code may raise anything
        if optional_parts(workload.task).epoch_metrics is None:
            raise
        measured = _measure_whole(stepper, workload, name, config)
    return measured


def _measure_whole(stepper: Stepper, workload: Workload, name: SplitName, config: Config) -> dict[str, float]:
    batches = workload.data.evaluation_batches(name, workload.evaluation_batch_size)
    return measure_split(stepper, workload, name, batches, [config])[0]


def _first_batch(workload: Workload, name: SplitName) -> Split:
    """Return the first samples of a split; of Datasets some that are read once for all runs."""
    data, size = workload.data, min(_batch_size(workload), workload.evaluation_batch_size)
    return next(iter(data.evaluation_batches(name, size))) if isinstance(data, Data) else data.sample_validation(size)


def _batch_size(workload: Workload) -> int:
    """Return the number of samples in a batch: as many as in training, of Datasets only a few."""
    size = min(workload.batch_size, workload.samples_per_epoch)
    return size if isinstance(workload.data, Data) else min(size, CHECKED_SAMPLES)
