"""Inputs and targets of several tensors, samplers and collate functions: all engines agree with a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, RandomSampler, Subset, WeightedRandomSampler

from helpers.training import History, histories, run_of
from labbench.errors import InputError
from labbench.records import Event, Failed, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.data.loading import Datasets
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

CONFIGS = [{"lr": lr, "seed": seed, "epochs": 2, "batch_size": 8} for lr in (0.1, 0.05) for seed in (0, 1)]


class Masked(nn.Module):
    """A bag of words over the tokens that a mask selects."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head((self.embed(tokens) * mask.unsqueeze(-1)).sum(1))


def make_samples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    tokens = torch.randint(1, 20, (count, 5))
    return tokens, (torch.arange(5) < torch.randint(1, 6, (count, 1))).float(), tokens[:, 0] % 3


def weighted_loss(outputs: Tensor, targets: Any) -> Tensor:
    return F.cross_entropy(outputs, targets[0], reduction="none") * targets[1]


def weighted_metrics(outputs: Tensor, targets: Any) -> dict[str, Tensor]:
    return {"accuracy": outputs.argmax(1) == targets[0]}


def task_of(data: Data | Datasets, model: Callable[[], nn.Module] = Masked, **parts: Any) -> FileTask:
    return replace(FileTask({}, lambda _: data, lambda _: model(), cross_entropy, accuracy), **parts)


def events(task: FileTask, engine: Any, configs: list[dict[str, Any]] = CONFIGS) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    runtime = Runtime(precision="float64", engine=engine, loaders=0)
    return list(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))


def train_all(task: FileTask, engine: Any = "auto", configs: list[dict[str, Any]] = CONFIGS) -> list[History]:
    by_run = histories(events(task, engine, configs))
    return [by_run[str(number)] for number in range(len(configs))]


def assert_same_curves(first: list[History], second: list[History]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.curves.keys() == other.curves.keys()
        for metric in one.curves.keys() - {"time/compute_s"}:
            assert one.curves[metric] == pytest.approx(other.curves[metric], rel=1e-9, abs=1e-12), metric


@pytest.mark.parametrize("form", ["tuple", "dict", "nested in Datasets"])
def test_several_inputs_with_sample_weights_train_alike_in_a_stack_and_alone(form: str) -> None:
    def split(count: int) -> Any:
        tokens, mask, classes = make_samples(count)
        targets = classes, 1 + classes.double()
        return ((tokens, mask) if form != "dict" else {"mask": mask, "tokens": tokens}), targets

    data: Data | Datasets = Data(split(40), split(24))
    if form == "nested in Datasets":
        samples = [
            [((x, mask), (y, w)) for x, mask, y, w in zip(*inputs, *targets, strict=True)]
            for inputs, targets in (split(40), split(24))
        ]
        data = Datasets(*samples)
    task = task_of(data, loss=weighted_loss, metrics=weighted_metrics)
    stacked, alone = train_all(task), train_all(task, "loop")
    assert {history.started.way for history in stacked if history.started} == {"vmap"}
    assert_same_curves(stacked, alone)
    assert "val/accuracy" in alone[0].curves


class Padded(nn.Module):
    """A bag of words whose padding word has a fixed embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6, padding_idx=0), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.head(self.embed(tokens).mean(1))
        return scores


def test_the_embedding_of_a_padding_word_stays_fixed_in_a_stack_too() -> None:
    tokens, mask, classes = make_samples(40)
    padded = tokens * mask.long()
    task = task_of(Data((padded, classes), (padded, classes)), Padded)
    stacked = train_all(task)
    assert {history.started.way for history in stacked if history.started} == {"vmap"}
    assert_same_curves(stacked, train_all(task, "loop"))


def test_weighted_targets_train_alike_with_the_kernels_of_a_stack() -> None:
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    data = Data((x, (y, 1.0 + y)), (x, (y, 1.0 + y)))
    task = task_of(data, lambda: nn.Sequential(nn.Linear(6, 3)), loss=weighted_loss, metrics=weighted_metrics)
    stacked = train_all(task)
    assert {history.started.way for history in stacked if history.started} == {"stacked"}
    assert_same_curves(stacked, train_all(task, "loop"))


def test_a_weighted_sampler_balances_the_classes_and_gives_the_same_curves_in_a_stack() -> None:
    x, y = torch.randn(200, 6), (torch.arange(200) >= 180).long()  # one in ten is of class 1
    sampler = WeightedRandomSampler(torch.where(y == 1, 9.0, 1.0), 100)
    data = Data((x, y), (x, y), sampler=sampler)
    drawn = torch.cat([batch[0] for batch in data.batches([3], 1, 25)])
    assert len(drawn) == 100
    assert 0.3 < y[drawn].double().mean() < 0.7
    assert torch.equal(drawn, torch.cat([batch[1] for batch in data.batches([0, 3], 1, 25)]))
    assert not torch.equal(drawn, torch.cat([batch[0] for batch in data.batches([3], 2, 25)]))
    for each in (data, Datasets(list(zip(x, y, strict=True)), list(zip(x, y, strict=True)), sampler=sampler)):
        task = task_of(each, lambda: nn.Sequential(nn.Linear(6, 2)))
        stacked = train_all(task)
        assert len(stacked[0].curves["train/loss"]) == 2 * 13
        assert_same_curves(stacked, train_all(task, "loop"))


@pytest.mark.parametrize(
    ("sampler", "complaint"),
    [
        (BatchSampler(RandomSampler(range(8)), 2, drop_last=False), "a BatchSampler is not supported"),
        (RandomSampler(range(9)), "yields indices from 0 to 8, but `train` has 8 samples"),
        (WeightedRandomSampler([1.0] * 8, 8, generator=torch.Generator()), "leave out `generator`"),
        (3, "must be a torch Sampler with a length"),
    ],
)
def test_an_unusable_sampler_is_refused(sampler: Any, complaint: str) -> None:
    x, y = torch.randn(8, 6), torch.arange(8) % 2
    with pytest.raises(InputError, match=complaint):
        next(Data((x, y), sampler=sampler).batches([0], 1, 4))


class Curriculum:
    """Sampler of the first samples at first, and of more in each epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        return iter((torch.randint(0, 10 * self.epoch, (8,))).tolist())


class Counting(Curriculum):
    """A sampler that counts its epochs itself."""

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return super().__iter__()


class Told(Curriculum):
    """A sampler that is told its epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_a_sampler_is_told_its_epoch_and_may_not_count_epochs_itself() -> None:
    x, y = torch.randn(100, 6), torch.arange(100) % 3
    data = Data((x, y), sampler=Told())
    first, third = ([data.batches([0], epoch, 8).__next__() for _ in range(2)] for epoch in (1, 3))
    assert torch.equal(*first)
    assert torch.equal(*third)
    assert first[0].max() < 10 <= third[0].max()
    with pytest.raises(InputError, match=r"changes `self\.epoch` while it is iterated.*define set_epoch"):
        next(Data((x, y), sampler=Counting()).batches([0], 1, 8))


class KeepsConfig:
    """A dataset that reads the config for each sample."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index + 1000 * self.config["seed"])
        return torch.randn(6, generator=generator), index % 3


def test_runs_share_no_dataset_that_keeps_the_config_of_one_of_them() -> None:
    def data(config: Any) -> Datasets:
        return Datasets(Subset(KeepsConfig(config), range(20)), Subset(KeepsConfig(config), range(12)))  # type: ignore[arg-type]

    task = FileTask({}, data, lambda _: nn.Linear(6, 3), cross_entropy, accuracy)
    together = train_all(task)
    for config, history in zip(CONFIGS, together, strict=True):
        (alone,) = train_all(task, configs=[config])
        assert_same_curves([alone], [history])


def pad(samples: list[Any]) -> Any:
    tokens, classes = zip(*samples, strict=True)
    padded = pad_sequence(tokens, batch_first=True)
    return (padded, (padded != 0).float()), torch.tensor(classes)


def test_sequences_of_different_lengths_are_padded_and_runs_of_one_seed_share_a_stack() -> None:
    torch.manual_seed(0)
    texts = [(torch.randint(1, 20, (3 + i % 4,)), i % 3) for i in range(60)]
    task = task_of(Datasets(texts[:40], texts[40:], collate_fn=pad))
    stacked = train_all(task)
    assert {history.started.way for history in stacked if history.started} == {"vmap"}
    assert_same_curves(stacked, train_all(task, "loop"))
    notes = [event.text for event in events(task, "auto", CONFIGS[:2]) if isinstance(event, Log)]
    assert any("with a collate_fn" in note for note in notes)


def test_a_collate_fn_without_one_row_per_sample_fails_the_run_with_a_reason() -> None:
    texts = [(torch.randint(1, 20, (4,)), i % 3) for i in range(60)]
    task = task_of(Datasets(texts, texts, collate_fn=lambda samples: (torch.zeros(1, 2), torch.zeros(1))))
    (failed,) = [event for event in events(task, "auto", CONFIGS[:1]) if isinstance(event, Failed)]
    assert "one row for each of the" in failed.message


def test_without_validation_data_nothing_is_validated_in_a_stack_and_alone() -> None:
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    task = task_of(Data((x, y)), lambda: nn.Sequential(nn.Linear(6, 3)))
    stacked = train_all(task)
    assert {history.started.way for history in stacked if history.started} == {"stacked"}
    assert all(history.finished is not None for history in stacked)
    assert {name for name in stacked[0].curves if "/" in name} == {"train/loss", "train/accuracy", "time/compute_s"}
    assert_same_curves(stacked, train_all(task, "loop"))
