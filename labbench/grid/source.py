"""A grid file's text: read, its tables taken apart into settings, and every error pointing at a place in it."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from labbench.errors import GridError, did_you_mean
from labbench.grid.checks import BadValueError, convert_value
from labbench.grid.toml_positions import Path as TomlPath
from labbench.grid.toml_positions import Positions, find_positions
from labbench.params.param import Param

Table: TypeAlias = Mapping[str, Any]

ValueParser: TypeAlias = Param | Callable[[Any], Any]
"""What a value must be: a parameter, or a function that returns it as it is used or raises BadValueError."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a config and its value, and where they were said."""

    key: str
    """Flat: nested tables are joined with `.`."""
    value: Any
    path: TomlPath
    """Keys and indices in the file; a path that begins with `i` is in the i-th override of the command line."""


@dataclass(frozen=True, slots=True)
class GridSource:
    """What a person wrote: the file and the overrides of the command line."""

    file: str
    text: str
    document: Table
    positions: Positions
    overrides: tuple[str, ...] = ()

    def error(self, message: str, path: TomlPath, *, at: Literal["key", "value"] = "value") -> GridError:
        """An error that points at a path of the document, or at the nearest part of it that stands in the file."""
        if path and isinstance(path[0], int):
            return GridError(f"--set {self.overrides[path[0]]}: {message}")
        keys, values = self.positions.keys, self.positions.values
        first, second = (values, keys) if at == "value" else (keys, values)
        while path:
            if span := first.get(path) or second.get(path):
                line, column = self.positions.line_and_column(span[0])
                text = self.text.split("\n")[line - 1]
                return GridError(message, file=self.file, line=line, column=column, text=text)
            path = path[:-1]
        return GridError(message, file=self.file)

    def read(self, reader: ValueParser, value: Any, name: str, path: TomlPath) -> Any:
        """A value as it is used, or an error that calls it by its name."""
        try:
            return convert_value(reader, value) if isinstance(reader, Param) else reader(value)
        except BadValueError as problem:
            if problem.index is None:
                raise self.error(f"{name} {problem}", path) from None
            message = f"{name}{problem}" if problem.item else f"each item of {name} {problem}"
            raise self.error(message, (*path, problem.index)) from None

    def settings(self, table: Table, path: TomlPath) -> dict[str, Setting]:
        """The settings of a table and of the tables in it, by flat key. Every value can be written as JSON."""
        found: dict[str, Setting] = {}
        for setting in self._flatten(table, path, ""):
            if setting.key in found:
                raise self.error(f"`{setting.key}` is set twice in this table", setting.path, at="key")
            self._require_json(setting, setting.value, setting.path)
            found[setting.key] = setting
        return found

    def require_known(self, table: Table, path: TomlPath, known: Collection[str]) -> None:
        """Refuse a key of a table that has fixed ones."""
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known) or f" (there are {', '.join(known)})"
                raise self.error(f"unknown key `{key}` in [{path[0]}]{hint}", (*path, key), at="key")

    def table(self, name: str) -> Table:
        """A table that stands once, `[name]`; empty where the file has none."""
        table = self.document.get(name, {})
        if not isinstance(table, dict):
            how = f"write [{name}]" if isinstance(table, list) else f"[{name}] is a table of keys and values"
            raise self.error(f"there is one [{name}] in a grid: {how}", (name,), at="key")
        return table

    def tables(self, name: str) -> list[tuple[TomlPath, Table]]:
        """The tables `[[name]]`, each with its path."""
        tables = self.document.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self.error(f"there may be several: write [[{name}]]", (name,), at="key")
        return [((name, index), table) for index, table in enumerate(tables)]

    def _flatten(self, table: Table, path: TomlPath, prefix: str) -> list[Setting]:
        found = []
        for name, value in table.items():
            if isinstance(value, dict):
                found += self._flatten(value, (*path, name), f"{prefix}{name}.")
            else:
                found.append(Setting(prefix + name, value, (*path, name)))
        return found

    def _require_json(self, setting: Setting, value: Any, path: TomlPath) -> None:
        if isinstance(value, list | dict):
            for part, item in enumerate(value) if isinstance(value, list) else value.items():
                self._require_json(setting, item, (*path, part))
        elif isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"{setting.key} must be a finite number, not {value}", path)
        elif not isinstance(value, str | int | float):
            raise self.error(f"{setting.key} cannot be a date or a time: put quotes around {value}", path)


def read_source(path: Path, overrides: Sequence[str] = ()) -> GridSource:
    """Read a grid file. Raises GridError when there is none, or none that is TOML."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        hint = did_you_mean(path.stem, [other.stem for other in path.parent.glob("*.toml")])
        raise GridError(f"there is no such grid file{hint}", file=file) from None
    except OSError as error:
        raise GridError(f"cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError as error:
        raise GridError(f"is not UTF-8 text (byte {error.start})", file=file) from None
    try:
        document = tomllib.loads(text)
        positions = find_positions(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), file, text) from None
    except RecursionError:
        raise GridError("is nested too deeply", file=file) from None
    except ValueError:
        raise GridError("TOML: an integer of thousands of digits", file=file) from None
    return GridSource(file, text, document, positions, tuple(overrides))


def override_settings(source: GridSource) -> dict[str, Setting]:
    """The settings of `--set key=value`: values are TOML, and a bare word is a string. The last of a key wins."""
    found: dict[str, Setting] = {}
    for index, override in enumerate(source.overrides):
        key, equals, written = (part.strip() for part in override.partition("="))
        if not key or not equals or not written:
            raise GridError(f"--set {override}: write it as key=value")
        try:
            document = tomllib.loads(f"value = {written}")
        except (ValueError, RecursionError):
            document = {"value": written}
        value = document["value"] if document.keys() == {"value"} else written
        found |= source.settings({key: value}, (index,))
    return found


def _syntax_error(message: str, file: str, text: str) -> GridError:
    """tomllib ends its messages with `(at line 3, column 8)` or `(at end of document)`."""
    lines = text.split("\n")
    what, _, where = message.rpartition(" (at ")
    if found := re.fullmatch(r"line (\d+), column (\d+)\)", where):
        line, column = int(found[1]), int(found[2])
    else:
        what, line, column = (what or message), len(lines), len(lines[-1]) + 1
    return GridError(f"TOML: {what[:1].lower()}{what[1:]}", file=file, line=line, column=column, text=lines[line - 1])
