"""`[random]`: samples from distributions, the same on every machine and in every release.

Each key has its own random stream, so that neither another key nor a larger `samples` changes a value. Values are
rounded to six significant digits: names stay readable, and machines whose `exp` differs in the last bits draw the same
values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

from labbench.errors import did_you_mean
from labbench.grid.checks import quote_value
from labbench.grid.other_spellings import read_other_spelling
from labbench.grid.source import GridSource, Setting, Table
from labbench.grid.toml_positions import Path
from labbench.params.param import Param

KINDS = ("uniform", "loguniform", "normal", "int", "logint", "choice")
_FORMS = "{ uniform = [low, high] }, loguniform, normal, int, logint or choice"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Distribution of one key.

    `arguments` are `[low, high]` (both included for `int` and `logint`), `[mean, deviation]` of a `normal`, or the
    values of a `choice`.
    """

    key: str
    kind: str
    arguments: Sequence[Any]
    path: Path
    step: float | None = None
    """Distance of the values, which begin at `low`; the values of a `normal` are multiples of it."""

    def ends(self) -> list[Setting]:
        """Return the values that bound all draws, so that only these need to be checked."""
        if self.kind == "normal":
            return []
        return [Setting(self.key, value, (*self.path, index)) for index, value in enumerate(self.arguments)]

    def draw(self, samples: int, seed: int) -> list[Any]:
        """Return the first `samples` values of the key's stream."""
        return [self._value(_uniform(f"{seed} {self.key} {index}")) for index in range(samples)]

    def _value(self, position: float) -> Any:
        """Return the quantile of the distribution at 0 <= position < 1."""
        if self.kind == "choice":
            return self.arguments[int(position * len(self.arguments))]
        low, high = self.arguments
        if self.kind == "normal":
            return _quantize(NormalDist(low, high).inv_cdf(max(position, 2.0**-54)), self.step, 0.0)
        if self.step is not None and self.kind in ("int", "uniform"):
            steps = (Decimal(str(high)) - Decimal(str(low))) // Decimal(str(self.step))
            return _plus_steps(low, int(position * (int(steps) + 1)), self.step)
        if self.kind == "int":
            return int(low) + int(position * (int(high) - int(low) + 1))
        if self.kind == "logint":
            number = int(math.exp(math.log(low) + position * (math.log(high + 1) - math.log(low))) + 1e-9)
            return min(max(number, int(low)), int(high))
        if self.kind == "loguniform":
            value = math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
        else:
            value = low + position * (high - low)
        if self.step is not None:
            return min(_quantize(value, self.step, low), high)
        return min(max(float(f"{value:.6g}"), low), high)


def _quantize(value: float, step: float | None, origin: float) -> float:
    """Return the value nearest to `origin + k * step`; without a step, the value in six significant digits."""
    if step is None:
        return float(f"{value:.6g}")
    return float(_plus_steps(origin, round((value - origin) / step), step))


def _plus_steps(origin: float, steps: int, step: float) -> int | float:
    """Return `origin + steps * step`, exact in decimals; an integer if both are."""
    value = Decimal(str(origin)) + steps * Decimal(str(step))
    return int(value) if isinstance(origin, int) and isinstance(step, int) else float(value)


@dataclass(frozen=True, slots=True)
class RandomAxis:
    """Axis of `[random]`: `samples` points, each with a value for every key."""

    samples: int
    seed: int
    distributions: tuple[Distribution, ...]

    @property
    def keys(self) -> list[str]:
        return [distribution.key for distribution in self.distributions]


def read_draws(source: GridSource) -> RandomAxis | None:
    """Read `[random]`, None if the grid file has none. Raises GridError if it is invalid."""
    table = source.table("random")
    if not table:
        return None
    if "samples" not in table:
        raise source.error("[random] needs `samples`, the number of draws", ("random",), at="key")
    samples = source.read(Param("int", None, low=1), table["samples"], "samples", ("random", "samples"))
    seed = source.read(Param("int", None, low=0), table.get("seed", 0), "seed", ("random", "seed"))
    keys = {name: value for name, value in table.items() if name not in ("samples", "seed")}
    distributions = _distributions(source, keys, ("random",), "")
    if not distributions:
        raise source.error(f"[random] has no distribution: add KEY = {_FORMS}", ("random",), at="key")
    return RandomAxis(samples, seed, tuple(distributions))


def _distributions(source: GridSource, table: Table, path: Path, prefix: str) -> list[Distribution]:
    distributions = []
    for name, value in table.items():
        key, where = prefix + name, (*path, name)
        kinds = [kind for kind in KINDS if kind in value] if isinstance(value, dict) else []
        if kinds:
            distributions.append(_read_distribution(source, key, value, where))
        elif (other := read_other_spelling(key, value)) is not None:
            raise source.error(other.in_random(), where)
        elif not isinstance(value, dict):
            hint = did_you_mean(name, KINDS) if prefix else ""
            raise source.error(f"`{key}` needs a distribution, {_FORMS}, not {quote_value(value)}{hint}", where)
        else:
            distributions += _distributions(source, value, where, f"{key}.")
    return distributions


def _read_distribution(source: GridSource, key: str, table: Table, path: Path) -> Distribution:
    kind = next(kind for kind in KINDS if kind in table)
    if others := [name for name in table if name not in (kind, "step")]:
        raise source.error(_too_many_keys(key, kind, others), path)
    arguments, step = table[kind], table.get("step")
    if problem := _check_arguments(kind, arguments):
        raise source.error(f"`{key}`: {problem}", (*path, kind))
    if problem := None if step is None else _check_step(kind, step):
        raise source.error(f"`{key}`: {problem}", (*path, "step"))
    source.settings(table, path)  # raises GridError for values that are not JSON
    return Distribution(key, kind, arguments, (*path, kind), step)


def _too_many_keys(key: str, kind: str, others: Sequence[str]) -> str:
    """Return the message about a distribution with further keys than `step`."""
    names = ", ".join(f"`{name}`" for name in (kind, *others))
    form = "{ choice = [value, ...] }" if kind == "choice" else f"{{ {kind} = {_ends(kind)} }}"
    if any(name in KINDS for name in others):
        return f"several distributions in one range: `{key}` has {names}; keep one, such as {form}"
    if others == ["q"]:
        return f"write the distance of the values as `step`: `{key}` has {names}"
    bounds = "; a `uniform` has ends: { uniform = [low, high] }" if kind == "normal" else ""
    return f"several distributions in one range: `{key}` has {names}; write {form}, with `step` if needed{bounds}"


def _uniform(counter: str) -> float:
    """Return a uniform number, 0 <= u < 1, which depends only on the text.

    The number is the first 53 bits of the text's SHA-256, divided by 2**53.
    """
    return (int.from_bytes(hashlib.sha256(counter.encode()).digest()[:8], "big") >> 11) / 2**53


def _check_arguments(kind: str, arguments: Any) -> str | None:
    if not isinstance(arguments, list) or not arguments:
        takes = "a list" if kind == "choice" else f"a list of two numbers, {_ends(kind)}"
        return f"`{kind}` takes {takes}, not {quote_value(arguments)}"
    if kind == "choice":
        return None
    numbers = [value for value in arguments if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(arguments) != 2 or len(numbers) != 2:
        return f"`{kind}` takes two numbers, {_ends(kind)}, not {quote_value(arguments)}"
    low, high = numbers
    if kind in ("int", "logint") and not (float(low).is_integer() and float(high).is_integer()):
        return f"`{kind}` takes two whole numbers, not {quote_value(arguments)}"
    if kind in ("loguniform", "logint") and low <= 0:
        return f"`{kind}` takes numbers above 0, not {quote_value(low)}"
    if kind == "normal":
        return None if high > 0 else f"the standard deviation must be above 0, not {quote_value(high)}"
    return None if low < high else f"the first number must be below the second, not {quote_value(arguments)}"


def _ends(kind: str) -> str:
    return "[mean, standard deviation]" if kind == "normal" else "[low, high]"


def _check_step(kind: str, step: Any) -> str | None:
    if kind in ("choice", "logint"):
        return f"`step` cannot be combined with `{kind}`"
    if not isinstance(step, int | float) or isinstance(step, bool) or not 0 < step < math.inf:
        return f"`step` must be a number above 0, not {quote_value(step)}"
    if kind == "int" and not float(step).is_integer():
        return f"`step` of an `int` must be a whole number, not {quote_value(step)}"
    return None
