"""Evaluation of a split, and a check of it before training.

What is computed after an epoch for the first time, such as the task's epoch metrics, would fail each run after an epoch
of its own: the check fails before the first step.
"""

from __future__ import annotations

import copy
import math
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from torch import nn

from labbench.records import Config
from labbench.train.data.dataset import Data, Split, SplitName
from labbench.train.data.samples import concatenate, map_tensors
from labbench.train.early_stopping import EarlyStopping
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.grouping.equivalence import CHECKED_SAMPLES
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.rng import Purpose, generator_seed, seeded_generators
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.optional_parts import compute_epoch_metrics
from labbench.train.tasks.sample_metrics import MetricMeans, add_generalization_gap, read_means
from labbench.train.tasks.task import FileTask, attributes_of, optional_parts, takes_config


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


def check_evaluation(model: nn.Module, run: TrainingRun, workload: Workload) -> None:
    """Do what happens at the end of an epoch with a copy of a new run's model and the first samples of each split.

    The random generators and the attributes of the task are restored. A built-in task needs no check.

    Raises:
        Exception: The error of the task's code.
        InputError: The task's metrics are unusable, or the metric of `[stop]` is not measured.
    """
    task = workload.task
    if not isinstance(task, FileTask) or run.epoch > 0:
        return
    try:
        model = copy.deepcopy(model)
    except Exception:  # a user's module may hold anything
        return
    seed, device = generator_seed(run.config["seed"], Purpose.GENERATOR), workload.data.device
    workload = replace(workload, precision=replace(workload.precision, compiles=False))
    with seeded_generators(seed, device), attributes_of(task).restore_after():
        stepper = SingleStepper(model, run.config, workload, StepCounter())
        measured: dict[str, float] = {}
        for name in _evaluated_splits(workload):
            measured |= _measure_first(stepper, workload, name, run.config)
        stop = run.early_stopping.stop
        has_criterion = stop is not None or optional_parts(task).scheduler is not None
        if not (has_criterion and workload.data.has_validation):
            return
        values = add_generalization_gap(_epoch_values(stepper, workload, measured))
        if stop is not None and stop.metric not in values:  # some samples may have metrics that the first ones lack
            values |= _measure_whole(stepper, workload, "val", run.config)
        EarlyStopping(stop).reason_to_stop(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a scheduler that is stepped before its optimizer
            stepper.end_epoch(0, values)


def _epoch_values(stepper: Stepper, workload: Workload, measured: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an epoch, given those of the evaluated splits; values of training steps are NaN."""
    values = {name: value for name, value in measured.items() if name.startswith("val/")}
    if "train/loss" in measured:
        values |= {name: value for name, value in measured.items() if name.startswith("train/")}
        values["train/eval_loss"] = measured["train/loss"]
    else:
        _, sample_metrics = stepper.evaluate(_first_batch(workload, "val"))
        values |= {f"train/{name}": math.nan for name in ("loss", *sample_metrics)}
    return values


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
    """Return the first samples of a split, as many as a model has in training; of Datasets a few for all runs."""
    data, size = workload.data, min(workload.batch_size, workload.evaluation_batch_size)
    if isinstance(data, Data):
        return next(iter(data.evaluation_batches(name, size)))
    return data.sample_validation(min(size, CHECKED_SAMPLES))
