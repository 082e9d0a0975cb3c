"""Parser of a grid file to settings with positions."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from labbench.errors import GridError, did_you_mean
from labbench.grid.checks import BadValueError, convert_value
from labbench.grid.other_names import suggest_name
from labbench.grid.toml_positions import Path as TomlPath
from labbench.grid.toml_positions import Positions, find_positions
from labbench.params.builtin import BUILTIN
from labbench.params.param import Param

_MAX_FILES = 5
"""Number of grid files that a hint lists."""

Table: TypeAlias = Mapping[str, Any]

ValueParser: TypeAlias = Param | Callable[[Any], Any]
"""Check of a value: a parameter, or a function that returns the converted value or raises BadValueError."""

YAML_ANSWER = "a YAML file: docs/howto/script.md, From a W&B sweep to a grid, shows the same as TOML"
"""Answer to a sweep of W&B in place of a grid file or of a script."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Key and value of a config, with their position."""

    key: str
    """Flat key: nested tables are joined with `.`."""
    value: Any
    path: TomlPath
    """Keys and indices in the file; a path that begins with an integer i is in the i-th `--set`."""


@dataclass(frozen=True, slots=True)
class GridSource:
    """Grid file and overrides of the command line, as the user wrote them."""

    file: str
    text: str
    document: Table
    positions: Positions
    overrides: tuple[str, ...] = ()

    def error(
        self, message: str, path: TomlPath, *, at: Literal["key", "value"] = "value", part: str = ""
    ) -> GridError:
        """Return an error at a path of the document.

        The position belongs to the path, or to its nearest parent that is in the file; with `part`, to the first
        occurrence of this text there.
        """
        if path and isinstance(path[0], int):
            return GridError(f"--set {self.overrides[path[0]]}: {message}")
        keys, values = self.positions.keys, self.positions.values
        first, second = (values, keys) if at == "value" else (keys, values)
        while path:
            if span := first.get(path) or second.get(path):
                line, column = self.positions.line_and_column(max(span[0], self.text.find(part, *span)))
                text = self.text.split("\n")[line - 1]
                return GridError(message, file=self.file, line=line, column=column, text=text)
            path = path[:-1]
        return GridError(message, file=self.file)

    def read(self, reader: ValueParser, value: Any, name: str, path: TomlPath) -> Any:
        """Return the converted value. Raises GridError, with `name` and position, if it is invalid."""
        try:
            return convert_value(reader, value) if isinstance(reader, Param) else reader(value)
        except BadValueError as problem:
            if problem.index is None:
                raise self.error(f"{name} {problem}", path) from None
            message = f"{name}{problem}" if problem.item else f"each item of {name} {problem}"
            raise self.error(message, (*path, problem.index)) from None

    def settings(self, table: Table, path: TomlPath) -> dict[str, Setting]:
        """Return the settings of a table and its nested tables, by flat key.

        Raises GridError if a key is set twice, or a value cannot be written as JSON.
        """
        settings: dict[str, Setting] = {}
        for setting in self._flatten(table, path, ""):
            if setting.key in settings:
                raise self.error(f"`{setting.key}` is set twice in this table", setting.path, at="key")
            self._require_json(setting, setting.value, setting.path)
            settings[setting.key] = setting
        return settings

    def require_known(self, table: Table, path: TomlPath, keys: Collection[str]) -> None:
        """Raise GridError if a table has a key other than `keys`."""
        for key in table:
            if key not in keys:
                hint = suggest_name(key, keys) or f"; the keys are {', '.join(keys)}"
                raise self.error(f"unknown key `{key}` in [{path[0]}]{hint}", (*path, key), at="key")

    def options(self, name: str, readers: Mapping[str, ValueParser]) -> dict[str, Any]:
        """Return the keys and values that the file gives in a table with fixed keys.

        Raises GridError if a key is unknown or a value is invalid.
        """
        table = self.table(name)
        self.require_known(table, (name,), readers)
        return {key: self.read(readers[key], value, key, (name, key)) for key, value in table.items()}

    def table(self, name: str) -> Table:
        """Return the table `[name]`, empty if the file has none. Raises GridError if it is not one table."""
        table = self.document.get(name, {})
        if not isinstance(table, dict):
            raise self.error(f"`{name}` must be one table: write [{name}], then its keys and values", (name,), at="key")
        return table

    def tables(self, name: str) -> list[tuple[TomlPath, Table]]:
        """Return the tables `[[name]]` with their paths. Raises GridError if they are not a list of tables."""
        tables = self.document.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self.error(f"`{name}` must be a list of tables: write [[{name}]]", (name,), at="key")
        return [((name, index), table) for index, table in enumerate(tables)]

    def value_at(self, path: TomlPath) -> Any:
        """Return the value at a path of the document, None if there is none."""
        value: Any = self.document
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def _flatten(self, table: Table, path: TomlPath, prefix: str) -> list[Setting]:
        settings = []
        for name, value in table.items():
            if isinstance(value, dict):
                settings += self._flatten(value, (*path, name), f"{prefix}{name}.")
            else:
                settings.append(Setting(prefix + name, value, (*path, name)))
        return settings

    def _require_json(self, setting: Setting, value: Any, path: TomlPath) -> None:
        if isinstance(value, list | dict):
            for part, item in enumerate(value) if isinstance(value, list) else value.items():
                self._require_json(setting, item, (*path, part))
        elif isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"{setting.key} must be a finite number, not {value}", path)
        elif not isinstance(value, str | int | float):
            raise self.error(f"{setting.key} cannot be a date or a time: put quotes around {value}", path)


def read_source(path: Path, overrides: Sequence[str] = ()) -> GridSource:
    """Read a grid file.

    Raises:
        GridError: The file is missing, cannot be read, or is not valid TOML.
    """
    file = str(path)
    try:
        content = path.read_bytes()
        _require_grid_file(path, content)
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise GridError(f"no such grid file{_nearest_grid(path)}", file=file) from None
    except OSError as error:
        raise GridError(f"cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError as error:
        raise GridError(f"not UTF-8 text (byte {error.start}): save it as UTF-8", file=file) from None
    try:
        document = tomllib.loads(text)
        positions = find_positions(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), file, text) from None
    except RecursionError:
        raise GridError("TOML: nested too deeply", file=file) from None
    except ValueError:
        raise GridError("TOML: an integer of thousands of digits", file=file) from None
    return GridSource(file, text, document, positions, tuple(overrides))


def _require_grid_file(path: Path, content: bytes) -> None:
    """Raise GridError for a script, a database or a YAML file in place of a grid file."""
    name, message = shlex.quote(str(path)), None
    if path.suffix == ".py":
        message = (
            f"a Python script: labbench new --from {name} writes a grid of it, labbench run -- python {name} records it"
        )
    elif content.startswith(b"SQLite format 3"):
        message = f"a database: labbench --db {name} shows its runs"
    elif path.suffix in (".yaml", ".yml"):
        message = YAML_ANSWER
    if message is not None:
        raise GridError(f"not a grid file, but {message}", file=str(path))


def _nearest_grid(path: Path) -> str:
    """Return a hint at the built-in task of this name, the grid file with the most similar one, or the others."""
    if str(path) in BUILTIN:
        return f"; {path} is a task: labbench new --task {path} writes a grid of it"
    nearest = did_you_mean(path.stem, [other.stem for other in path.parent.glob("*.toml")])
    return nearest.replace("`?", ".toml`?") or f"; {list_grid_files(path.parent)}"


def find_grid_files(folder: Path) -> list[str]:
    """Return the names of the files of a folder that are grids, in alphabetical order."""
    return sorted(path.name for path in folder.glob("*.toml") if _names_task(path))


def _names_task(path: Path) -> bool:
    """Return True for a file in TOML with a task or a command."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return not document.keys().isdisjoint(("task", "command"))


def list_grid_files(folder: Path) -> str:
    """Return a clause with the first grid files of a folder, or with the command that writes one."""
    names = find_grid_files(folder)
    listed = ", ".join(names[:_MAX_FILES]) + ", ..." * (len(names) > _MAX_FILES)
    return f"grid files here: {listed}" if names else "a first one is written by labbench new"


def override_settings(source: GridSource) -> dict[str, tuple[Setting, ...]]:
    """Return the settings of `--set key=value`, one for each value of `key=value,value`; the last option of a key wins.

    A value is TOML; a bare word is a string.

    Raises:
        GridError: An override is not `key=value`, or its value cannot be written as JSON.
    """
    settings: dict[str, tuple[Setting, ...]] = {}
    for index, override in enumerate(source.overrides):
        key, equals, text = (part.strip() for part in override.partition("="))
        if not key or not equals or not text:
            raise GridError(f"--set {override}: write it as key=value")
        alternatives = [source.settings({key: value}, (index,)) for value in _parse_values(text)]
        for flat_key in dict.fromkeys(flat_key for setting in alternatives for flat_key in setting):
            settings[flat_key] = tuple(setting[flat_key] for setting in alternatives if flat_key in setting)
    return settings


def _parse_values(text: str) -> list[Any]:
    """Return the values of `0.1`, `0.1,0.2`, `[16,8],[8]` or `sgd,adam`."""
    if (value := _parse_toml(text)) is not None:
        return [value]
    values = _parse_toml(f"[{text}]")
    if isinstance(values, list) and len(values) > 1:
        return values
    words = [word.strip() for word in text.split(",")]
    if len(words) > 1 and all(re.fullmatch(r"[\w.+-]+", word) for word in words):
        return [word if (value := _parse_toml(word)) is None else value for word in words]
    return [text]


def _parse_toml(text: str) -> Any:
    """Return the TOML value of a text, None if it is not one value."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return None
    return document["value"] if document.keys() == {"value"} else None


def _syntax_error(message: str, file: str, text: str) -> GridError:
    """Convert a message of tomllib to a GridError.

    The message ends with `(at line 3, column 8)` or `(at end of document)`.
    """
    lines = text.split("\n")
    problem, _, where = message.rpartition(" (at ")
    if match := re.fullmatch(r"line (\d+), column (\d+)\)", where):
        line, column = int(match[1]), int(match[2])
    else:
        problem, line, column = (problem or message), len(lines), len(lines[-1]) + 1
    hint = _syntax_hint(problem, lines[line - 1], column)
    return GridError(
        f"TOML: {problem[:1].lower()}{problem[1:]}{hint}", file=file, line=line, column=column, text=lines[line - 1]
    )


def _syntax_hint(problem: str, line: str, column: int) -> str:
    """Return how to write a line in which tomllib has found a problem at a column, "" if that is unknown."""
    if problem == "Invalid value":
        return _value_hint(line[column - 1 :])
    if problem == "Unclosed array" and re.match(r"[\w.\"'+-]", line[column - 1 :]):
        return ": put a comma between the items"
    statement = re.fullmatch(r"\s*([\w.\"'-]+)\s*([=:])\s*([^#]*?)\s*(?:#.*)?", line)
    if statement is None:
        return ""
    key, sign, value = statement.groups()
    if sign == ":" and problem.startswith("Expected '='"):
        return f": write {key} = {value}"
    if not problem.startswith("Expected newline"):
        return ""
    if re.fullmatch(r"[^,\[\]{}]+(,[^,\[\]{}]+)+,?", value):
        return f": write a list, {key} = [{value.rstrip(',')}]"
    return f': write a number alone, or text in quotes, "{value}"' if re.fullmatch(r"[\w.+-]+", value) else ""


def _value_hint(text: str) -> str:
    """Return how to write a value that is valid in Python or JSON, but not in TOML."""
    if word := re.match(r"(True|False)\b", text):
        return f": write {word[1].lower()}"
    if re.match(r"(None|null|nil)\b", text):
        return ': write "none", since TOML has no null'
    if number := re.match(r"(-?)(\.\d[\d.eE+-]*)", text):
        return f": write {number[1]}0{number[2]}"
    if re.match(r"(np\.|numpy\.)?(range|linspace|logspace|arange)\(", text):
        return ": write { from = 0, to = 1, step = 0.1 }, or { from = 1e-4, to = 1, count = 5, log = true }"
    if values := re.match(r"\(([^()]*)\)\s*(?:#|$)", text):
        return f": write [{values[1].strip().rstrip(',')}]"
    return ": put quotes around text" if re.match(r"[A-Za-z_]", text) else ""
