"""Options of a script, read from its calls of argparse's `add_argument` without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

OptionKind: TypeAlias = Literal["value", "list", "repeated", "flag"]
"""One value; several values after one word; the option once for each value; a word without a value."""

_FLAG_ACTIONS = ("store_true", "store_false", "store_const")
_REPEATED_ACTIONS = ("append", "extend")
_LEFT_OUT_ACTIONS = {"count": "it is counted", "append_const": "its values are constants"}
_IGNORED_ACTIONS = ("help", "version")
_DEFAULT_IN_HELP = re.compile(r"[,;]?\s*[(\[]?(default|Default)(s to|:|=| is)?\s*%\(default\)\w[)\]]?\.?")
_SCALARS = (bool, int, float, str)
_MAX_HELP = 60
"""Characters of an option's help."""


@dataclass(frozen=True, slots=True)
class ScriptOption:
    """Option or positional argument of a script."""

    key: str
    """Name of the parameter."""
    word: str
    """The option as it is typed, such as `--lr`; empty for a positional argument."""
    kind: OptionKind
    default: Any
    """Default value; None if there is none, or if the script computes it."""
    is_computed: bool = False
    """True if the default is an expression or an object that cannot be a word of a command."""
    is_required: bool = False
    type: str = "str"
    """Name of the function that converts the text: `int`, `float`, `str`, or one of the script."""
    choices: tuple[Any, ...] = ()
    help: str = ""
    of_subcommand: bool = False


@dataclass(frozen=True, slots=True)
class ScriptOptions:
    """Options of a script in their order, and those that a grid cannot pass."""

    options: tuple[ScriptOption, ...]
    left_out: Mapping[str, str]
    """Reason by option."""
    subcommand: str | None = None
    """First subcommand of the script, whose options are read; the options of others are left out."""


class _Unknown:
    """Value of an expression that only the running script knows."""


_UNKNOWN = _Unknown()


def read_options(tree: ast.Module) -> ScriptOptions:
    """Return the options that the calls of `add_argument` and `set_defaults` in a script declare."""
    constants = _module_constants(tree)
    subparsers = _subcommands(tree)
    first = next(iter(subparsers.values()), None)
    options: dict[str, ScriptOption] = {}
    left_out: dict[str, str] = {}
    for call in _calls_in_order(tree, "add_argument"):
        command = subparsers.get(_receiver(call))
        words = [_value(word, constants) for word in call.args]
        if not all(isinstance(word, str) for word in words):
            left_out["an option with a computed name"] = "its name is not written in the call"
            continue
        if not words or (command is not None and command != first):
            continue
        keywords = {word.arg: word.value for word in call.keywords if word.arg}
        action = _action(keywords)
        if action in _IGNORED_ACTIONS:
            continue
        option = _option(words, keywords, action, constants)
        if reason := _reason_to_leave_out(option, keywords, action):
            left_out[option.word or option.key] = reason
        else:
            options.setdefault(option.key, replace(option, of_subcommand=command is not None))
    for call in _calls_in_order(tree, "set_defaults"):
        for word in call.keywords:
            if word.arg in options and options[word.arg].kind != "flag":
                options[word.arg] = _with_default(options[word.arg], _value(word.value, constants))
    return ScriptOptions(tuple(options.values()), left_out, first)


def _option(
    words: list[str], keywords: Mapping[str, ast.expr], action: str, constants: Mapping[str, Any]
) -> ScriptOption:
    word = next((word for word in words if word.startswith("--")), words[0])
    is_positional = not word.startswith("-")
    default = _value(keywords.get("default"), constants)
    choices = _value(keywords["choices"], constants) if "choices" in keywords else ()
    kind = _kind(keywords, action)
    named = _value(keywords["dest"], constants) if "dest" in keywords and kind != "flag" else None
    key = named if isinstance(named, str) else word.lstrip("-").replace("-", "_")
    if action == "BooleanOptionalAction" and default is True:
        key, word = f"no_{key}", f"--no-{word.removeprefix('--')}"
    is_optional_positional = _value(keywords.get("nargs"), constants) in ("?", "*")
    option = ScriptOption(
        key,
        "" if is_positional else word,
        kind,
        False if kind == "flag" else None,
        is_required=(is_positional and not is_optional_positional)
        or _value(keywords.get("required"), constants) is True,
        type=_name(keywords["type"]) if "type" in keywords else "str",
        choices=tuple(choices) if isinstance(choices, list | tuple | range) else (),
        help=_help_text(_value(keywords.get("help"), constants)),
    )
    return option if kind == "flag" else _with_default(option, default)


def _with_default(option: ScriptOption, default: Any) -> ScriptOption:
    """Return an option with a default value, if a word of a command can be made of it."""
    if option.kind != "value" and isinstance(default, list | tuple) and all(isinstance(i, _SCALARS) for i in default):
        return replace(option, default=list(default) or None)
    if default is None or (option.kind == "value" and isinstance(default, _SCALARS)):
        return replace(option, default=_converted(default, option.type))
    return replace(option, default=None, is_computed=True)


def _converted(default: Any, type_name: str) -> Any:
    """Return a default of the type that the script converts text to: "1" with `type=int` is 1."""
    try:
        return {"int": int, "float": float}[type_name](default) if isinstance(default, str) else default
    except (KeyError, ValueError):
        return default


def _kind(keywords: Mapping[str, ast.expr], action: str) -> OptionKind:
    if action in _FLAG_ACTIONS or action == "BooleanOptionalAction":
        return "flag"
    if action in _REPEATED_ACTIONS and "nargs" not in keywords:
        return "repeated"
    nargs = _value(keywords.get("nargs"), {})
    return "value" if nargs in (None, "?") else "list"


def _reason_to_leave_out(option: ScriptOption, keywords: Mapping[str, ast.expr], action: str) -> str | None:
    if action in _LEFT_OUT_ACTIONS:
        return _LEFT_OUT_ACTIONS[action]
    if option.kind == "value" and option.type == "bool":
        return "type=bool takes every text, also `false`, as true: use action='store_true'"
    nargs = keywords.get("nargs")
    if nargs is not None and (_name(nargs) in ("REMAINDER", "PARSER") or _value(nargs, {}) in ("...", "A...")):
        return "it takes the rest of the words"
    return None


def _action(keywords: Mapping[str, ast.expr]) -> str:
    """Return the action of a call: its text, or the name of its class."""
    if "action" not in keywords:
        return "store"
    text: object = _value(keywords["action"], {})
    return text if isinstance(text, str) else _name(keywords["action"])


def _help_text(help_text: object) -> str:
    if not isinstance(help_text, str) or help_text.startswith("==SUPPRESS"):
        return ""
    words = " ".join(_DEFAULT_IN_HELP.sub("", help_text).replace("%%", "%").split())
    return words if len(words) <= _MAX_HELP else words[: _MAX_HELP - 3].rstrip() + "..."


def _calls_in_order(tree: ast.Module, method: str) -> Iterator[ast.Call]:
    """Yield the calls of a method in the order of the text."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]
    yield from sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _subcommands(tree: ast.Module) -> dict[str, str]:
    """Return the subcommand of each variable that holds its parser."""
    return {
        target.id: str(_value(node.value.args[0], {}))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if isinstance(node.value.func, ast.Attribute) and node.value.func.attr == "add_parser" and node.value.args
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _receiver(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return call.func.value.id if isinstance(call.func.value, ast.Name) else ""


def _module_constants(tree: ast.Module) -> dict[str, Any]:
    """Return the names that the module assigns to constants, once each."""
    constants: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            constants[name] = _UNKNOWN if name in constants else _value(node.value, constants)
    return constants


def _value(node: ast.expr | None, constants: Mapping[str, Any]) -> Any:
    """Return the value of a constant expression, a named constant or `Path("...")`; else an `_Unknown`."""
    if node is None:
        return None
    if isinstance(node, ast.Name):
        return constants.get(node.id, _UNKNOWN)
    if isinstance(node, ast.Call) and _name(node.func) == "Path" and len(node.args) == 1:
        return _value(node.args[0], constants)
    if isinstance(node, ast.Call) and _name(node.func) == "range":
        bounds = [_value(argument, constants) for argument in node.args]
        return range(*bounds) if bounds and all(isinstance(bound, int) for bound in bounds) else _UNKNOWN
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN


def _name(node: ast.expr) -> str:
    """Return the last part of a name such as `argparse.BooleanOptionalAction`; "" for any other expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
