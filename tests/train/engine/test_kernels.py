"""Passes written by hand give torch's own results and gradients, run by run."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from labbench.train.engine.cpu import backprop, im2col
from labbench.train.engine.cpu.backprop import Backprop, choose_kernel
from labbench.train.engine.cpu.kernels import AutogradKernel
from labbench.train.engine.flat_params import FlatParameters
from labbench.train.engine.freezing import freeze, set_mode

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


def stacked(models: list[nn.Sequential]) -> tuple[Tensors, Tensors]:
    """What learns of these models, as views of rows, which is how a stack has it, and everything else: (S, ...)."""
    rows = FlatParameters({name: p.shape for name, p in models[0].named_parameters() if p.requires_grad})
    states = [model.state_dict() for model in models]
    fixed = {name: torch.stack([each[name] for each in states]) for name in states[0] if name not in rows.shapes}
    return rows.views(rows.pack(states, torch.empty(0, dtype=torch.float64))), without_copies(models[0], fixed)


def without_copies(model: nn.Sequential, tensors: Tensors) -> Tensors:
    """A module that stands in two places has two names in a state_dict, of which one is its own."""
    own = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: value for name, value in tensors.items() if name in own}


@pytest.fixture(autouse=True)
def held_out_samples_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time, where the layers allow it."""
    monkeypatch.setattr(backprop, "MIN_EVALUATION_SAMPLES", 2)


def assert_trained_as_torch_does(models: list[nn.Sequential], inputs: Tensor) -> None:
    """A pass forward and back, the buffers afterwards, and what the model then says of the same inputs."""
    learning, fixed = stacked(models)
    ours = Backprop(models[0], learning, batch_size=2)
    own = ours.layer_arrays(learning | fixed)
    outputs = ours.forward(own, inputs.clone())
    direction = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view(outputs.shape)
    rows = FlatParameters({name: value.shape[1:] for name, value in learning.items()})
    gradients = rows.views(torch.full((S, rows.width), torch.nan, dtype=torch.float64))
    ours.backward(own, ours.layer_arrays(gradients), direction)

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
    told = ours.infer(own, inputs)
    for run, model in enumerate(models):
        model.load_state_dict({name: value[run] for name, value in (learning | fixed).items()}, strict=False)
        close(told[run], model(inputs[run]))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("together", [1, 3000, 2**20], ids=["one row", "a few rows", "all rows"])
def test_convolutions(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
    together: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(im2col, "ROWS_BYTES", together)
    first = nn.Conv2d(C, 4, 1)  # so that the second needs a gradient of its images
    layers = [first, nn.Conv2d(4, 3, kernel, stride, padding, bias=bias)]
    assert_trained_as_torch_does(models_of(layers), images())


@pytest.mark.parametrize("rows", [1, 2**20])
def test_many_samples_are_convolved_in_parts(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "PATCHES_BYTES", 100)
    monkeypatch.setattr(im2col, "ROWS_BYTES", rows)
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


SHARED = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Conv2d(C, C, 3, padding=1), nn.LayerNorm(6)
NETWORKS: dict[str, list[nn.Module]] = {
    "activation first": [nn.Flatten(), nn.ReLU(), nn.Linear(84, 5), nn.ReLU(), nn.Linear(5, 4)],
    "without biases": [nn.Flatten(), nn.Linear(84, 5, bias=False), nn.BatchNorm1d(5, affine=False), nn.ReLU()],
    "no running statistics": [nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.Tanh()],
    "batch norm first": [nn.BatchNorm2d(C), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4)],
    "pooled and normalised": [nn.Conv2d(C, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.GELU()],
    "graphs between": [nn.Flatten(), nn.Linear(84, 6), nn.LayerNorm(6), nn.ReLU(), nn.Sigmoid(), nn.Linear(6, 4)],
    "rows are features": [nn.Linear(6, 4), nn.ReLU(), nn.Flatten(2), nn.Conv1d(C, 3, 5), nn.ReLU(), nn.Flatten()],
    "one channel": [nn.Conv2d(C, 1, 3), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(20, 4)],
    "a linear layer twice": [nn.Flatten(), nn.Linear(84, 6), SHARED[0], nn.ReLU(), SHARED[0], nn.Tanh(), SHARED[0]],
    "norms twice": [nn.Flatten(), nn.Linear(84, 6), SHARED[1], SHARED[3], nn.Linear(6, 6), SHARED[3], SHARED[1]],
    "a convolution twice": [SHARED[2], nn.ReLU(), SHARED[2]],
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
    learning, _ = stacked(models := models_of([nn.ReLU(), nn.Flatten(), nn.Linear(84, 3)]))
    ours = Backprop(models[0], learning, batch_size=2)
    for way in (ours.forward, ours.infer):
        way(ours.layer_arrays(learning), inputs)
        assert torch.equal(inputs, before)


def test_a_run_that_overflows_says_nothing_and_leaves_the_others_alone() -> None:
    """Warnings are errors here, and numpy warns of what torch takes as it comes."""
    model = nn.Sequential(nn.Linear(5, 4, bias=False))
    weight = torch.ones(2, 4, 5)
    weight[1] = 3e38
    ours = Backprop(model, {"0.weight": weight}, batch_size=2)
    outputs = ours.forward(ours.layer_arrays({"0.weight": weight}), torch.ones(2, N, 5))
    assert torch.isinf(outputs[1]).all()
    assert torch.equal(outputs[0], torch.full((N, 4), 5.0))


def test_statistics_that_keep_nothing_of_the_past_are_exact_in_float32() -> None:
    norm = nn.BatchNorm1d(4, momentum=1.0)
    inputs = 0.7 + 1e-3 * torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    tensors = {name: value.clone()[None] for name, value in nn.Sequential(norm).state_dict().items()}
    ours = Backprop(nn.Sequential(norm), {}, batch_size=2)
    ours.forward(ours.layer_arrays(tensors), inputs)
    norm(inputs[0])
    assert norm.running_var is not None
    assert torch.allclose(tensors["0.running_var"][0], norm.running_var, rtol=1e-3, atol=0)


WIDTHS: dict[str, list[nn.Module]] = {
    "rows are features": [nn.Linear(6, 4), nn.ReLU(), nn.Flatten(), nn.Linear(56, 4)],
    "pooled first": [nn.MaxPool2d(2), nn.GELU(), nn.Flatten(), nn.Linear(18, 4)],
    "convolved": [nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)],
    "averaged": [nn.Conv2d(C, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)],
    "averaged in parts": [nn.Conv2d(C, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(18, 4)],
    "normalised": [nn.Flatten(), nn.Linear(84, 7), nn.LayerNorm(7), nn.Sigmoid(), nn.Linear(7, 4)],
}


@pytest.mark.parametrize("layers", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("samples", [N, 1, 16])
def test_how_many_runs_pass_together_changes_no_bit(layers: list[nn.Module], samples: int) -> None:
    models = models_of(layers)
    rows = FlatParameters({name: p.shape for name, p in models[0].named_parameters()})
    parameters = rows.pack([model.float().state_dict() for model in models], torch.empty(0))
    inputs = images(samples=samples).float()
    inputs[0] *= torch.inf  # a neighbour that has diverged

    def passed(runs: slice) -> tuple[Tensor, Tensor]:
        ours = Backprop(models[0], rows.shapes, batch_size=2)
        buffers = {name: torch.stack([b] * len(inputs[runs])) for name, b in models[0].named_buffers()}
        gradients = torch.zeros_like(parameters[runs])
        own = ours.layer_arrays(rows.views(parameters[runs]) | buffers)
        outputs = ours.forward(own, inputs[runs])
        ours.backward(own, ours.layer_arrays(rows.views(gradients)), torch.ones_like(outputs))
        return outputs, gradients

    together = passed(slice(0, S))
    for start, end in ((1, 2), (1, 3), (2, 3)):
        for whole, part in zip(together, passed(slice(start, end)), strict=True):
            assert torch.equal(whole[start:end], part)


def test_the_layers_of_the_built_in_networks_are_all_written_by_hand() -> None:
    layers = [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten()]
    pictures = [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten()]
    assert AutogradKernel not in [choose_kernel(layer, 3) for layer in layers] + [
        choose_kernel(layer, 5) for layer in pictures
    ]
