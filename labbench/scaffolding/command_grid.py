"""Grid file of a script: its options as words of a command, its defaults as parameters."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from labbench.scaffolding.script_files import Script
from labbench.scaffolding.script_options import ScriptOption
from labbench.scaffolding.task_grid import N_SEEDS
from labbench.scaffolding.toml_text import commented_lines, toml_key, toml_value

_LEARNING_RATES = ("lr", "learning_rate", "learningrate", "base_lr", "alpha", "eta")
_SEEDS = ("seed", "random_seed", "rng_seed", "random_state", "manual_seed")

MORE = """\
# More tables of grid files, ready to use without the leading "# ":
#{draws}
# [stop]                                # end a script once it has logged this many values without a better one
# metric = "val/loss"
# patience = 5
#
# [search]                              # run only some of the settings; "tpe" chooses them by the results so far
# method = "random"
# metric = "val/loss"
# budget = 20
"""
DRAWS = """
# [random]                              # draws instead of [grid]; remove the lines of the same keys
# samples = 50
# {key} = {{ loguniform = [1e-4, 1.0] }}
#"""

LOGGING_HINTS = {
    "labbench": "",
    "wandb": "replace `import wandb` by `from labbench import wandb`, and the runs record what the script logs",
    "tensorboard": "take SummaryWriter from labbench.integrations, and the runs record what the script logs",
    "": "log with labbench.start(), and the runs record metrics; without it they record the script's output alone",
}
"""Change of a script that makes its runs record metrics, by the package with which it logs now."""


@dataclass(frozen=True, slots=True)
class CommandGrid:
    """Text of a grid file that starts a script, and what its user has to know."""

    text: str
    required: tuple[str, ...]
    """Parameters without a value, which the script requires."""
    notes: tuple[str, ...]


def command_grid(script: Script, folder: Path) -> CommandGrid:
    """Return the grid file for a script; `folder` is the folder of the file."""
    options = [_with_usable_default(option) for option in script.options.options]
    required = tuple(option.key for option in options if option.is_required and option.default is None)
    seed = next((option for option in options if option.key in _SEEDS and option.kind == "value"), None)
    rate = next((option for option in options if _is_learning_rate(option)), None)
    fixed = [option for option in options if option is not seed and option is not rate]
    lines = [
        f"# Starts {script.path.name} once for each run. The options were read from its code.",
        f"name = {toml_value(script.path.stem)}",
        *_command_lines(script, options, Path(os.path.relpath(script.path, folder)).as_posix()),
        "",
        *commented_lines([("[params]", "the same for every run: defaults of the script"), *map(_param_line, fixed)]),
        "",
        *_axes_lines(rate, options, seed),
    ]
    draws = "" if rate is None else DRAWS.format(key=toml_key(rate.key))
    return CommandGrid("\n".join(lines) + "\n\n" + MORE.format(draws=draws), required, _notes(script))


def _with_usable_default(option: ScriptOption) -> ScriptOption:
    """Return a required option with the first of its choices as its value."""
    return replace(option, default=option.choices[0]) if option.is_required and option.choices else option


def _is_learning_rate(option: ScriptOption) -> bool:
    return (
        option.key.lower() in _LEARNING_RATES
        and option.kind == "value"
        and isinstance(option.default, int | float)
        and option.default > 0
    )


def _command_lines(script: Script, options: list[ScriptOption], path: str) -> list[str]:
    """Return the lines of `command`, one for each option."""

    def lines_of(*, of_subcommand: bool) -> list[tuple[str, str]]:
        chosen = [option for option in options if option.of_subcommand == of_subcommand]
        # a positional argument behind an option that takes a list would be one of its values
        return [(f"    {_words(option)},", option.help) for option in sorted(chosen, key=lambda o: bool(o.word))]

    lines = [(f'    "python", {toml_value(path)},', ""), *lines_of(of_subcommand=False)]
    if script.options.subcommand is not None:
        lines += [(f"    {toml_value(script.options.subcommand)},", "subcommand"), *lines_of(of_subcommand=True)]
    return ["command = [", *commented_lines(lines), "]"]


def _words(option: ScriptOption) -> str:
    """Return the words of an option in a command, as docs/reference/grid.md describes them."""
    key = option.key
    is_optional = option.default is None and not option.is_required
    mark = "?" if is_optional else ""
    if option.kind == "flag":
        return toml_value(f"{{{key}:{option.word}}}")
    if option.kind == "repeated":
        return toml_value(f"{option.word}={{{key}...{mark}}}")
    words = [*filter(None, [option.word]), f"{{{key}{'...' if option.kind == 'list' else ''}{mark}}}"]
    text = ", ".join(map(toml_value, words))
    return f"[{text}]" if is_optional and option.word else text


def _param_line(option: ScriptOption) -> tuple[str, str]:
    """Return the line of a parameter with its default, and a comment on what else it may be."""
    key = toml_key(option.key)
    if option.default is None and option.is_required:
        return f"# {key} = ", f"{option.key} is required: set it here"
    comment = ""
    if option.choices:
        comment = "one of " + ", ".join(map(str, option.choices))
    elif option.is_computed:
        comment = '"none": the default that the script computes'
    elif option.default is None:
        comment = f'"none": without {option.word or option.key}'
    return f"{key} = {toml_value(option.default)}", comment


def _axes_lines(rate: ScriptOption | None, options: list[ScriptOption], seed: ScriptOption | None) -> list[str]:
    """Return `[grid]` with the learning rate as an axis, or an example of an axis, and `[repeat]` for a seed."""
    heading = ("[grid]", "every combination of these lists; move parameters from [params] here to vary them")
    if rate is not None:
        values = [rate.default, float(f"{rate.default / 10:.2g}")]
        lines = [heading, (f"{toml_key(rate.key)} = {toml_value(values)}", "")]
    else:
        example = next((option for option in options if option.kind == "value" and option.default is not None), None)
        text = "lr = [0.1, 0.01]"
        if example is not None:
            values = list(example.choices) or [example.default, "..."]
            text = f"{toml_key(example.key)} = [{', '.join(toml_value(v) if v != '...' else v for v in values)}]"
        is_empty = seed is None or seed.key == "seed"
        heading = ("# [grid]" if is_empty else "[grid]", heading[1])
        lines = [heading, (f"# {text}", "remove the line in [params] to use it")]
    if seed is None:
        return commented_lines(lines)
    first = seed.default if isinstance(seed.default, int) and seed.default >= 0 else 0
    seeds = toml_value([first + index for index in range(N_SEEDS)])
    if seed.key == "seed":
        comment = "every combination with each seed; several show how certain a difference is"
        repeat = [("", ""), ("[repeat]", comment), (f"seeds = {seeds}", "")]
    else:
        repeat = [(f"{toml_key(seed.key)} = {seeds}", "seeds; several show how certain a difference is")]
    return commented_lines([*lines, *repeat])


def _notes(script: Script) -> tuple[str, ...]:
    """Return what the grid leaves out, and how the script's metrics get into the runs."""
    notes = [f"{word} is not in the grid: {reason}" for word, reason in script.options.left_out.items()]
    if script.options.subcommand is not None:
        notes.append(f"the grid starts the subcommand {script.options.subcommand}; edit its words for another one")
    package = next((name for name in LOGGING_HINTS if name in script.imports), "")
    if hint := LOGGING_HINTS[package]:
        notes.append(f"{script.path.name}: {hint}")
    return tuple(notes)
