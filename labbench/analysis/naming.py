"""What settings are called: as people say them, and longer only where two values of a parameter would look alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from labbench.analysis.answer import Answer
from labbench.analysis.setups import freeze, is_number
from labbench.text import clean, setting

OFF_AT_ZERO = {"dropout", "momentum", "weight_decay", "label_noise"}
"""Parameters whose 0 reads as "no dropout"."""

Levels: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of each parameter that varies."""


def levels_of(answer: Answer) -> Levels:
    return {p.name: [effect.value for effect in p.marginal.effects] for p in answer.parameters}


def describe(settings: Mapping[str, Any], levels: Levels) -> str:
    """Settings as people say them: `adam, lr 0.01, batchnorm, no dropout`.

    Parameters that have words as values need no name beside them unless two have the same.
    """
    worded = [name for name in settings if levels.get(name) and all(isinstance(value, str) for value in levels[name])]
    bare = [settings[name] for name in worded]
    return ", ".join(
        setting(value) if name in worded and bare.count(value) == 1 else said(name, value, levels)
        for name, value in settings.items()
    )


def said(name: str, value: Any, levels: Levels) -> str:
    """One setting, with its name."""
    shown = clean(name)
    others = levels.get(name, ())
    if isinstance(value, bool) and all(isinstance(other, bool | None) for other in others):
        return shown if value else f"no {shown}"
    if is_number(value) and value == 0 and name.split(".")[-1] in OFF_AT_ZERO:
        return f"no {shown}"
    return f"{shown} {value_text(value, others)}"


def said_briefly(name: str, value: Any, levels: Levels) -> str:
    """One setting whose name was said: `adam`, `0.01`, `no batchnorm`."""
    others = levels.get(name, ())
    named = value is None or (isinstance(value, bool) and all(isinstance(other, bool | None) for other in others))
    return said(name, value, levels) if named else value_text(value, others)


def value_text(value: Any, others: Sequence[Any]) -> str:
    """A value of a parameter that has these values: 1 is told from "1" and true from "true" where both are there."""
    text = _plain(value)
    alike = {freeze(other) for other in others if _plain(other) == text} - {freeze(value)}
    return clean(json.dumps(value, ensure_ascii=False, default=str)) if alike else text


def _plain(value: Any) -> str:
    """At most three digits of a fraction: a random search draws more than anybody reads."""
    if value is None:
        return "not set"
    return setting(float(f"{value:.3g}")) if isinstance(value, float) and not value.is_integer() else setting(value)
