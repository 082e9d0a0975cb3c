"""Dropout masks for the step that a counter on the device selects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labbench.train.engine.dropout import DropoutMasks
from labbench.train.engine.schedules import StepCounter
from labbench.train.host_copies import to_device
from labbench.train.rng import Purpose, keys, words

MAX_TABLE_ELEMENTS = 2**24
"""Maximum number of mask elements in a table, one byte each: 16 MiB."""


class GraphMasks(DropoutMasks):
    """The same masks as `DropoutMasks`, in tables on the device for the next steps.

    A table per call of the layer within a step holds whether an element is kept. A hash takes 15 kernels, a lookup one.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        probabilities: Sequence[float],
        layer: int,
        step_counter: StepCounter,
        steps: tuple[Tensor, int],
    ) -> None:
        """`steps` are the counter, shape (1,), and the number of steps after which it starts at 0 again."""
        super().__init__(seeds, probabilities, layer, step_counter)
        self._counter, self._most_steps = steps
        self._first_step = self._table_start = step_counter.step
        """Steps at which the counter is 0, and of the first masks in the tables."""
        self._tables: list[Tensor] = []  # one per call within a step, bool, (S, T, count)
        limits = to_device(torch.tensor(self.keep_limits), self._counter.device)[:, None, None]  # (S, 1, 1)
        self._highest_kept = (limits - 32769).clamp(min=-32768).to(torch.int16)  # (S, 1, 1)
        self._scale = (65536 / limits).where(limits > 0, 0).squeeze(2)  # (S, 1)

    def begin_step(self) -> None:
        """Start a step: the next call of the layer is its first."""
        self._call = 0

    def restart(self, step: int) -> None:
        """Fill the tables for the steps from `step` on, at which the counter is 0."""
        self._first_step = step
        self._fill_tables(step)

    def prepare(self, step: int) -> None:
        """Fill the tables if they do not hold the masks of `step`."""
        if self._tables and not self._table_start <= step < self._table_start + self._steps:
            self._fill_tables(step - (step - self._first_step) % self._steps)

    def draw(self, count: int, like: Tensor) -> Tensor:
        """Return a mask of shape (S, count); see `DropoutMasks.draw`."""
        if not self._tables:
            self._steps = self._choose_steps(count)
            step = self.step_counter.step
            self._table_start = step - (step - self._first_step) % self._steps
        if self._call == len(self._tables):
            self._tables.append(self._make_table(self._call, count))
        table = self._tables[self._call]
        self._call += 1
        row = self._counter if self._steps == self._most_steps else self._counter.remainder(self._steps)
        masks: Tensor = table.index_select(1, row).squeeze(1) * self._scale.to(like.dtype)
        return masks

    def draw_columns(self, samples: int, features: int, like: Tensor) -> Tensor:
        """Return a mask of shape (S, samples, features), with the numbers of `draw`."""
        return self.draw(samples * features, like).view(-1, samples, features)

    def _choose_steps(self, count: int) -> int:
        """Return the number of steps in a table: the largest power of two that fits and divides the counter's range."""
        most = max(1, min(self._most_steps, MAX_TABLE_ELEMENTS // (len(self.seeds) * count)))
        return 1 << (most.bit_length() - 1)

    def _fill_tables(self, step: int) -> None:
        """Fill the tables for the steps from `step` on."""
        self._table_start = step
        for call, table in enumerate(self._tables):
            table.copy_(self._make_table(call, table.shape[2]))

    def _make_table(self, call: int, count: int) -> Tensor:
        """Return the table of a call of the layer, bool, shape (S, T, count)."""
        steps = range(self._table_start, self._table_start + self._steps)
        streams = keys(
            self.seeds, Purpose.DROPOUT, layer=self.layer + (call << 16), steps=steps, device=self._counter.device
        )  # (S, T, 2)
        draws = words(streams, (count + 1) // 2).view(torch.int16)[..., :count]  # (S, T, count)
        return draws <= self._highest_kept
