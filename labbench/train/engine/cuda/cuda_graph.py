"""Replay the step of a stack as one CUDA graph.

Without a graph the GPU waits for the host, which launches about a hundred small kernels per step. The captured function
reads and writes tensors at fixed addresses: the batch indices, and a step counter on the device that selects learning
rates and dropout keys from tables of the next steps. On a CPU the same function runs without capture, so that tests can
compare its results with the stack's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from labbench.train.data.dataset import Split
from labbench.train.data.samples import Samples
from labbench.train.engine.cuda.capture_check import CaptureCheck
from labbench.train.engine.dropout import DropoutMasks
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import StepResult, TrainingState
from labbench.train.rng import Purpose, keys, words

TABLE_STEPS = 256
"""Steps in a table of learning rates or dropout keys."""
WARMUP_STEPS = 3
"""Steps on the stream of the capture, in which libraries allocate memory; the updates are rolled back."""

RTOL, ATOL = 1e-4, 1e-6
"""Tolerances between a replayed and an ordinary step; tight, because both use the same kernels."""


class CudaGraphStepper:
    """`Stepper` that replays the steps of a `StackedStepper` for full batches.

    Everything else is delegated to the `StackedStepper`.
    """

    def __init__(self, stack: StackedStepper, samples: int) -> None:
        """Allocate the static tensors; `samples` is the size of a full batch.

        Until `capture` is called, steps run without a graph.
        """
        self.stack, self.engine, self.data, self._samples = stack, stack.engine, stack.data, samples
        self._set_up()

    def _set_up(self) -> None:
        """Allocate the tensors with fixed addresses for the current runs."""
        device, runs = self.data.device, len(self.stack.parameters)
        self._batch = torch.zeros(runs, self._samples, dtype=torch.int64, device=device)  # (S, N)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)  # (1,), steps since the tables' first step
        self._rates = torch.zeros(TABLE_STEPS, runs, dtype=self.data.dtype, device=device)  # (T, S)
        self._masks: list[CudaGraphMasks] = []
        self._tile = self.stack.make_whole_tile(self._make_masks)
        self._first_step = 0
        """First step in the tables."""
        self._next_step = -1
        """Step that the counter points to; -1 if it must be set."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._step_result: StepResult

    def _make_masks(self, seeds: Sequence[int], probabilities: Sequence[float], layer: int) -> DropoutMasks:
        self._masks.append(CudaGraphMasks(seeds, probabilities, layer, self.stack.step_counter, self._counter))
        return self._masks[-1]

    def update(self) -> StepResult:
        """Update the runs by the samples in `_batch` and advance the counter.

        A CUDA graph captures this function.
        """
        for masks in self._masks:
            masks.begin_step()
        rates = self._rates.index_select(0, self._counter).T  # (S, 1)
        result = self.stack.update([self._tile], self._batch, rates)
        self._counter.add_(1)
        return result

    def step(self, batch: Tensor) -> StepResult:
        """Update each run by its samples, `batch` of shape (S, N); see `Stepper.step`."""
        step = self.stack.step_counter.step
        if batch.shape[1] != self._samples:
            return self.stack.step(batch)
        if not self._first_step <= step < self._first_step + TABLE_STEPS or self._next_step < 0:
            self._fill_tables(step)
        if step != self._next_step:
            self._counter.fill_(step - self._first_step)
        self._batch.copy_(batch)
        if self._graph is None:
            losses, metrics = self.update()
        else:
            self._graph.replay()
            losses, metrics = self._step_result
        self.stack.step_counter.step = self._next_step = step + 1
        return losses.clone(), {name: values.clone() for name, values in metrics.items()}

    def _fill_tables(self, step: int) -> None:
        """Fill the tables for `TABLE_STEPS` steps from `step` on."""
        self._first_step, self._next_step = step, -1
        rates = [self.stack.schedule.rates_at(s).tolist() for s in range(step, step + TABLE_STEPS)]
        self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype, device=self._rates.device))
        for masks in self._masks:
            masks.fill_tables(step)

    def capture(self) -> None:
        """Capture the step as a CUDA graph and use it from now on.

        The state of the runs is rolled back, also after an error.

        Raises:
            CaptureError: A graph cannot hold the step.
            RuntimeError: The results of the first replay and of the step differ, or torch cannot capture the step.
        """
        self._fill_tables(self.stack.step_counter.step)
        self._batch.copy_(torch.arange(self._samples, device=self._batch.device))
        roll_back = make_restore([*self.stack.tensors(), self._counter])
        try:
            self.update()  # libraries and dropout tables are set up in the first step
            with CaptureCheck(self.data.device):
                self.update()
            graph = self._capture_graph()
            results = []
            for step in (self.update, graph.replay):
                roll_back()
                step()
                results.append([tensor.clone() for tensor in self.stack.tensors()])
            if not all(is_close(expected, replayed) for expected, replayed in zip(*results, strict=True)):
                raise RuntimeError("a replay gives other numbers than the step itself")
            self._graph = graph
        finally:
            roll_back()

    def _capture_graph(self) -> torch.cuda.CUDAGraph:
        """Return the captured step, which sets `_step_result`."""
        device = self.data.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                self.update()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step_result = self.update()
        return graph

    def evaluate(self, split: Split) -> StepResult:
        return self.stack.evaluate(split)

    def predict(self, split: Split) -> Samples:
        return self.stack.predict(split)

    def train(self, mode: bool) -> None:
        self.stack.train(mode)

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> Mapping[str, float]:
        return self.stack.end_epoch(index, measured)

    def state(self, index: int) -> TrainingState:
        return self.stack.state(index)

    def load(self, states: Sequence[TrainingState]) -> None:
        self.stack.load(states)
        self._rebuild()

    def keep(self, indices: Sequence[int]) -> None:
        self.stack.keep(indices)
        self._rebuild()

    def _rebuild(self) -> None:
        """Adapt to tensors with new addresses.

        The graph, if there is one, is captured again.
        """
        captured = self._graph is not None
        self._set_up()
        if captured:
            mode = self.stack.model.training
            self.train(True)
            self.capture()
            self.train(mode)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's state_dict; tensors have the shapes of a single model."""
        return self.stack.weights(index)


class CudaGraphMasks(DropoutMasks):
    """Dropout masks for the step that a counter on the device selects.

    The masks equal those of `DropoutMasks`, but the keys of the next steps are in a table on the device.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        probabilities: Sequence[float],
        layer: int,
        step_counter: StepCounter,
        counter: Tensor,
    ) -> None:
        super().__init__(seeds, probabilities, layer, step_counter)
        self._counter, self._first_step = counter, step_counter.step
        self._tables: list[Tensor] = []  # one per call within a step, (S, TABLE_STEPS, 2)
        limits = torch.tensor(self.keep_limits, device=counter.device).unsqueeze(1)  # (S, 1)
        self._highest_kept = (limits - 32769).clamp(min=-32768).to(torch.int16)  # (S, 1)
        self._scale = (65536 / limits).where(limits > 0, 0)  # (S, 1)

    def begin_step(self) -> None:
        """Start a step: the next call of the layer is its first."""
        self._call = 0

    def fill_tables(self, step: int) -> None:
        """Fill the tables for `TABLE_STEPS` steps from `step` on."""
        self._first_step = step
        for call, table in enumerate(self._tables):
            table.copy_(self._keys(call))

    def draw(self, count: int, like: Tensor) -> Tensor:
        """Return a mask of shape (S, count); see `DropoutMasks.draw`."""
        if self._call == len(self._tables):
            self._tables.append(self._keys(self._call))
        table = self._tables[self._call]
        self._call += 1
        streams = table.index_select(1, self._counter).squeeze(1)  # (S, 2)
        draws = words(streams, (count + 1) // 2).view(torch.int16)[:, :count]  # (S, count)
        masks: Tensor = (draws <= self._highest_kept).to(like.dtype) * self._scale.to(like.dtype)
        return masks

    def draw_columns(self, samples: int, features: int, like: Tensor) -> Tensor:
        """Return a mask of shape (S, samples, features), with the numbers of `draw`."""
        return self.draw(samples * features, like).view(-1, samples, features)

    def _keys(self, call: int) -> Tensor:
        steps = range(self._first_step, self._first_step + TABLE_STEPS)
        layer = self.layer + (call << 16)
        return keys(self.seeds, Purpose.DROPOUT, layer=layer, steps=steps, device=self._counter.device)


def is_close(first: Tensor, second: Tensor) -> bool:
    """Return True if two tensors of one shape agree within tolerances.

    NaN equals NaN.
    """
    return torch.allclose(first, second, rtol=RTOL, atol=ATOL, equal_nan=True)


def make_restore(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Return a function that restores the tensors' current values in place.

    Tensors may have any shape.
    """
    values = [tensor.detach().clone() for tensor in tensors]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)

    return restore
