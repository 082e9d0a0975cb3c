"""Synthetic data sets: their properties, their stability between releases, and the models that learn them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from helpers.training import CPU, History, train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import with_defaults
from labbench.train.data.toys import COMMON_WORDS, HIDDEN_WEIGHTS, TOPIC_WORDS, TOYS, VOCABULARY, make_texts, make_toy
from labbench.train.engine.layers import is_supported
from labbench.train.rng import permutations
from labbench.train.tasks.losses import classification_accuracy, classification_loss, perceptron_criterion
from labbench.train.tasks.task import load_task, make_data, make_model


def train_on(task: str, **config: Any) -> History:
    return train_run({"epochs": 15, "optimizer": "adam", "lr": 0.02, **config}, task=load_task(task))


@pytest.mark.parametrize("name", TOYS)
def test_toy_data_is_balanced_and_its_splits_are_disjoint(name: str) -> None:
    data = make_toy(name, None)
    assert data.test is not None
    inputs, classes = data.train
    assert inputs.dtype == torch.float32
    shares = classes.bincount() / len(classes)
    assert (shares - (torch.tensor([0.75, 0.25]) if name == "and" else 1 / len(shares))).abs().max() < 0.05
    if name in ("moons", "spirals"):
        rows = [set(map(tuple, split[0].tolist())) for split in (data.train, data.val, data.test)]
        assert len(set().union(*rows)) == 2000


def test_the_choices_of_the_parameter_data_are_the_toys() -> None:
    assert set(BUILTIN["toy"]["data"].choices) == TOYS.keys()


def test_toy_data_never_changes_between_releases() -> None:
    """Recorded results depend on these numbers, to the fourth decimal: a libm may differ in the last bits."""
    digests = {}
    for name in TOYS:
        rounded = (make_toy(name, None).train[0].double() * 1e4).round().to(torch.int64)
        digests[name] = hashlib.sha256(rounded.numpy().astype("<i8").tobytes()).hexdigest()[:12]
    digests["texts"] = hashlib.sha256(make_texts(20, 1.0).train[0].numpy().astype("<i8").tobytes()).hexdigest()[:12]
    assert digests == {
        "moons": "90580be77c13",
        "spirals": "80ba7174004c",
        "xor": "9e7b9ac82ea1",
        "and": "9e7b9ac82ea1",
        "separable": "72f4eda1b273",
        "flowers": "574585a3941a",
        "texts": "69b9d190ae30",
    }


def test_noise_has_the_configured_deviation() -> None:
    exact, noisy = make_toy("xor", 0.0).train[0], make_toy("xor", 0.3).train[0]
    assert set(map(tuple, exact.tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert (noisy - exact).std().item() == pytest.approx(0.3, rel=0.05)


def test_separable_inputs_are_binary_and_linearly_separable_with_a_margin() -> None:
    inputs, classes = make_toy("separable", None).train
    assert set(inputs.unique().tolist()) == {0, 1}
    votes = (2 * inputs - 1) @ torch.tensor(HIDDEN_WEIGHTS, dtype=torch.float32)
    assert torch.equal(votes > 0, classes == 1)
    assert votes.abs().min() >= 1


def test_flowers_are_a_table_of_the_size_of_iris() -> None:
    data = make_toy("flowers", None)
    assert data.test is not None
    assert [tuple(split[0].shape) for split in (data.train, data.val, data.test)] == [(90, 4), (30, 4), (30, 4)]
    assert all(split[1].bincount().tolist() == [len(split[1]) // 3] * 3 for split in (data.train, data.val, data.test))
    assert (data.train[0] > 0).all()


@pytest.mark.parametrize("name", ["moons", "xor", "and", "separable"])
def test_a_small_network_learns_each_toy(name: str) -> None:
    assert train_on("toy", data=name).last("test/accuracy") > 0.97


def test_a_larger_network_learns_the_spirals() -> None:
    assert train_on("toy", data="spirals", hidden=[32, 32], epochs=40).last("test/accuracy") > 0.95


def test_a_perceptron_learns_and_but_never_xor() -> None:
    rule = {"model": "perceptron", "optimizer": "sgd", "lr": 1.0, "batch_size": 1, "epochs": 4}
    assert train_on("toy", data="and", **rule).last("val/accuracy") > 0.98
    assert train_on("toy", data="xor", noise=0.0, **rule).last("val/accuracy") <= 0.75


def test_the_perceptron_follows_rosenblatts_rule_exactly() -> None:
    """w += lr * y * x for each mistake, from zero, in the order of the epoch's permutation."""
    task = load_task("toy")
    config = {**with_defaults({"data": "separable", "model": "perceptron"}, task.params), "seed": 3}
    inputs, classes = make_data(task, config).train
    weights, bias, lr = torch.zeros(inputs.shape[1], dtype=torch.float64), 0.0, 0.5
    mistakes = []
    for i in permutations([3], 1, len(inputs), CPU)[0].tolist():
        x, y = inputs[i].double(), 2 * int(classes[i]) - 1
        wrong = y * (weights @ x + bias) <= 0
        mistakes.append(-y * float(weights @ x + bias) if wrong else 0.0)
        if wrong:
            weights, bias = weights + lr * y * x, bias + lr * y
    history = train_run({**config, "optimizer": "sgd", "lr": lr, "batch_size": 1, "epochs": 1}, task=task)
    assert list(history.curves["train/loss"].values()) == pytest.approx(mistakes, abs=1e-5)
    assert sum(loss > 0 for loss in mistakes) > 50


def test_one_output_uses_the_perceptron_criterion_and_several_use_cross_entropy() -> None:
    one, classes = torch.tensor([[0.5], [-2.0], [0.0]]), torch.tensor([1, 1, 0])
    assert perceptron_criterion(one, classes).tolist() == [0, 2, 0]
    assert classification_loss(one, classes).tolist() == [0, 2, 0]
    assert classification_accuracy(one, classes)["accuracy"].tolist() == [True, False, True]
    two = torch.randn(3, 2)
    torch.testing.assert_close(classification_loss(two, classes), -two.log_softmax(1)[torch.arange(3), classes])
    assert torch.equal(classification_accuracy(two, classes)["accuracy"], two.argmax(1) == classes)


def test_a_perceptron_refuses_three_classes() -> None:
    task = load_task("toy")
    config = {**with_defaults({"data": "flowers", "model": "perceptron"}, task.params), "seed": 0}
    with pytest.raises(InputError, match="separates two classes, but flowers has 3"):
        make_model(task, config)


def test_toys_accept_a_list_of_layers_without_image_layers() -> None:
    task = load_task("toy")
    config = with_defaults({"layers": ["linear 8", "tanh", "linear 2"]}, task.params) | {"seed": 0}
    assert make_model(task, config)(torch.zeros(3, 2)).shape == (3, 2)
    with pytest.raises(InputError, match=r'layers\[0\] = "conv 8": its input is 2 numbers, but it needs an image'):
        make_model(task, {**config, "layers": ["conv 8"]})


def test_word_frequencies_follow_the_configured_power_law() -> None:
    words = make_texts(20, 1.0).train[0]
    common = words[words < COMMON_WORDS].bincount(minlength=COMMON_WORDS).double()
    harmonic = sum(1 / n for n in range(1, COMMON_WORDS + 1))
    assert (common[0] / common.sum()).item() == pytest.approx(1 / harmonic, rel=0.1)
    assert (common[9] / common[0]).item() == pytest.approx(0.1, rel=0.3)
    even = make_texts(20, 0.0).train[0]
    assert even[even < COMMON_WORDS].bincount(minlength=COMMON_WORDS).double().max() < 60
    assert int(words.max()) < VOCABULARY


def test_a_text_has_words_of_its_topic_and_of_no_other() -> None:
    inputs, topics = make_texts(50, 1.0).val
    special = inputs >= COMMON_WORDS
    assert special.double().mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(((inputs - COMMON_WORDS) // TOPIC_WORDS)[special], topics[:, None].expand_as(inputs)[special])


def test_an_embedding_learns_the_texts() -> None:
    assert train_on("texts", hidden=[16]).last("test/accuracy") > 0.8


@pytest.mark.parametrize("task", ["toy", "texts"])
def test_the_networks_consist_of_layers_that_can_be_stacked(task: str) -> None:
    config = {**with_defaults({"batchnorm": True, "dropout": 0.5, "hidden": [8]}, BUILTIN[task]), "seed": 0}
    assert is_supported(make_model(load_task(task), config))
