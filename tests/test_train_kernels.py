"""Matrix products, convolutions and pooling of stacks on a CPU: torch's own results and gradients, run by run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor

from labbench.train import kernels

S, N, C, FILTERS = 3, 9, 2, 4


def images(height: int = 7, width: int = 6) -> Tensor:
    """(S, N, C, height, width) of few different values, so that windows have several largest ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-2, 3, (S, N, C, height, width), generator=generator).double().requires_grad_()


def results(outputs: Tensor, *sources: Tensor) -> list[Tensor]:
    """The outputs, and gradients in an arbitrary direction."""
    direction = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    return [outputs, *torch.autograd.grad(outputs, sources, direction)]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


def each_run(function: Callable[..., Tensor], *stacked: Tensor) -> Tensor:
    return torch.stack([function(*parts) for parts in zip(*stacked, strict=True)])


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_convolution_is_torchs(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], biased: bool
) -> None:
    x = images()
    weight = torch.randn(S, FILTERS, C, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(S, FILTERS, dtype=torch.float64, requires_grad=True)
    sources = (x, weight, bias) if biased else (x, weight)
    ours = kernels.convolution(x, weight, bias if biased else None, stride, padding)
    theirs = each_run(lambda *parts: F.conv2d(*parts, stride=stride, padding=padding), *sources)
    assert_same(results(ours, *sources), results(theirs, *sources))


def test_many_samples_are_convolved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(S, 30, C, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(S, FILTERS, C, 3, 3, dtype=torch.float64, requires_grad=True)
    at_once = results(kernels.convolution(x, weight, None, (1, 1), (1, 1)), x, weight)
    monkeypatch.setattr(kernels, "PATCHES_BYTES", 100)
    assert_same(results(kernels.convolution(x, weight, None, (1, 1), (1, 1)), x, weight), at_once)


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (1, 4)])
@pytest.mark.parametrize(("ours", "theirs"), [(kernels.max_pool, F.max_pool2d), (kernels.avg_pool, F.avg_pool2d)])
def test_pooling_is_torchs_where_several_are_largest_and_pixels_are_left_over(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], window: tuple[int, int]
) -> None:
    x = images()
    assert_same(results(ours(x, window), x), results(each_run(lambda part: theirs(part, window), x), x))


@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_layer_is_torchs(biased: bool) -> None:
    x = torch.randn(S, 5, N, dtype=torch.float64, requires_grad=True)  # (S, I, N)
    weight = torch.randn(S, FILTERS, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(S, FILTERS, dtype=torch.float64, requires_grad=True)
    sources = (x, weight, bias) if biased else (x, weight)
    ours = kernels.linear(x, weight, bias if biased else None)
    theirs = each_run(lambda part, *own: F.linear(part.T, *own).T, *sources)
    assert_same(results(ours, *sources), results(theirs, *sources))


def test_a_run_that_overflows_says_nothing_and_leaves_the_others_alone() -> None:
    """Warnings are errors here, and numpy warns of what torch takes as it comes."""
    x = torch.ones(2, 5, N)
    weight = torch.ones(2, FILTERS, 5)
    weight[1] = 3e38
    y = kernels.linear(x, weight, None)
    assert torch.isinf(y[1]).all()
    assert torch.equal(y[0], torch.full((FILTERS, N), 5.0))


def test_a_frozen_first_layer_needs_no_gradient_of_its_images() -> None:
    x = images().detach()
    weight = torch.randn(S, FILTERS, C, 3, 3, dtype=torch.float64, requires_grad=True)
    y = kernels.convolution(x, weight, None, (1, 1), (1, 1))
    (gradient,) = torch.autograd.grad(y.sum(), [weight])
    (expected,) = torch.autograd.grad(each_run(lambda a, w: F.conv2d(a, w, padding=1), x, weight).sum(), [weight])
    torch.testing.assert_close(gradient, expected)
