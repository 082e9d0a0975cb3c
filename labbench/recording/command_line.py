"""Configuration in the words of a command, without the values of secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labbench.system.secret_options import ASSIGNMENT, MASK, OPTION, is_secret, mask_url

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)")
_SCRIPT_SUFFIXES = (".py", ".sh", ".ipynb", ".jl", ".R", ".lua")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def read_config(words: Sequence[str]) -> dict[str, Any]:
    """Return the options and assignments behind the script of a command, or behind its program.

    `--lr 0.1`, `--lr=0.1`, `-x 1` and Hydra's `model.width=8` are read; an option without a value is true, one with
    several numbers a list. Values of secrets are masked.
    """
    config: dict[str, Any] = {}
    words = words[_script_index(words) + 1 :]
    index = 0
    while index < len(words):
        word, index = words[index], index + 1
        assignment, option = ASSIGNMENT.fullmatch(word), OPTION.fullmatch(word)
        if assignment:
            key, value = assignment["key"], _to_value(assignment["value"])
        elif option:
            values = _values_from(words, index)
            index += len(values)
            numbers = [_to_value(each) for each in values]
            key, value = option["key"], True if not values else numbers[0] if len(values) == 1 else numbers
        else:
            continue
        key = key if assignment and not assignment["dashes"] else key.replace("-", "_")
        config[key] = MASK if is_secret(key) else mask_url(value) if isinstance(value, str) else value
    return config


def script_name(words: Sequence[str]) -> str:
    """Return the name of the script or module of a command, else of its program."""
    index = _script_index(words)
    if words[index - 1] == "-m" and index:
        return words[index]
    return Path(words[index]).stem or words[index]


def script_file(words: Sequence[str], folder: Path) -> Path | None:
    """Return the file of the script of a command; None for a module or program."""
    path = folder / words[_script_index(words)]
    return path if path.suffix in _SCRIPT_SUFFIXES and path.is_file() else None


def _script_index(words: Sequence[str]) -> int:
    """Return the index of the first script, or of the module behind `-m`; of the program without one."""
    for index, word in enumerate(words):
        if word.endswith(_SCRIPT_SUFFIXES) or (index and words[index - 1] == "-m"):
            return index
    return 0


def _values_from(words: Sequence[str], index: int) -> list[str]:
    """Return the values of the option before `index`: one word, or several numbers."""
    values: list[str] = []
    while index < len(words) and (_NUMBER.fullmatch(words[index]) or not (values or _is_key(words[index]))):
        values.append(words[index])
        index += 1
        if not _NUMBER.fullmatch(values[0]):
            break
    return values


def _is_key(word: str) -> bool:
    return word.startswith("-") or bool(ASSIGNMENT.fullmatch(word))


def _to_value(text: str) -> Any:
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if not _NUMBER.fullmatch(text):
        return text
    digits = text.lstrip("+-")
    return int(text) if digits.isdecimal() and len(digits) < 16 else float(text)
