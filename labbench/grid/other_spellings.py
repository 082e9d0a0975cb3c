"""Spellings of axes in other tools, and the same axis in a grid file.

People who come from W&B sweeps, Optuna, Ray Tune, Hydra or numpy write `{ min = 0, max = 1 }`, `{ values = [1, 2] }`,
`"loguniform(1e-4, 1e-1)"` or `{ linspace = [0, 1, 5] }`. None of these is valid here; the error gives the valid
spelling with the same numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from labbench.grid.checks import quote_value

Number: TypeAlias = int | float

_LOW = ("min", "low", "lower", "start", "from", "min_value", "minval")
_HIGH = ("max", "high", "upper", "stop", "end", "to", "max_value", "maxval")
_STEP = ("step", "q", "step_size")
_COUNT = ("count", "num", "n", "points", "steps")
_LOG = ("log", "scale", "sampling", "base")
_MEAN = ("mean", "mu", "loc")
_DEVIATION = ("std", "sigma", "sd")
_NAME = ("distribution", "type", "dist", "_type")
_VALUES = ("values", "value", "vals", "_value", "args")
_WEIGHTS = ("probabilities", "probs", "weights")
_OPTIONS = (*_LOW, *_HIGH, *_STEP, *_COUNT, *_LOG, *_MEAN, *_DEVIATION, *_NAME, *_VALUES, *_WEIGHTS)

_KINDS = {
    **dict.fromkeys(("choice", "choices", "categorical", "options", "gridsearch", "suggestcategorical"), "choice"),
    **dict.fromkeys(("categoricalwprobabilities", "categoricaldistribution"), "choice"),
    **dict.fromkeys(("constant", "const", "fixed"), "constant"),
    **dict.fromkeys(("uniform", "quniform", "float", "double", "suggestfloat", "suggestuniform"), "uniform"),
    **dict.fromkeys(("interval", "floatdistribution", "discreteuniform", "suggestdiscreteuniform"), "uniform"),
    **dict.fromkeys(("loguniform", "loguniformvalues", "reciprocal", "qloguniform", "log"), "loguniform"),
    **dict.fromkeys(("qloguniformvalues", "invloguniform", "invloguniformvalues", "suggestloguniform"), "loguniform"),
    **dict.fromkeys(("int", "integer", "randint", "qrandint", "intuniform", "suggestint", "intdistribution"), "int"),
    **dict.fromkeys(("logint", "lograndint", "qlograndint", "intloguniform"), "logint"),
    **dict.fromkeys(("normal", "qnormal", "randn", "qrandn", "gaussian", "gauss"), "normal"),
    **dict.fromkeys(("range", "arange"), "range"),
    **dict.fromkeys(("linspace", "logspace", "geomspace"), "space"),
    **dict.fromkeys(("lognormal", "qlognormal", "beta", "qbeta", "truncnormal", "samplefrom"), "none"),
}
"""Kind of an axis by its names in other tools, without `_` and in small letters."""

_EXPONENTS = ("log_uniform", "q_log_uniform", "inv_log_uniform")
"""Distributions of W&B sweeps whose ends are exponents of e."""

_OPEN_ENDED = ("randint", "lograndint")
"""Distributions of Ray Tune, NNI and Hyperopt that exclude their upper end."""

_WEIGHTED_NOTE = "weighted choices do not exist: a value that is written twice is drawn twice as often"

_CALL = re.compile(r"\s*(?:[a-z]+\.)?(\w+)\s*(?:\((.*)\)|\[(.*)\])\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OtherSpelling:
    """Axis as another tool spells it."""

    key: str
    kind: str
    """`choice`, `constant`, `range`, a distribution, or `interval`: two ends alone, of a range or a distribution.

    `none` is a distribution without an equal here; its only argument is its name.
    """
    arguments: Sequence[Any]
    """Values, ends, or mean and deviation."""
    step: Number | None = None
    count: int | None = None
    is_log: bool = False
    note: str = ""
    """Difference between this axis and the other tool's, or the reason why they are equal."""

    def in_grid(self) -> str:
        """Return the message of an error in `[grid]`, `[[zip]]`, `[[branch]]` or `[params]`."""
        return self._in_grid() + (f"; {self.note}" if self.note else "")

    def in_random(self) -> str:
        """Return the message of an error in `[random]`."""
        return self._in_random() + (f"; {self.note}" if self.note else "")

    def _in_grid(self) -> str:
        if self.kind == "none":
            return (
                f"`{self.key}`: no distribution here equals {self.arguments[0]}; [random] has uniform, loguniform, "
                "normal, int, logint and choice"
            )
        if self.kind == "choice":
            return f"an axis is a list under [grid]: {self.key} = {quote_value(list(self.arguments))}"
        if self.kind == "constant":
            return f"one value belongs under [params]: {self.key} = {quote_value(self.arguments[0])}"
        if self.kind == "range":
            return f"write the range under [grid] as {self.key} = {self._range()}"
        if self.kind == "interval":
            return (
                f"write the range under [grid] as {self.key} = {self._range()}, or the distribution under [random] as "
                f"{self.key} = {self._distribution()}"
            )
        return f"a distribution belongs under [random]: {self.key} = {self._distribution()}"

    def _in_random(self) -> str:
        if self.kind in ("constant", "none"):
            return self._in_grid()
        if self.kind == "range":
            return f"a range belongs under [grid]: {self.key} = {self._range()}"
        return f"write the distribution as {self.key} = {self._distribution()}"

    def _range(self) -> str:
        low, high = self.arguments
        size = f"count = {self.count or 5}" if self.step is None or self.is_log else f"step = {json.dumps(self.step)}"
        log = ", log = true" if self.is_log else ""
        return f"{{ from = {json.dumps(low)}, to = {json.dumps(high)}, {size}{log} }}"

    def _distribution(self) -> str:
        kind = self.kind
        if kind == "interval":
            is_whole = all(isinstance(end, int) for end in self.arguments)
            kind = ("log" if self.is_log else "") + ("int" if is_whole else "uniform")
        step = "" if self.step is None or kind in ("choice", "logint") else f", step = {json.dumps(self.step)}"
        return f"{{ {kind} = {quote_value(list(self.arguments))}{step} }}"


def read_other_spelling(key: str, value: Any) -> OtherSpelling | None:
    """Return the axis `key` that a table or a text stands for in another tool, None if it is none known."""
    key = re.sub(r"\.parameters(?=\.)", "", key)  # nested parameters of W&B sweeps
    if isinstance(value, str):
        return _read_text(key, value)
    if not isinstance(value, dict) or not value:
        return None
    options = {name.lower(): item for name, item in value.items()}
    names = [name for name in options if _kind(name) is not None and name not in _OPTIONS]
    if options.keys() - {*names, *_OPTIONS} or len(names) > 1:
        return None
    if names:
        return _read_call(key, names[0], options[names[0]], options)
    return _read_options(key, options)


def _read_text(key: str, text: str) -> OtherSpelling | None:
    """Read `choice(1, 2)`, `tune.loguniform(1e-4, 1e-1)`, `uniform[0:1]` or `1,2`."""
    if match := _CALL.fullmatch(text):
        inner = next(part for part in match.groups()[1:] if part is not None)
        words = re.split(r"[,:]" if match[3] is not None else ",", inner.strip("[]() "))
        return _read_call(key, match[1], [_parse_word(word) for word in words if word.strip()], {})
    if re.fullmatch(r"\s*[\w.+-]+(\s*,\s*[\w.+-]+)+\s*", text):
        return OtherSpelling(key, "choice", [_parse_word(word) for word in text.split(",")])
    return None


def _parse_word(word: str) -> Any:
    """Return the number or text of one argument, such as `1e-4`, `low=0.1` or `"adam"`."""
    word = re.sub(r"^\s*[a-z_]+\s*=", "", word).strip().strip("\"'")
    try:
        return int(word)
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return {"True": True, "False": False}.get(word, word)
    return number if math.isfinite(number) else word


def _read_call(key: str, name: str, arguments: Any, options: Mapping[str, Any]) -> OtherSpelling | None:
    """Read a kind of axis with its arguments: `uniform` of [0, 1], `linspace` of [0, 1, 5]."""
    kind = _kind(name)
    if kind == "none":
        return OtherSpelling(key, "none", [name])
    if isinstance(arguments, dict):
        return _read_options(key, {**arguments, "distribution": name})
    if not isinstance(arguments, list) or not arguments or kind is None:
        return None
    if kind in ("choice", "constant"):
        is_weighted = _first(options, _WEIGHTS) is not None
        return OtherSpelling(key, kind, arguments, note=_WEIGHTED_NOTE if is_weighted else "")
    numbers = [item for item in arguments if _is_number(item)]
    if kind == "range" and len(numbers) == 1:
        numbers = [0, *numbers]
    if len(numbers) < 2:
        return None
    low, high, *more = numbers
    if kind == "range":
        step = more[0] if more else 1
        is_whole = all(isinstance(number, int) for number in (low, high, step))
        return OtherSpelling(key, "range", [low, high - step if is_whole else high], step)  # the end is exclusive
    if kind == "space":
        is_log = "lin" not in name.lower()
        if name.lower() == "logspace" and not 0 < low < 1:  # exponents of 10, as in numpy
            low, high = _power(10, low), _power(10, high)
        return OtherSpelling(key, "range", [low, high], count=int(more[0]) if more else None, is_log=is_log)
    step = more[0] if more else _first(options, _STEP)
    return _distribution(key, name, low, high, step if _is_number(step) else None)


def _read_options(key: str, options: Mapping[str, Any]) -> OtherSpelling | None:
    """Read a table of options: `{ min = 0, max = 1 }`, `{ distribution = "normal", mu = 0, sigma = 1 }`."""
    name, values = str(_first(options, _NAME) or ""), _first(options, _VALUES)
    if isinstance(options.get("value"), list):
        return OtherSpelling(key, "constant", [values])
    if isinstance(values, list):
        return _read_call(key, name or "choice", values, options)
    if isinstance(values, str | int | float):
        return OtherSpelling(key, "constant", [values])
    if name and _kind(name) in (None, "none"):
        return OtherSpelling(key, "none", [name])
    step, count = _first(options, _STEP), _first(options, _COUNT)
    step, count = step if _is_number(step) else None, count if isinstance(count, int) else None
    if step is None and name.lower().startswith("q_"):
        step = 1  # the default of W&B
    mean, deviation = _first(options, _MEAN), _first(options, _DEVIATION)
    if _kind(name) == "normal":
        mean, deviation = 0 if mean is None else mean, 1 if deviation is None else deviation
    if _is_number(mean) and _is_number(deviation):
        return OtherSpelling(key, "normal", [mean, deviation], step)
    low, high = (_parse_word(end) if isinstance(end := _first(options, ends), str) else end for ends in (_LOW, _HIGH))
    if not (_is_number(low) and _is_number(high)):
        return None
    is_log = bool(options.get("log")) or "log" in f"{options.get('scale')} {options.get('sampling')}"
    if _kind(name) in ("uniform", "loguniform", "int", "logint"):
        return _distribution(key, name, low, high, step, is_log=is_log)
    is_range = count is not None or (step is not None and not is_log and "q" not in options)
    return OtherSpelling(key, "range" if is_range else "interval", [low, high], step, count, is_log)


def _distribution(
    key: str, name: str, low: Number, high: Number, step: Number | None, *, is_log: bool = False
) -> OtherSpelling:
    """Return the distribution that another tool calls `name`; with `is_log` it is uniform in the logarithm."""
    kind, name, note = _kind(name) or "uniform", name.lower(), ""
    if is_log:
        kind = {"uniform": "loguniform", "int": "logint"}.get(kind, kind)
    if kind == "loguniform" and (low < 0 or name in _EXPONENTS):
        ends = (-high, -low) if name.startswith("inv") else (low, high)
        low, high = (_power(math.e, end) for end in ends)
        note = "" if min(ends) < 0 else "the ends of this distribution are exponents of e"
    if name.startswith("inv"):
        note = "the inverse of a log-uniform number is log-uniform, too"
    if name in _OPEN_ENDED:
        high, note = high - 1, f"{name} excludes its upper end"
    if kind == "int" and not all(float(end).is_integer() for end in (low, high)):
        kind = "uniform"
    if step is not None and name.startswith("q"):
        return _quantized(key, kind, (low, high), step, name)
    return OtherSpelling(key, kind, [low, high], step, note=note)


def _quantized(key: str, kind: str, ends: tuple[Number, Number], step: Number, name: str) -> OtherSpelling:
    """Return the distribution of `round(x / step) * step`, whose values are multiples of the step.

    Values here begin at the lower end, so that both ends become multiples.
    """
    low, high = (_nearest_multiple(end, step) for end in ends)
    is_log = kind in ("loguniform", "logint")
    if is_log and step == 1 and low > 0:
        return OtherSpelling(key, "logint", [int(low), int(high)])
    if kind == "logint" or low >= high:
        return OtherSpelling(key, "none", [name])
    if is_log and low <= 0:
        note = f"its values begin at {ends[0]:g}, while those of {name} are multiples of {step:g}, with 0"
        return OtherSpelling(key, kind, list(ends), step, note=note)
    return OtherSpelling(key, kind, [low, high], step)


def _nearest_multiple(number: Number, step: Number) -> Number:
    """Return the multiple of the step that is nearest to a number, exact in decimals."""
    multiple = round(number / step) * Decimal(str(step))
    if multiple == Decimal(str(number)):
        return number
    return int(multiple) if isinstance(step, int) else float(multiple)


def _kind(name: str) -> str | None:
    return _KINDS.get(name.lower().replace("_", ""))


def _first(options: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((options[name] for name in names if name in options), None)


def _power(base: float, exponent: Number) -> float:
    """Return a power in three significant digits; 0 or a huge number stay finite."""
    return float(f"{base ** max(-300, min(300, exponent)):.3g}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
