"""One CUDA graph of a stack's step, replayed: without it a GPU waits for the host to start a hundred small kernels.

What is captured reads and writes tensors that stay where they are: the indices of a batch, and a step counter on the
device that selects the learning rates and the keys of dropout from tables of the next steps. On a CPU the same function
runs as it is, which is how the tests see that its numbers are a stack's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from labbench.train.data.dataset import Split
from labbench.train.engine.dropout import DropoutMasks
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import StepResult, TrainingState
from labbench.train.rng import Purpose, keys, words

TABLE_STEPS = 256
"""Steps that a table holds."""
WARMUP_STEPS = 3
"""Steps before a capture, in which libraries and optimizers make what they need; what they trained is undone."""

RTOL, ATOL = 1e-4, 1e-6
"""How near the numbers of a replayed step are to the step that was captured: both take the same kernels."""


class CudaGraphStepper:
    """A stack whose whole batches are stepped by a graph; all else is the stack's own doing."""

    def __init__(self, stack: StackedStepper, samples: int) -> None:
        """`samples` is the size of a whole batch. Until `capture` the captured function runs as it is."""
        self.stack, self.engine, self.data, self._samples = stack, stack.engine, stack.data, samples
        self._set_up()

    def _set_up(self) -> None:
        """Make the static tensors for the runs that are there."""
        device, runs = self.data.device, len(self.stack.parameters)
        self._batch = torch.zeros(runs, self._samples, dtype=torch.int64, device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)  # steps since the tables' first
        self._rates = torch.zeros(TABLE_STEPS, runs, dtype=self.data.dtype, device=device)
        self._masks: list[CudaGraphMasks] = []
        self._tile = self.stack.whole_tile(self._make_masks)
        self._first_step, self._next_step = 0, -1
        """Of which step the tables begin, and which step the counter stands at."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._step_result: StepResult

    def _make_masks(self, seeds: Sequence[int], probabilities: Sequence[float], layer: int) -> DropoutMasks:
        self._masks.append(CudaGraphMasks(seeds, probabilities, layer, self.stack.step_counter, self._counter))
        return self._masks[-1]

    def update(self) -> StepResult:
        """What is captured: a step by the samples in `_batch`, after which the counter is one further."""
        for masks in self._masks:
            masks.begin()
        rates = self._rates.index_select(0, self._counter).T  # (S, 1)
        measured = self.stack.update([self._tile], self._batch, rates)
        self._counter.add_(1)
        return measured

    def step(self, batch: Tensor) -> StepResult:
        step = self.stack.step_counter.step
        if batch.shape[1] != self._samples:
            return self.stack.step(batch)
        if not self._first_step <= step < self._first_step + TABLE_STEPS or self._next_step < 0:
            self._fill(step)
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

    def _fill(self, step: int) -> None:
        """Let the tables begin with this step."""
        self._first_step, self._next_step = step, -1
        rates = [self.stack.schedule.at(each).tolist() for each in range(step, step + TABLE_STEPS)]
        self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype))
        for masks in self._masks:
            masks.fill(step)

    def capture(self) -> None:
        """Let a graph do the steps from now on, if a replay gives the numbers of the step that it was captured from.

        An error travels to the caller, with everything as it was.
        """
        self._fill(self.stack.step_counter.step)
        self._batch.copy_(torch.arange(self._samples))
        back = self._make_rollback()
        try:
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
            results = []
            for work in (self.update, graph.replay):
                back()
                work()
                results.append([tensor.clone() for tensor in self.stack.tensors()])
            if not all(is_close(ours, theirs) for ours, theirs in zip(*results, strict=True)):
                raise RuntimeError("a replay gives other numbers")
            self._graph = graph
        finally:
            back()

    def _make_rollback(self) -> Callable[[], None]:
        """What undoes all that is trained from now on, the memory included that optimizers make at their first step."""
        undo = make_restore([*self.stack.tensors(), self._counter])
        before = {id(tensor) for tensor in self.stack.tensors()}

        def back() -> None:
            undo()
            for tensor in self.stack.tensors():
                if id(tensor) not in before:
                    tensor.zero_()

        return back

    def evaluate(self, split: Split) -> StepResult:
        return self.stack.evaluate(split)

    def train(self, mode: bool) -> None:
        self.stack.train(mode)

    def state(self, index: int) -> TrainingState:
        return self.stack.state(index)

    def load(self, states: Sequence[TrainingState]) -> None:
        self.stack.load(states)
        self._rebuild()

    def keep(self, indices: Sequence[int]) -> None:
        self.stack.keep(indices)
        self._rebuild()

    def _rebuild(self) -> None:
        """For other runs, whose tensors lie elsewhere: a step that was captured is captured again."""
        captured = self._graph is not None
        self._set_up()
        if captured:
            mode = self.stack.model.training
            self.train(True)
            self.capture()
            self.train(mode)

    def weights(self, index: int) -> dict[str, Tensor]:
        return self.stack.weights(index)


class CudaGraphMasks(DropoutMasks):
    """Masks of the step that a counter on the device tells, from a table of keys: the numbers of `DropoutMasks`."""

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
        self._tables: list[Tensor] = []  # of each call within a step (S, STEPS, 2)
        kept = torch.tensor(self.keep_limits, device=counter.device).unsqueeze(1)  # (S, 1)
        self._highest = (kept - 32769).clamp(min=-32768).to(torch.int16)
        self._scale = (65536 / kept).where(kept > 0, 0)

    def begin(self) -> None:
        """A step begins: the next call is its first."""
        self._call = 0

    def fill(self, step: int) -> None:
        """Let the tables begin with this step."""
        self._first_step = step
        for call, table in enumerate(self._tables):
            table.copy_(self._keys(call))

    def draw(self, count: int, like: Tensor) -> Tensor:
        if self._call == len(self._tables):
            self._tables.append(self._keys(self._call))
        table = self._tables[self._call]
        self._call += 1
        streams = table.index_select(1, self._counter).squeeze(1)  # (S, 2)
        draws = words(streams, (count + 1) // 2).view(torch.int16)[:, :count]
        masks: Tensor = (draws <= self._highest).to(like.dtype) * self._scale.to(like.dtype)
        return masks

    def draw_columns(self, samples: int, features: int, like: Tensor) -> Tensor:
        return self.draw(samples * features, like).view(-1, samples, features)

    def _keys(self, call: int) -> Tensor:
        steps = range(self._first_step, self._first_step + TABLE_STEPS)
        layer = self.layer + (call << 16)
        return keys(self.seeds, Purpose.DROPOUT, layer=layer, steps=steps, device=self._counter.device)


def is_close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=RTOL, atol=ATOL, equal_nan=True)


def make_restore(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """What gives these tensors, where they are, the values back that they have now."""
    values = [tensor.detach().clone() for tensor in tensors]

    def undo() -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)

    return undo
