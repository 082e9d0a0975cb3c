"""Passes written by hand give torch's own results and gradients, run by run."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from labbench.train import patches
from labbench.train.backprop import Backprop, by_hand
from labbench.train.freezing import freeze, set_mode
from labbench.train.passes import ByGraph

S, N, C = 3, 9, 2
Tensors = dict[str, Tensor]


def images(height: int = 7, width: int = 6, samples: int = N) -> Tensor:
    """(S, N, C, height, width) of few different values, so that windows have several largest ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-2, 3, (S, samples, C, height, width), generator=generator).double()


def models_of(layers: list[nn.Module]) -> list[nn.Sequential]:
    """As many models of these layers as there are runs, with other parameters each."""
    models = []
    for seed in range(S):
        torch.manual_seed(seed)
        model = copy.deepcopy(nn.Sequential(*layers)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        models.append(model)
    return models


def stacked(models: list[nn.Sequential], *, learning: bool) -> Tensors:
    """What learns of these models, or everything else they have: (S, ...)."""
    trained = [name for name, p in models[0].named_parameters() if p.requires_grad]
    states = [model.state_dict() for model in models]
    return {name: torch.stack([state[name] for state in states]) for name in states[0] if (name in trained) == learning}


def assert_trained_as_torch_does(models: list[nn.Sequential], inputs: Tensor) -> None:
    """A pass forward and back, the buffers afterwards, and what the model then says of the same inputs."""
    learning, fixed = stacked(models, learning=True), stacked(models, learning=False)
    ours = Backprop(models[0], learning)
    own = ours.own(learning | fixed)
    outputs = ours.forward(own, inputs.clone(), training=True).clone()
    direction = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view(outputs.shape)
    gradients = {name: torch.full_like(value, torch.nan) for name, value in learning.items()}
    ours.backward(own, ours.own(gradients), direction)

    for run, model in enumerate(copy.deepcopy(models)):
        expected = model(inputs[run])
        close(outputs[run], expected)
        expected.backward(direction[run])
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                close(gradients[name][run], parameter.grad)
        for name, value in model.named_buffers():
            close(fixed[name][run], value)

    for model in models:
        set_mode(model, False)
    told = ours.forward(own, inputs, training=False)
    for run, model in enumerate(models):
        model.load_state_dict({name: value[run] for name, value in (learning | fixed).items()})
        close(told[run], model(inputs[run]))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], bias: bool) -> None:
    first = nn.Conv2d(C, 4, 1)  # so that the second needs a gradient of its images
    layers = [first, nn.Conv2d(4, 3, kernel, stride, padding, bias=bias)]
    assert_trained_as_torch_does(models_of(layers), images())


def test_many_samples_are_convolved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "PATCHES_BYTES", 100)
    layers = [nn.Conv2d(C, 4, 3, padding=1), nn.Conv2d(4, 3, 3)]
    assert_trained_as_torch_does(models_of(layers), images(samples=30))


@pytest.mark.parametrize(
    "pooling",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d((3, 2)),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(2, dilation=2, stride=1, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.AvgPool2d((1, 4)),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
    ],
    ids=repr,
)
def test_pooling_where_several_are_largest_and_pixels_are_left_over(pooling: nn.Module) -> None:
    exact = nn.Conv2d(C, C, 1, bias=False)
    models = models_of([exact, pooling])
    for model in models:
        with torch.no_grad():
            model[0].weight.copy_(torch.eye(C).view(C, C, 1, 1))
    assert_trained_as_torch_does(models, images())


NETWORKS: dict[str, list[nn.Module]] = {
    "activation first": [nn.Flatten(), nn.ReLU(), nn.Linear(84, 5), nn.ReLU(), nn.Linear(5, 4)],
    "without biases": [nn.Flatten(), nn.Linear(84, 5, bias=False), nn.BatchNorm1d(5, affine=False), nn.ReLU()],
    "no running statistics": [nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Tanh()],
    "batch norm first": [nn.BatchNorm2d(C), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4)],
    "pooled and normalised": [nn.Conv2d(C, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.GELU()],
    "graphs between": [nn.Flatten(), nn.Linear(84, 6), nn.LayerNorm(6), nn.ReLU(), nn.Sigmoid(), nn.Linear(6, 4)],
    "rows are features": [nn.Linear(6, 4), nn.ReLU(), nn.Flatten(2), nn.Conv1d(C, 3, 5), nn.ReLU(), nn.Flatten()],
    "groups and names": [nn.Conv2d(C, 4, 3, padding="same", groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2)],
}


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("samples", [N, 2])
def test_networks(layers: list[nn.Module], samples: int) -> None:
    assert_trained_as_torch_does(models_of(layers), images(samples=samples))


def test_words_are_embedded() -> None:
    layers = [nn.Embedding(11, 4), nn.AvgPool2d((6, 1)), nn.Flatten(), nn.Linear(4, 3)]
    words = torch.randint(0, 11, (S, N, 6), generator=torch.Generator().manual_seed(0))
    assert_trained_as_torch_does(models_of(layers), words)


def test_a_frozen_backbone_keeps_its_statistics_and_gets_no_gradient() -> None:
    layers = [nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(60, 4)]
    models = models_of(layers)
    for model in models:
        freeze(model)
        set_mode(model, True)
    assert_trained_as_torch_does(models, images())


def test_inputs_are_left_as_they_are() -> None:
    inputs = images()
    before = inputs.clone()
    models = models_of([nn.ReLU(), nn.Flatten(), nn.Linear(84, 3)])
    ours = Backprop(models[0], stacked(models, learning=True))
    for training in (True, False):
        ours.forward(ours.own(stacked(models, learning=True)), inputs, training=training)
        assert torch.equal(inputs, before)


def test_a_run_that_overflows_says_nothing_and_leaves_the_others_alone() -> None:
    """Warnings are errors here, and numpy warns of what torch takes as it comes."""
    model = nn.Sequential(nn.Linear(5, 4, bias=False))
    weight = torch.ones(2, 4, 5)
    weight[1] = 3e38
    ours = Backprop(model, {"0.weight": weight})
    outputs = ours.forward(ours.own({"0.weight": weight}), torch.ones(2, N, 5), training=True)
    assert torch.isinf(outputs[1]).all()
    assert torch.equal(outputs[0], torch.full((N, 4), 5.0))


def test_the_layers_of_the_built_in_networks_are_all_written_by_hand() -> None:
    layers = [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten()]
    pictures = [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten()]
    assert ByGraph not in [by_hand(layer, 3) for layer in layers] + [by_hand(layer, 5) for layer in pictures]
