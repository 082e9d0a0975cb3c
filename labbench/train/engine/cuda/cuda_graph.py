"""Replay the step of a stack as one CUDA graph.

Without a graph the GPU waits for the host, which launches dozens of small kernels per step. The captured function reads
and writes tensors at fixed addresses: the batch indices, and a step counter on the device that selects learning rates
and dropout masks from tables of the next steps. On a CPU the same function runs without capture, so that tests can
compare its results with the stack's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from labbench.errors import is_out_of_memory
from labbench.train.data.dataset import Split
from labbench.train.data.samples import Samples
from labbench.train.engine.cuda.capture_check import CaptureCheck
from labbench.train.engine.cuda.graph_masks import GraphMasks
from labbench.train.engine.dropout import DropoutMasks
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import StepResult, TrainingState, Workload
from labbench.train.host_copies import to_device

TABLE_STEPS = 256
"""Steps in a table of learning rates, and maximum number of steps in a table of dropout masks."""
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
        device, runs = self.data.device, len(self.stack.updates.parameters)
        self._batch = torch.zeros(runs, self._samples, dtype=torch.int64, device=device)  # (S, N)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)  # (1,), steps since the tables' first step
        self._rates = torch.zeros(TABLE_STEPS, runs, dtype=self.data.dtype, device=device)  # (T, S)
        self._masks: list[GraphMasks] = []
        self._tile = self.stack.make_whole_tile(self._make_masks)
        self._first_step = 0
        """First step in the tables."""
        self._next_step = -1
        """Step that the counter points to; -1 if it must be set."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: StepResults | None = None

    def _make_masks(self, seeds: Sequence[int], probabilities: Sequence[float], layer: int) -> DropoutMasks:
        steps = self._counter, TABLE_STEPS
        self._masks.append(GraphMasks(seeds, probabilities, layer, self.stack.step_counter, steps))
        return self._masks[-1]

    def update(self) -> None:
        """Update the runs by the samples in `_batch`, write the results and advance the counter.

        A CUDA graph captures this function.
        """
        for masks in self._masks:
            masks.begin_step()
        rates = self._rates.index_select(0, self._counter).T  # (S, 1)
        result = self.stack.update([self._tile], self._batch, rates)
        self._results = self._results or StepResults(result)
        self._results.write(result)
        self._counter.add_(1)

    def step(self, batch: Tensor) -> StepResult:
        """Update each run by its samples, `batch` of shape (S, N); see `Stepper.step`."""
        step = self.stack.step_counter.step
        if batch.shape[1] != self._samples:
            return self.stack.step(batch)
        if not self._first_step <= step < self._first_step + TABLE_STEPS or self._next_step < 0:
            self._fill_tables(step)
        if step != self._next_step:
            self._counter.fill_(step - self._first_step)
        for masks in self._masks:
            masks.prepare(step)
        self._batch.copy_(batch)
        if self._graph is None:
            self.update()
        else:
            self._graph.replay()
        self.stack.step_counter.step = self._next_step = step + 1
        assert self._results is not None  # of this update, or of the capture
        return self._results.copy()

    def _fill_tables(self, step: int) -> None:
        """Fill the tables for `TABLE_STEPS` steps from `step` on."""
        self._first_step, self._next_step = step, -1
        rates = [self.stack.updates.schedule.rates_at(s).tolist() for s in range(step, step + TABLE_STEPS)]
        self._rates.copy_(to_device(torch.tensor(rates, dtype=self._rates.dtype), self._rates.device))
        for masks in self._masks:
            masks.restart(step)

    def capture(self) -> None:
        """Capture the step as a CUDA graph and use it from now on.

        The state of the runs is rolled back, also after an error.

        Raises:
            CaptureError: A graph cannot hold the step.
            RuntimeError: The results of the first replay and of the step differ, or torch cannot capture the step.
        """
        self._fill_tables(self.stack.step_counter.step)
        self._batch.copy_(self.data.first_batch([0], self._samples))  # (1, N)
        roll_back = make_restore([*self.stack.tensors(), self._counter])
        try:
            self.update()  # libraries and dropout tables are set up in the first step
            with CaptureCheck(self.data.device):
                self.update()
            graph = self._capture_graph()
            roll_back()
            self.update()
            expected = [tensor.clone() for tensor in self.stack.tensors()]
            roll_back()
            graph.replay()
            if not all(map(is_close, expected, self.stack.tensors())):
                raise RuntimeError("a replay gives other numbers than the step itself")
            self._graph = graph
        finally:
            roll_back()

    def _capture_graph(self) -> torch.cuda.CUDAGraph:
        """Return the captured step."""
        device = self.data.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                self.update()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.update()
        return graph

    def evaluate(self, split: Split) -> StepResult:
        return self.stack.evaluate(split)

    def predict(self, split: Split) -> Samples:
        return self.stack.predict(split)

    def train(self, mode: bool) -> None:
        self.stack.train(mode)

    def end_epoch(self, index: int, measured: Mapping[str, float]) -> Mapping[str, float]:
        metrics = self.stack.end_epoch(index, measured)
        if metrics:  # a scheduler was stepped
            self._next_step = -1  # fill the tables with the new learning rates
        return metrics

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

        The graph, if there is one, is captured again; if that fails, the next steps run without one.

        Raises:
            OutOfMemoryError: The memory of the device is too small.
        """
        captured = self._graph is not None
        self._set_up()
        if captured:
            mode = self.stack.model.training
            self.train(True)
            try:
                self.capture()
            except Exception as error:  # the step itself can still be done
                if is_out_of_memory(error):
                    raise
            self.train(mode)

    def weights(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one run's state_dict; tensors have the shapes of a single model."""
        return self.stack.weights(index)


class StepResults:
    """Losses and metrics of a step, shape (S, N) each, in one buffer at a fixed address.

    One copy keeps them, whatever the number of metrics.
    """

    def __init__(self, result: StepResult) -> None:
        """Allocate a buffer for results like `result`."""
        losses, metrics = result
        # the largest dtypes first, so that each tensor starts at a multiple of its own size
        ordered = sorted({"": losses, **metrics}.items(), key=lambda item: -item[1].dtype.itemsize)
        self._layout = {name: (tensor.dtype, tensor.shape) for name, tensor in ordered}
        size = sum(tensor.numel() * tensor.dtype.itemsize for _, tensor in ordered)
        self._bytes = torch.zeros(size, dtype=torch.uint8, device=losses.device)
        self._views = self._typed_views(self._bytes)

    def write(self, result: StepResult) -> None:
        """Write losses and metrics to the buffer."""
        losses, metrics = result
        for name, tensor in {"": losses, **metrics}.items():
            self._views[name].copy_(tensor)

    def copy(self) -> StepResult:
        """Return a copy of the losses and metrics."""
        views = dict(self._typed_views(self._bytes.clone()))
        return views.pop(""), views

    def _typed_views(self, buffer: Tensor) -> Mapping[str, Tensor]:
        views, start = {}, 0
        for name, (dtype, shape) in self._layout.items():
            end = start + prod(shape) * dtype.itemsize
            views[name] = buffer[start:end].view(dtype).view(shape)
            start = end
        return views


def can_capture(workload: Workload) -> bool:
    """Return True if a CUDA graph can do the steps of the workload.

    A graph needs CUDA, data on the device, no compilation and at least one full batch per epoch.
    """
    on_cuda = workload.data.device.type == "cuda" and workload.data.resident
    return on_cuda and not workload.precision.compiles and workload.batch_size <= workload.samples_per_epoch


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
