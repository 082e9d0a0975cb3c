"""Lines of other tools in the output of a command: messages, and results that belong to no step of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

from labbench.errors import MESSAGE_PREFIX

LineKind: TypeAlias = Literal["metrics", "result", "message"]
"""Line with metrics of a step; result of a whole training or evaluation; message of a tracker, without metrics."""

_WANDB = re.compile(r"wandb:(?: |$)")
_WANDB_FOLDER = re.compile(r"wandb: Run data is saved locally in (?P<path>.+)")

_KERAS_EPOCH = re.compile(r"\s*Epoch \d+/\d+\s*$")
_KERAS_BAR = re.compile(
    r"\s*(?P<position>\d+)/(?P<total>\d+)\s+(?P<bar>\[?[=>.━]+\]?)?.*\b\d+[mu]?s(?:/step|/epoch)?\s+- \w+: "
)

_TABLE = re.compile(r"[\s│┃]*(?:Runningstage\.\w+|Test|Validate) metric\s+(?:[│┃]\s+)?DataLoader \d+")
"""Header of the table that Lightning prints after `trainer.test`."""

_RULE = re.compile(r"\s*[─━┄┈┌└├┏┗┡┢╇┴┼┬┐┘┤┓┛┩-]{8,}\s*$")

_BLOCK = re.compile(r"\s*\*{3,} \w+ metrics \*{3,}\s*$")
"""Header of the metrics that transformers' `trainer.log_metrics` prints, one a line."""

_BLOCK_ROW = re.compile(r"\s*\S+\s+=\s+\S+")


class ToolOutput:
    """Recogniser of the lines that trackers and frameworks print, which takes one line after the other."""

    def __init__(self) -> None:
        self.wandb_folder: Path | None = None
        """Folder in which W&B itself records the run; None if it has named none."""
        self._keras_epoch: Literal["none", "open", "complete", "closed"] = "none"
        self._keras_total = 0
        self._rules_left = 0
        """Number of horizontal lines up to the end of a table of Lightning."""
        self._is_in_block = False

    def kind(self, line: str) -> LineKind:
        """Return the kind of a line without escape sequences."""
        if line.startswith(MESSAGE_PREFIX):
            return "message"
        if _WANDB.match(line):
            folder = _WANDB_FOLDER.match(line)
            self.wandb_folder = Path(folder["path"].strip()) if folder else self.wandb_folder
            return "message"
        is_result = self._is_in_table(line) or self._is_in_metrics_block(line) or self._is_evaluation_of_keras(line)
        return "result" if is_result else "metrics"

    def _is_in_table(self, line: str) -> bool:
        if _TABLE.match(line):
            self._rules_left = 2  # below the header and below the rows
        elif self._rules_left and _RULE.match(line):
            self._rules_left -= 1
        return self._rules_left > 0

    def _is_in_metrics_block(self, line: str) -> bool:
        self._is_in_block = bool(_BLOCK.match(line) or (self._is_in_block and _BLOCK_ROW.match(line)))
        return self._is_in_block

    def _is_evaluation_of_keras(self, line: str) -> bool:
        """Return True for `model.evaluate`, which prints as an epoch of `model.fit` does, but without `Epoch 2/5`."""
        if _KERAS_EPOCH.match(line):
            self._keras_epoch = "open"
            return False
        bar = _KERAS_BAR.match(line)
        if bar is None or self._keras_epoch == "none":
            return False
        position, total = int(bar["position"]), int(bar["total"])
        is_redrawn = bar["bar"] is not None and (position, total) == (self._keras_total, self._keras_total)
        if self._keras_epoch == "complete" and not is_redrawn:
            self._keras_epoch = "closed"
        if self._keras_epoch == "open" and position == total:
            self._keras_epoch, self._keras_total = "complete", total
        return self._keras_epoch == "closed"
