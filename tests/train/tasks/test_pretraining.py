"""Pre-training: the weights that are loaded, the layers that train, and the features of a probe."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.training import histories, run_of, train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.train.loop import train
from labbench.train.tasks.pretraining import parse_pretraining, pretrain
from labbench.train.tasks.task import load_task, make_data, make_model


def full(task: str, **config: Any) -> dict[str, Any]:
    return with_defaults(config, {**TRAINING, **BUILTIN[task]})


def model(**config: Any) -> nn.Sequential:
    network = make_model(load_task("transfer"), full("transfer", **config))
    assert isinstance(network, nn.Sequential)
    return network


def same_body(first: nn.Sequential, second: nn.Sequential) -> bool:
    pairs = zip(first[:-1].parameters(), second[:-1].parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_pretraining_learns_its_classes() -> None:
    pretraining = parse_pretraining(full("transfer"))
    probe = load_task("transfer").data(full("transfer", classes=[0, 1, 2, 3, 4]))
    scores: Tensor = pretrain(pretraining)(probe.val[0])
    assert (scores.argmax(1) == probe.val[1]).double().mean() > 0.97
    assert not any(parameter.requires_grad for parameter in pretrain(pretraining).parameters())


def test_pretrained_weights_are_loaded_into_all_but_the_last_layer() -> None:
    source = pretrain(parse_pretraining(full("transfer")))
    for start, is_pretrained, trainable in (("scratch", False, 6), ("finetuned", True, 6), ("frozen", True, 2)):
        network = model(start=start)
        assert same_body(network, source) == is_pretrained
        assert sum(parameter.requires_grad for parameter in network.parameters()) == trainable
    assert torch.equal(model(start="scratch")[-1].weight, model(start="frozen")[-1].weight)


def test_a_run_cannot_change_the_pretrained_weights_of_others() -> None:
    network = model(start="finetuned")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    assert not same_body(model(start="finetuned"), network)


def test_each_seed_has_its_own_pretraining() -> None:
    assert not same_body(model(seed=0), model(seed=1))
    assert same_body(model(seed=1, train_size=10), model(seed=1, train_size=20))


def test_pretrained_convolutions_reach_a_lower_loss() -> None:
    """After a hundred updates a pre-trained CNN is better than a new one. (An MLP gains nothing on these digits.)"""
    config = {"model": "cnn", "train_size": 100, "epochs": 10, "batch_size": 10, "optimizer": "adam", "lr": 0.001}
    runs = [
        run_of({**config, "start": start, "seed": seed}, f"{start} {seed}")
        for start in ("scratch", "finetuned")
        for seed in range(2)
    ]
    stack = make_stack(runs, task="transfer", stop=None, runtime=Runtime())
    by_run = histories(train(stack, load_task("transfer"), "cpu"))
    losses = {key: history.last("val/loss") for key, history in by_run.items()}
    assert all(losses[f"finetuned {seed}"] < losses[f"scratch {seed}"] - 0.1 for seed in range(2))


def test_a_probe_receives_the_activations_of_its_layer() -> None:
    config = full("probe", layer=2, hidden=[20, 30])
    data, network = make_data(load_task("probe"), config), pretrain(parse_pretraining(config))
    pixels = make_data(load_task("probe"), {**config, "layer": 0})
    assert (pixels.train[0].shape[1], data.train[0].shape[1]) == (64, 30)
    torch.testing.assert_close(network[-1](data.val[0]), network(pixels.val[0]))
    assert torch.equal(pixels.val[1], data.val[1])
    assert make_model(load_task("probe"), config)(data.val[0]).shape == (len(data.val[0]), 5)


def test_a_probe_without_pretraining_uses_the_initial_weights() -> None:
    config = full("probe", pretrain_epochs=0)
    untrained = make_data(load_task("probe"), config)
    assert not torch.equal(untrained.val[0], make_data(load_task("probe"), {**config, "pretrain_epochs": 5}).val[0])


def test_a_probe_learns() -> None:
    history = train_run({"layer": 1, "epochs": 20, "optimizer": "adam", "lr": 0.01}, task=load_task("probe"))
    assert history.last("val/accuracy") > 0.8


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"layer": 3}, "layer = 3: the network has 2 hidden layers"),
        ({"source_classes": [0, 11]}, "there is no class 11"),
        ({"source_classes": [4]}, "name at least two classes"),
    ],
)
def test_unknown_layers_and_classes_are_refused(config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make_data(load_task("probe"), full("probe", **config))
