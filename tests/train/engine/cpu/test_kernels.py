"""Hand-written layer kernels have the results and gradients of torch, run by run."""

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
    """Return images (S, N, C, height, width) of few different values, so that windows have several maxima."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-2, 3, (S, samples, C, height, width), generator=generator).double()


def make_models(layers: list[nn.Module]) -> list[nn.Sequential]:
    """Return S models of these layers with different parameters."""
    models = []
    for seed in range(S):
        torch.manual_seed(seed)
        model = copy.deepcopy(nn.Sequential(*layers)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        models.append(model)
    return models


def stacked(models: list[nn.Sequential]) -> tuple[Tensors, Tensors]:
    """Return trained parameters, as views of rows as in a stack, and all other tensors; shape (S, ...) each."""
    rows = FlatParameters({name: p.shape for name, p in models[0].named_parameters() if p.requires_grad})
    states = [model.state_dict() for model in models]
    fixed = {name: torch.stack([each[name] for each in states]) for name in states[0] if name not in rows.shapes}
    return rows.views(rows.pack(states, torch.empty(0, dtype=torch.float64))), without_aliases(models[0], fixed)


def without_aliases(model: nn.Sequential, tensors: Tensors) -> Tensors:
    """Drop the second names that a module used twice has in a state_dict."""
    names = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: value for name, value in tensors.items() if name in names}


@pytest.fixture(autouse=True)
def evaluate_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate two samples at a time, if the layers allow it."""
    monkeypatch.setattr(backprop, "MIN_EVALUATION_SAMPLES", 2)


def assert_equal_to_torch(models: list[nn.Sequential], inputs: Tensor) -> None:
    """Compare outputs, gradients, buffers, and outputs in eval mode afterwards, with torch."""
    trained, fixed = stacked(models)
    ours = Backprop(models[0], trained, batch_size=2)
    arrays = ours.layer_arrays(trained | fixed)
    outputs = ours.forward(arrays, inputs.clone())
    direction = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view(outputs.shape)
    rows = FlatParameters({name: value.shape[1:] for name, value in trained.items()})
    gradients = rows.views(torch.full((S, rows.width), torch.nan, dtype=torch.float64))
    ours.backward(arrays, ours.layer_arrays(gradients), direction)

    for run, model in enumerate(copy.deepcopy(models)):
        expected = model(inputs[run])
        assert_close(outputs[run], expected)
        expected.backward(direction[run])
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                assert_close(gradients[name][run], parameter.grad)
        for name, value in model.named_buffers():
            assert_close(fixed[name][run], value)

    for model in models:
        set_mode(model, False)
    evaluated = ours.infer(arrays, inputs)
    for run, model in enumerate(models):
        model.load_state_dict({name: value[run] for name, value in (trained | fixed).items()}, strict=False)
        assert_close(evaluated[run], model(inputs[run]))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows_bytes", [1, 3000, 2**20], ids=["one row", "a few rows", "all rows"])
def test_convolutions(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    bias: bool,
    rows_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(im2col, "ROWS_BYTES", rows_bytes)
    first = nn.Conv2d(C, 4, 1)  # so that the second needs the gradient of its inputs
    layers = [first, nn.Conv2d(4, 3, kernel, stride, padding, bias=bias)]
    assert_equal_to_torch(make_models(layers), images())


@pytest.mark.parametrize("rows_bytes", [1, 2**20])
def test_many_samples_are_convolved_in_parts(rows_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "PATCHES_BYTES", 100)
    monkeypatch.setattr(im2col, "ROWS_BYTES", rows_bytes)
    layers = [nn.Conv2d(C, 4, 3, padding=1), nn.Conv2d(4, 3, 3)]
    assert_equal_to_torch(make_models(layers), images(samples=30))


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
def test_pooling_with_ties_and_leftover_pixels(pooling: nn.Module) -> None:
    exact = nn.Conv2d(C, C, 1, bias=False)
    models = make_models([exact, pooling])
    for model in models:
        with torch.no_grad():
            model[0].weight.copy_(torch.eye(C).view(C, C, 1, 1))
    assert_equal_to_torch(models, images())


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
    assert_equal_to_torch(make_models(layers), images(samples=samples))


def test_embedding() -> None:
    layers = [nn.Embedding(11, 4), nn.AvgPool2d((6, 1)), nn.Flatten(), nn.Linear(4, 3)]
    words = torch.randint(0, 11, (S, N, 6), generator=torch.Generator().manual_seed(0))
    assert_equal_to_torch(make_models(layers), words)


def test_a_frozen_backbone_keeps_its_statistics_and_gets_no_gradient() -> None:
    layers = [nn.Conv2d(C, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(60, 4)]
    models = make_models(layers)
    for model in models:
        freeze(model)
        set_mode(model, True)
    assert_equal_to_torch(models, images())


def test_inputs_are_not_changed() -> None:
    inputs = images()
    before = inputs.clone()
    trained, _ = stacked(models := make_models([nn.ReLU(), nn.Flatten(), nn.Linear(84, 3)]))
    ours = Backprop(models[0], trained, batch_size=2)
    for compute in (ours.forward, ours.infer):
        compute(ours.layer_arrays(trained), inputs)
        assert torch.equal(inputs, before)


def test_a_run_that_overflows_gives_no_warning_and_does_not_affect_others() -> None:
    """Warnings are errors in tests, and numpy warns of overflows that torch accepts."""
    model = nn.Sequential(nn.Linear(5, 4, bias=False))
    weight = torch.ones(2, 4, 5)
    weight[1] = 3e38
    ours = Backprop(model, {"0.weight": weight}, batch_size=2)
    outputs = ours.forward(ours.layer_arrays({"0.weight": weight}), torch.ones(2, N, 5))
    assert torch.isinf(outputs[1]).all()
    assert torch.equal(outputs[0], torch.full((N, 4), 5.0))


def test_running_statistics_with_momentum_1_are_exact_in_float32() -> None:
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
def test_the_tile_width_changes_no_bit(layers: list[nn.Module], samples: int) -> None:
    models = make_models(layers)
    rows = FlatParameters({name: p.shape for name, p in models[0].named_parameters()})
    parameters = rows.pack([model.float().state_dict() for model in models], torch.empty(0))
    inputs = images(samples=samples).float()
    inputs[0] *= torch.inf  # a neighbour that has diverged

    def forward_backward(runs: slice) -> tuple[Tensor, Tensor]:
        ours = Backprop(models[0], rows.shapes, batch_size=2)
        buffers = {name: torch.stack([b] * len(inputs[runs])) for name, b in models[0].named_buffers()}
        gradients = torch.zeros_like(parameters[runs])
        arrays = ours.layer_arrays(rows.views(parameters[runs]) | buffers)
        outputs = ours.forward(arrays, inputs[runs])
        ours.backward(arrays, ours.layer_arrays(rows.views(gradients)), torch.ones_like(outputs))
        return outputs, gradients

    whole_stack = forward_backward(slice(0, S))
    for start, end in ((1, 2), (1, 3), (2, 3)):
        for whole, part in zip(whole_stack, forward_backward(slice(start, end)), strict=True):
            assert torch.equal(whole[start:end], part)


def test_all_layers_of_the_built_in_networks_have_hand_written_kernels() -> None:
    layers = [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten()]
    image_layers = [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten()]
    assert AutogradKernel not in [choose_kernel(layer, 3) for layer in layers] + [
        choose_kernel(layer, 5) for layer in image_layers
    ]
