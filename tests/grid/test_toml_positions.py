"""Positions of keys and values in TOML: the text at each position parses to what `tomllib` returns."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbench.grid.toml_positions import Path, Positions, find_positions

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\r")
strings = st.text(characters, max_size=8) | st.sampled_from(
    ['"', "'", "''", '""', "]", "}", "#", "\\", "\n", "a = 1", ","]
)
keys = st.sampled_from(["a", "b", "lr", "1", "-", "x.y", "", '"', "é", "# no"]) | strings
scalars = (
    strings
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([datetime(2026, 11, 30, 7, 32), date(1979, 5, 27), time(7, 32, 0, 5000)])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(keys, values, max_size=4)
spaces = st.sampled_from(["", " ", "\t", "  "])
blanks = st.sampled_from(["", " ", "\n", " # a ] comment, = 'x\n", "\n\n\t"])


class Writer:
    """Writer of a document in one of many equivalent spellings."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def pick(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def string(self, text: str) -> str:
        basic = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        styles = (
            [basic, f'"""\n{basic[1:-1]}"""', f'"""\\\n   {basic[1:-1]}"""']
            if text[:1] not in list(" \t\n")
            else [basic]
        )
        if text.isprintable() and "'" not in text:
            styles.append(f"'{text}'")
        if "'''" not in text and re.fullmatch(r"[\n\t\x20-\x7e]*", text):
            styles += [f"'''\n{text}'''"]
            if '"""' not in text and "\\" not in text:
                styles += [f'"""\n{text}"""'] if not text.endswith('"""') else []
        return self.pick(*styles)

    def key(self, key: str) -> str:
        styles = [json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")]
        if re.fullmatch(r"[A-Za-z0-9_-]+", key):
            styles.append(key)
        if key.isprintable() and "'" not in key:
            styles.append(f"'{key}'")
        return self.pick(*styles)

    def dotted(self, path: tuple[str, ...]) -> str:
        return f"{self.draw(spaces)}.{self.draw(spaces)}".join(map(self.key, path))

    def value(self, value: Any) -> str:
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, list):
            items = [self.draw(blanks) + self.value(item) + self.draw(blanks) for item in value]
            return "[" + ",".join(items) + (self.pick("", ",") if items else "") + self.draw(blanks) + "]"
        if isinstance(value, dict):
            return "{" + self.draw(spaces) + ",".join(self.pairs(value, ())) + self.draw(spaces) + "}"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, datetime):
            return value.isoformat(self.pick(" ", "T")) + self.pick("", ".25", "Z")
        return value.isoformat() if isinstance(value, date | time) else repr(value)

    def pairs(self, table: dict[str, Any], prefix: tuple[str, ...]) -> Iterator[str]:
        for key, value in table.items():
            if isinstance(value, dict) and value and self.draw(st.booleans()):
                yield from self.pairs(value, (*prefix, key))
            else:
                name = self.draw(spaces) + self.dotted((*prefix, key)) + self.draw(spaces)
                yield f"{name}={self.draw(spaces)}{self.value(value)}{self.draw(spaces)}"

    def table(self, table: dict[str, Any], prefix: tuple[str, ...]) -> Iterator[str]:
        """Yield the lines of a table; tables with their own headers follow the pairs."""
        later = {key for key, value in table.items() if is_table(value) and self.draw(st.booleans())}
        for line in self.pairs({key: value for key, value in table.items() if key not in later}, ()):
            yield line + self.pick("", " # [x] = 'comment")
        for key in later:
            path = (*prefix, key)
            if isinstance(table[key], dict):
                yield f"{self.draw(spaces)}[{self.draw(spaces)}{self.dotted(path)}{self.draw(spaces)}]"
                yield from self.table(table[key], path)
            else:
                for item in table[key]:
                    yield f"[[{self.draw(spaces)}{self.dotted(path)}{self.draw(spaces)}]] # one more"
                    yield from self.table(item, path)


def is_table(value: Any) -> bool:
    """Return True if a value can be written with its own header, `[x]` or `[[x]]`."""
    return isinstance(value, dict) or bool(
        value and isinstance(value, list) and all(isinstance(v, dict) for v in value)
    )


@st.composite
def texts(draw: st.DrawFn) -> str:
    lines = list(Writer(draw).table(draw(documents), ()))
    return draw(blanks).strip(" \t") + "\n".join(lines) + draw(blanks)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that is not a table, including lists and their items."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value
        for index, item in enumerate(value) if isinstance(value, list) else ():
            yield from leaves(item, (*path, index))


def at(document: Any, path: Path) -> Any:
    for part in path:
        document = document[part]
    return document


@settings(deadline=None)
@given(texts())
@example(
    'a = [1, [2, "]"], {x = 3}] # ]\n[t."x.y"]\nb.c = """\n"a""""\n[[z]]\n[z.y]\nq = 1979-05-27 07:32:00Z\n[[z]]\n'
)
@example("a = '''\n''''' # ''' \nb = \"\"\"\\\"\"\"\"\"\"\nc = ''\nd = \"\"")
def test_the_text_at_a_position_parses_to_the_value_there(text: str) -> None:
    document = tomllib.loads(text)
    positions = find_positions(text)
    for path, (start, end) in positions.values.items():
        assert tomllib.loads(f"value = {text[start:end]}")["value"] == at(document, path)
    for path, (start, end) in positions.keys.items():
        if isinstance(path[-1], str):
            assert list(tomllib.loads(f"{text[start:end]} = 1")) == [path[-1]]
    arrays_of_tables = {path[:-1] for path in positions.keys if isinstance(path[-1], int)}
    assert {path for path, _ in leaves(document)} - arrays_of_tables <= positions.values.keys()
    assert {path[:n] for path, _ in leaves(document) for n in range(1, len(path) + 1)} <= (
        positions.keys.keys() | positions.values.keys()
    )


def position_of(positions: Positions, path: Path) -> tuple[int, int]:
    return positions.line_and_column(positions.values[path][0])


def test_lines_and_columns_count_from_one() -> None:
    positions = find_positions('x=1\n\n[grid]\n\tlr = [0.1,\n        0.01]\nname = "é", \n'.replace('", ', '"'))
    assert position_of(positions, ("x",)) == (1, 3)
    assert position_of(positions, ("grid", "lr", 0)) == (4, 8)
    assert position_of(positions, ("grid", "lr", 1)) == (5, 9)
    assert position_of(positions, ("grid", "name")) == (6, 8)
    assert positions.line_and_column(positions.keys[("grid",)][0]) == (3, 2)


def test_each_table_of_an_array_has_its_own_position() -> None:
    positions = find_positions("[[zip]]\na = [1]\n[[zip]]\n[zip.b]\nc = [2]\n[[zip.d]]\n[[zip.d]]\ne=1")
    assert position_of(positions, ("zip", 0, "a", 0)) == (2, 6)
    assert position_of(positions, ("zip", 1, "b", "c", 0)) == (5, 6)
    assert position_of(positions, ("zip", 1, "d", 1, "e")) == (8, 3)
    assert positions.text[slice(*positions.keys[("zip", 1)])] == "[[zip]]"
