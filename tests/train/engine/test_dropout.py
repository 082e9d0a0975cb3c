"""Seeded dropout: the same masks for single, stacked and resumed runs, with the right drop probability."""

from __future__ import annotations

import hashlib

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labbench.errors import InputError
from labbench.train.engine.dropout import DropoutMasks, SeededDropout, swap_dropout
from labbench.train.engine.schedules import StepCounter

LIKE = torch.zeros((), dtype=torch.float32)


def mask_at(step: int, count: int, *, seed: int = 0, layer: int = 0, p: float = 0.5) -> torch.Tensor:
    """Return the mask of one layer at one step, shape (count,), drawn by a new `DropoutMasks`."""
    step_counter = StepCounter()
    step_counter.step = step
    return DropoutMasks([seed], [p], layer, step_counter).draw(count, LIKE)[0]


def test_masks_never_change_between_releases() -> None:
    is_kept = torch.stack([mask_at(step, 1001, seed=3, layer=1, p=0.3) > 0 for step in (0, 1, 500)])
    assert (
        hashlib.sha256(is_kept.numpy().tobytes()).hexdigest()
        == "2eb59ed27442333aea15d1bc46a0184001089e13df365ec617b51548989b9ff5"
    )


def test_a_mask_depends_on_its_step_and_not_on_the_steps_drawn_before() -> None:
    """Masks are made for many steps at once, and a resumed run starts at any step."""
    step_counter = StepCounter()
    masks = DropoutMasks([0], [0.5], 0, step_counter)
    for step in [*range(100), 1000, 3, 4]:
        step_counter.step = step
        count = 2048 if step % 20 else 990  # the last batch of an epoch is smaller
        assert torch.equal(masks.draw(count, LIKE)[0], mask_at(step, count))


def test_a_run_has_the_same_masks_alone_and_in_a_stack() -> None:
    seeds, probabilities = [4, 0, 4, 9], [0.5, 0.2, 0.0, 0.9]
    step_counter = StepCounter()
    layer = SeededDropout(DropoutMasks(seeds, probabilities, 2, step_counter))
    inputs = torch.randn(4, 33, 17)
    for step in range(5):
        step_counter.step = step
        stacked = layer(inputs)
        for row, (seed, p) in enumerate(zip(seeds, probabilities, strict=True)):
            alone = SeededDropout(DropoutMasks([seed], [p], 2, step_counter))
            assert torch.equal(stacked[row], alone(inputs[row]))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d])
def test_the_mask_does_not_depend_on_the_memory_layout(kind: type[nn.Module]) -> None:
    """Samples have different masks, and channels-last memory gives the same ones."""
    model = nn.Sequential(kind(0.5))
    swap_dropout(model, 0, StepCounter())
    inputs = torch.ones(6, 4, 8)
    outputs = model(inputs)
    model = nn.Sequential(kind(0.5))
    swap_dropout(model, 0, StepCounter())
    assert torch.equal(model(inputs.transpose(1, 2).contiguous().transpose(1, 2)), outputs)
    assert not torch.equal(outputs[0], outputs[1])


def test_a_sample_keeps_its_mask_in_a_smaller_batch() -> None:
    step_counter = StepCounter()
    layer = SeededDropout(DropoutMasks([0], [0.5], 0, step_counter))
    inputs = torch.randn(64, 31)
    assert torch.equal(layer(inputs)[:50], SeededDropout(DropoutMasks([0], [0.5], 0, step_counter))(inputs[:50]))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_fraction_p_is_dropped_and_the_mean_is_preserved(p: float) -> None:
    step_counter = StepCounter()
    masks = DropoutMasks(range(50), [p] * 50, 0, step_counter).draw(10_000, LIKE).flatten()
    assert abs((masks == 0).double().mean().item() - p) < 5 * (p * (1 - p) / len(masks)) ** 0.5
    assert masks.double().mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / len(masks)) ** 0.5)
    assert masks.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)


def test_masks_differ_between_steps_layers_and_seeds() -> None:
    masks = [mask_at(0, 64), mask_at(1, 64), mask_at(0, 64, layer=1), mask_at(0, 64, seed=1)]
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


def test_a_layer_called_twice_in_a_step_has_two_masks() -> None:
    step_counter = StepCounter()
    layer = SeededDropout(DropoutMasks([0], [0.5], 0, step_counter))
    inputs = torch.ones(8, 32)
    calls = [[layer(inputs), layer(inputs)] for step_counter.step in range(3)]
    assert len({tuple(mask.flatten().tolist()) for step in calls for mask in step}) == 6
    step_counter.step = 1
    resumed = SeededDropout(DropoutMasks([0], [0.5], 0, step_counter))
    assert torch.equal(resumed(inputs), calls[1][0])
    assert torch.equal(resumed(inputs), calls[1][1])


def test_gradients_are_multiplied_by_the_same_mask() -> None:
    inputs = torch.randn(16, 16, requires_grad=True)
    outputs = SeededDropout(DropoutMasks([0], [0.5], 0, StepCounter()))(inputs)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach() / inputs.detach())


def test_p_1_drops_everything_and_p_0_or_eval_mode_nothing() -> None:
    inputs = torch.randn(16, 16)
    assert torch.equal(SeededDropout(DropoutMasks([0], [1.0], 0, StepCounter()))(inputs), torch.zeros(16, 16))
    assert SeededDropout(DropoutMasks([0], [0.0], 0, StepCounter()))(inputs) is inputs
    assert SeededDropout(DropoutMasks([0], [0.5], 0, StepCounter())).eval()(inputs) is inputs


class DropoutEverywhere(nn.Module):
    """A network with nested, shared and channel dropout, and with AlphaDropout, which is not replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Dropout(0.5, inplace=True)
        self.inner = nn.Sequential(nn.Linear(4, 4), self.shared, nn.Sequential(nn.Dropout2d(0.25)))
        self.alpha = nn.AlphaDropout(0.5)


def test_every_torch_dropout_of_a_model_is_replaced_in_place() -> None:
    model, step_counter = DropoutEverywhere(), StepCounter()
    swap_dropout(model, 7, step_counter)
    channels = model.inner[2][0]
    assert isinstance(model.shared, SeededDropout)
    assert model.inner[1] is model.shared
    assert isinstance(channels, SeededDropout)
    assert (channels.spatial, channels.masks.layer, model.shared.masks.layer) == (2, 1, 0)
    assert (channels.masks.seeds, channels.masks.step_counter) == ([7], step_counter)
    assert isinstance(model.alpha, nn.AlphaDropout)


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.Dropout1d, (5, 8)), (nn.Dropout2d, (5, 8, 3)), (nn.Dropout3d, (5, 8, 3, 2))]
)
def test_channel_dropout_drops_whole_channels(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    model = nn.Sequential(kind(0.5))
    swap_dropout(model, 0, StepCounter())
    outputs = model(torch.ones(*shape, 7)).flatten(2)
    assert set(outputs.unique().tolist()) == {0, 2}
    assert torch.equal(outputs, outputs[..., :1].expand_as(outputs))


class Checkpointed(nn.Module):
    """Two blocks with dropout, which `torch.utils.checkpoint` runs again in the backward pass unless it is None."""

    def __init__(self, use_reentrant: bool | None, *, shares_dropout: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        dropout = nn.Dropout(0.5)
        self.first, *blocks = (
            nn.Linear(8, 8),
            *(nn.Sequential(nn.Linear(8, 8), dropout if shares_dropout else nn.Dropout(0.5)) for _ in range(2)),
        )
        self.blocks, self.use_reentrant = nn.ModuleList(blocks), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x) if self.use_reentrant is None else checkpoint(block, x, use_reentrant=self.use_reentrant)
        return x


def gradients_of(model: nn.Module) -> list[Tensor]:
    """Return the gradients of two steps, each of two microbatches."""
    step_counter = StepCounter()
    swap_dropout(model, 0, step_counter)
    for _ in range(2):
        for inputs in torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1)):
            model(inputs).square().sum().backward()
        step_counter.step += 1
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_block_repeats_its_masks_in_the_backward_pass(use_reentrant: bool) -> None:
    plain, repeated = gradients_of(Checkpointed(None)), gradients_of(Checkpointed(use_reentrant))
    assert all(map(torch.equal, plain, repeated))


def test_a_dropout_layer_that_several_checkpointed_blocks_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"give each call an nn\.Dropout of its own"):
        gradients_of(Checkpointed(False, shares_dropout=True))
