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
from labbench.train.engine.dropout import Masks
from labbench.train.engine.schedules import Clock
from labbench.train.engine.stacked import Together
from labbench.train.engine.stepper import Measured, State
from labbench.train.rng import Purpose, keys, words

STEPS = 256
"""Steps that a table holds."""
WARM_UP = 3
"""Steps before a capture, in which libraries and optimizers make what they need; what they trained is undone."""

RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""How near the numbers of a replayed step are to the step that was captured: both take the same kernels."""


class Captured:
    """A stack whose whole batches are stepped by a graph; all else is the stack's own doing."""

    def __init__(self, stack: Together, samples: int) -> None:
        """`samples` is the size of a whole batch. Until `capture` the captured function runs as it is."""
        self.stack, self.way, self.data, self._samples = stack, stack.way, stack.data, samples
        self._arrange()

    def _arrange(self) -> None:
        """Make the static tensors for the runs that are there."""
        device, runs = self.data.device, len(self.stack.parameters)
        self._batch = torch.zeros(runs, self._samples, dtype=torch.int64, device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)  # steps since the tables' first
        self._rates = torch.zeros(STEPS, runs, dtype=self.data.dtype, device=device)
        self._masks: list[CountedMasks] = []
        self._tile = self.stack.whole(self._counted_masks)
        self._first, self._next = 0, -1
        """Of which step the tables begin, and which step the counter stands at."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._measured: Measured

    def _counted_masks(self, seeds: Sequence[int], probabilities: Sequence[float], layer: int) -> Masks:
        self._masks.append(CountedMasks(seeds, probabilities, layer, self.stack.clock, self._counter))
        return self._masks[-1]

    def update(self) -> Measured:
        """What is captured: a step by the samples in `_batch`, after which the counter is one further."""
        for masks in self._masks:
            masks.begin()
        rates = self._rates.index_select(0, self._counter).T  # (S, 1)
        measured = self.stack.update([self._tile], self._batch, rates)
        self._counter.add_(1)
        return measured

    def step(self, batch: Tensor) -> Measured:
        step = self.stack.clock.step
        if batch.shape[1] != self._samples:
            return self.stack.step(batch)
        if not self._first <= step < self._first + STEPS or self._next < 0:
            self._fill(step)
        if step != self._next:
            self._counter.fill_(step - self._first)
        self._batch.copy_(batch)
        if self._graph is None:
            losses, metrics = self.update()
        else:
            self._graph.replay()
            losses, metrics = self._measured
        self.stack.clock.step = self._next = step + 1
        return losses.clone(), {name: values.clone() for name, values in metrics.items()}

    def _fill(self, step: int) -> None:
        """Let the tables begin with this step."""
        self._first, self._next = step, -1
        rates = [self.stack.schedule.at(each).tolist() for each in range(step, step + STEPS)]
        self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype))
        for masks in self._masks:
            masks.fill(step)

    def capture(self) -> None:
        """Let a graph do the steps from now on, if a replay gives the numbers of the step that it was captured from.

        An error travels to the caller, with everything as it was.
        """
        self._fill(self.stack.clock.step)
        self._batch.copy_(torch.arange(self._samples))
        back = self._way_back()
        try:
            device = self.data.device
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.update()
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._measured = self.update()
            results = []
            for work in (self.update, graph.replay):
                back()
                work()
                results.append([tensor.clone() for tensor in self.stack.tensors()])
            if not all(agree(ours, theirs) for ours, theirs in zip(*results, strict=True)):
                raise RuntimeError("a replay gives other numbers")
            self._graph = graph
        finally:
            back()

    def _way_back(self) -> Callable[[], None]:
        """What undoes all that is trained from now on, the memory included that optimizers make at their first step."""
        undo = remembered([*self.stack.tensors(), self._counter])
        before = {id(tensor) for tensor in self.stack.tensors()}

        def back() -> None:
            undo()
            for tensor in self.stack.tensors():
                if id(tensor) not in before:
                    tensor.zero_()

        return back

    def evaluate(self, split: Split) -> Measured:
        return self.stack.evaluate(split)

    def train(self, mode: bool) -> None:
        self.stack.train(mode)

    def state(self, index: int) -> State:
        return self.stack.state(index)

    def load(self, states: Sequence[State]) -> None:
        self.stack.load(states)
        self._arrange_anew()

    def keep(self, indices: Sequence[int]) -> None:
        self.stack.keep(indices)
        self._arrange_anew()

    def _arrange_anew(self) -> None:
        """For other runs, whose tensors lie elsewhere: a step that was captured is captured again."""
        captured = self._graph is not None
        self._arrange()
        if captured:
            mode = self.stack.model.training
            self.train(True)
            self.capture()
            self.train(mode)

    def weights(self, index: int) -> dict[str, Tensor]:
        return self.stack.weights(index)


class CountedMasks(Masks):
    """Masks of the step that a counter on the device tells, from a table of keys: the numbers of `Masks`."""

    def __init__(
        self, seeds: Sequence[int], probabilities: Sequence[float], layer: int, clock: Clock, counter: Tensor
    ) -> None:
        super().__init__(seeds, probabilities, layer, clock)
        self._counter, self._first = counter, clock.step
        self._tables: list[Tensor] = []  # of each call within a step (S, STEPS, 2)
        kept = torch.tensor(self.kept, device=counter.device).unsqueeze(1)  # (S, 1)
        self._highest = (kept - 32769).clamp(min=-32768).to(torch.int16)
        self._scale = (65536 / kept).where(kept > 0, 0)

    def begin(self) -> None:
        """A step begins: the next call is its first."""
        self._call = 0

    def fill(self, step: int) -> None:
        """Let the tables begin with this step."""
        self._first = step
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
        steps = range(self._first, self._first + STEPS)
        layer = self.layer + (call << 16)
        return keys(self.seeds, Purpose.DROPOUT, layer=layer, steps=steps, device=self._counter.device)


def agree(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)


def remembered(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """What gives these tensors, where they are, the values back that they have now."""
    values = [tensor.detach().clone() for tensor in tensors]

    def undo() -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)

    return undo
