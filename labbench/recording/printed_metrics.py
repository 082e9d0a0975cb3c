"""Metrics in the output of a command: `epoch 3 loss 0.41 val_acc=0.9`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from labbench.errors import InputError
from labbench.recording.tool_output import ToolOutput

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\b(?:inf|nan)\b"
_SPLITS = "train|training|val|valid|validation|test|testing|eval"
_METRICS = (
    r"loss|losses|acc|accuracy|top1|top5|acc@1|acc@5|error|err|auc|auroc|f1|precision|recall|perplexity|ppl|mse|mae|"
    r"rmse|bleu|rouge|iou|miou|map|reward|return|score|psnr|ssim|fid|nll|elbo|kl|bpc|bpb|wer|cer|lr|grad_norm|r2|dice"
)
_PAIR = re.compile(
    rf"(?:\b(?P<split>{_SPLITS})\s+)?"
    rf"(?<![\w/.@-])(?P<name>[A-Za-z][\w/.@-]*)\]?(?P<separator>\s*[:=]\s*\[?|\s+\[?)(?P<value>{_NUMBER})"
    r"(?:\s*/\s*(?P<total>\d+))?(?P<unit>%|[A-Za-z_]+|[:.]\d)?",
    re.IGNORECASE,
)
_PROGRESS_BAR = re.compile(r"(?P<value>\d+)/(?P<total>\d+)\s+\[\d+:")
"""Position of a progress bar of tqdm."""

_STEP_NAMES = ("global_step", "step", "steps", "iter", "iters", "iteration", "batch", "it")
_EPOCH_NAMES = ("epoch", "epochs")
_METRIC_NAME = re.compile(rf"(?:.*[_/.\-])?(?:{_METRICS})(?:[_/.\-].*)?", re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]+")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0e-\x1f]")
_CELL_BORDER = re.compile("[│┃]")
_MAX_LINE_CHARACTERS = 2_000
_MAX_NAMES = 200


class PrintedMetrics:
    """Reader of the metrics in printed lines."""

    def __init__(self, pattern: str | None = None) -> None:
        """Initialize a reader.

        Args:
            pattern: Regular expression with a named group for each metric and, if printed, `step` or `epoch`; or with
                the groups `name` and `value`. Default: names of common metrics with numbers.

        Raises:
            InputError: If the pattern is invalid or has no named group.
        """
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise InputError(f"--metrics: {pattern!r} is no regular expression: {error}") from error
        if self._pattern is not None and not self._pattern.groupindex:
            raise InputError("--metrics: the expression has no named group, such as (?P<loss>[0-9.]+)")
        self._rest = ""
        self._names: set[str] = set()
        self._counter = StepCounter()
        self.tools = ToolOutput()

    def feed(self, text: str) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield step and metrics of each complete line that has some."""
        *lines, self._rest = _LINE_END.split(self._rest + text)
        self._rest = self._rest[-_MAX_LINE_CHARACTERS:]
        for line in lines:
            if len(line) > _MAX_LINE_CHARACTERS:
                continue
            step, values = self._read(_CONTROL.sub("", line))
            metrics = {name: value for name, value in values.items() if name not in _STEP_NAMES}
            self._names |= metrics.keys()
            if metrics.keys() - {"epoch"} and len(self._names) <= _MAX_NAMES:
                yield step, metrics

    def _read(self, line: str) -> tuple[int, dict[str, float]]:
        """Return the step of a line, and its numbers by name, the position in `step` and `epoch` included.

        The result of a training or evaluation is a point of the last step if no line before has had a metric of this
        name: the loss of `model.evaluate` is no loss of one more epoch.
        """
        kind = self.tools.kind(line)
        if self._pattern is not None:
            values = _read_pattern(self._pattern, line)
        elif kind == "message":
            values = {}
        else:
            values = read_line(_CELL_BORDER.sub(" ", line))
        if self._pattern is None and kind == "result":
            new = {name: value for name, value in values.items() if name not in {*self._names, *_EPOCH_NAMES}}
            return self._counter.last_step, new
        return self._counter.step_of(values) if values else 0, values


def _read_pattern(pattern: re.Pattern[str], line: str) -> dict[str, float]:
    values: dict[str, float] = {}
    for match in pattern.finditer(line):
        groups = match.groupdict()
        named = {groups["name"]: groups["value"]} if {"name", "value"} <= groups.keys() else groups
        for name, text in named.items():
            try:
                values[name] = float(text)
            except (TypeError, ValueError):  # a group without a match, or of text
                continue
    return values


def read_line(line: str) -> dict[str, float]:
    """Return the numbers of a line that names a common metric; {} for any other line."""
    values: dict[str, float] = {}
    is_metric = False
    for match in _PAIR.finditer(line):
        name, separator = match["name"], match["separator"].strip(" [")
        is_position = name.lower() in (*_STEP_NAMES, *_EPOCH_NAMES)
        is_known = _METRIC_NAME.fullmatch(name) is not None
        if match["unit"] not in (None, "%") or not (is_position or is_known or separator):
            continue
        number = float(match["value"])
        if is_position:
            values.setdefault("epoch" if name.lower() in _EPOCH_NAMES else "step", number)
            continue
        if match["total"]:
            number = number / float(match["total"]) if float(match["total"]) else number
        values[f"{match['split'].lower()}/{name}" if match["split"] else name] = number
        is_metric |= is_known
    bar = _PROGRESS_BAR.search(line)
    if bar is not None and "step" not in values:
        values["step"] = float(bar["value"])
    return values if is_metric else {}


class StepCounter:
    """Steps of printed lines, which rise also where a script counts the batches of each epoch from 0."""

    def __init__(self) -> None:
        self._last = -1
        self._offset = 0
        self._has_steps = False

    @property
    def last_step(self) -> int:
        """Step of the last line; 0 without one."""
        return max(0, self._last)

    def step_of(self, values: Mapping[str, float]) -> int:
        """Return the step of a line: as printed, of the last line with a step, the epoch, or the next number."""
        printed = next((values[name] for name in _STEP_NAMES if name in values), None)
        if printed is not None and abs(printed) < 2**53:
            self._has_steps = True
            if int(printed) + self._offset < self._last:
                self._offset = self._last + 1
            self._last = int(printed) + self._offset
        elif self._has_steps:
            return self._last
        elif "epoch" in values and abs(values["epoch"]) < 2**53:
            self._last = int(values["epoch"])
        else:
            self._last += 1
        return self._last
