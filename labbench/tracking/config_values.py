"""Conversion of config values to JSON: equal values become equal JSON in every process, and no conversion raises."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from contextlib import suppress
from enum import Enum
from types import ModuleType
from typing import Any, TypeAlias

from labbench.messages import as_text

_MAX_DEPTH = 20
"""Levels of nesting."""

_MAX_ITEMS = 1_000
"""Items of a list, dict or array; a larger one is described by its size and a hash of its content."""

_MAX_VALUES = 5_000
"""Values under one key of the config, counted in every place where they occur."""

_MAX_TEXT = 1_000
"""Characters of an object's text; a longer one is cut and ends in its hash."""

_MAX_BYTES = 64

_MAX_HASHED_ITEMS = 2**22
"""Elements of an array that are hashed; of a larger one, as many at equal distances."""

_MAX_INTEGER_BITS = 4_096
"""Bits of an integer that is stored as a number: Python's JSON is limited to integers of 4,300 digits."""

_SECRET = "**********"

_TEXT_TYPES = {
    "builtins.complex", "builtins.ellipsis", "builtins.range", "builtins.slice", "datetime.timedelta",
    "decimal.Decimal", "fractions.Fraction", "numpy.dtype", "re.Pattern", "torch.device", "torch.dtype", "torch.layout",
    "torch.memory_format", "types.GenericAlias", "types.UnionType", "typing._BaseGenericAlias", "uuid.UUID",
}  # fmt: skip
"""Types whose text is their value."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{8,16}\b")

_INDEX = re.compile(r"\[\d+\]")

_Entries: TypeAlias = tuple[list[Any], Callable[[Any, Any], Any]]
"""Keys of an object, and the function that returns the value of a key: `value(object, key)`."""


class JsonConverter:
    """Converter of the values of one config, with notes on values that it changes."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._free_values = _MAX_VALUES
        self._open: set[int] = set()
        """Objects that contain the one in conversion, by id."""

    @property
    def notes(self) -> list[str]:
        """Return each problem once; problems of the items of a list count as one."""
        return list(self._notes)

    def convert(self, value: Any, name: str = "") -> Any:
        """Return the value as JSON; `name` is its key in the config, for the notes."""
        self._free_values -= 1
        try:
            if self._free_values < 0 or id(value) in self._open or len(self._open) >= _MAX_DEPTH:
                return self._convert_unfinished(value, name)
            return self._convert(value, name)
        except Exception as error:  # code of the value's class may raise anything, which must not end the training
            self._note_unreadable(error, name)
            return None

    def _convert(self, value: Any, name: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum) and not isinstance(value, str | int | float):
            return f"{type(value).__name__}.{value.name}" if value.name else str(value)
        if isinstance(value, str):
            return str.__str__(value)  # of an enum with text its value
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int):
            return int(value) if value.bit_length() <= _MAX_INTEGER_BITS else self._convert_to_text(value, name)
        text = _text_of_known_type(value)
        if text is not None:
            return text
        if _is_array(value):
            return self._convert_array(value, name)
        if "pydantic.root_model.RootModel" in _names_of_types(type(value)):
            return self.convert(value.root, name)
        if isinstance(value, functools.partial):
            value = {"_target_": value.func, **({"_args_": value.args} if value.args else {}), **value.keywords}
        entries = entries_of(value)
        if entries is not None:
            return self._convert_container(value, lambda: self._convert_entries(value, entries, name), name)
        if isinstance(value, Set):
            return self._convert_container(value, lambda: sorted(self._items(value, name), key=_sort_key), name)
        if isinstance(value, Sequence | ValuesView):
            return self._convert_container(value, lambda: self._items(value, name), name)
        return self._convert_to_text(value, name)

    def _convert_container(self, value: Any, convert: Callable[[], Any], name: str) -> Any:
        if self._open and hasattr(value, "__len__") and len(value) > _MAX_ITEMS:
            self._note(name, type(value).__name__, "is too large, its size and hash are stored")
            return _describe_large(value)
        self._open.add(id(value))
        try:
            return convert()
        finally:
            self._open.discard(id(value))

    def _convert_entries(self, value: Any, entries: _Entries, name: str) -> dict[str, Any]:
        keys, get = entries
        converted: dict[str, Any] = {}
        for key in keys:
            key_text = self._key_text(key)
            path = f"{name}.{key_text}" if name else key_text
            try:
                item = get(value, key)
            except Exception as error:  # such as a missing value of OmegaConf, `???`
                self._note_unreadable(error, path)
                item = None
            if len(self._open) == 1:
                self._free_values = _MAX_VALUES
            json_value = self.convert(item, path)
            if key_text in converted and converted[key_text] != json_value:
                self.note_collision(path)
            converted[key_text] = json_value
        return converted

    def _items(self, value: Iterable[Any], name: str) -> list[Any]:
        if isinstance(value, list | tuple) or not isinstance(value, Sequence):
            return [self.convert(item, f"{name}[{index}]") for index, item in enumerate(value)]
        items = []
        for index in range(len(value)):
            try:
                item = value[index]
            except Exception as error:
                self._note_unreadable(error, f"{name}[{index}]")
                item = None
            items.append(self.convert(item, f"{name}[{index}]"))
        return items

    def _key_text(self, key: Any) -> str:
        if key is None or (isinstance(key, bool | int | float | tuple) and not isinstance(key, Enum)):
            return _without_addresses(as_text(key))
        try:
            converted = self._convert(key, "a key")
        except Exception:
            return _without_addresses(as_text(key))
        return converted if isinstance(converted, str) else json.dumps(converted)

    def _convert_array(self, value: Any, name: str) -> Any:
        n_items = functools.reduce(operator.mul, value.shape, 1)
        if n_items > _MAX_ITEMS:
            self._note(name, type(value).__name__, "is too large, its size and hash are stored")
            return _describe_large_array(value)
        if getattr(value.dtype, "kind", None) in ("m", "M"):  # times, which tolist() may return as integers
            value = value.astype(str)
        items = (value.detach() if hasattr(value, "detach") else value).tolist()
        if type(items) is type(value):  # numpy.longdouble has no Python type
            items = float(items) if n_items == 1 else str(items)
        return self.convert(items, name)

    def _convert_to_text(self, value: Any, name: str) -> str:
        self._note(name, type(value).__name__, "is stored as text")
        text = as_text(value)
        # some texts hold the address as a decimal number, as those of `unittest.mock`
        return text if isinstance(value, int) else _bounded(_without_addresses(text.replace(str(id(value)), "")))

    def _convert_unfinished(self, value: Any, name: str) -> str:
        if id(value) in self._open:
            problem = "contains itself"
        else:
            problem = "is nested too deeply" if self._free_values >= 0 else f"comes after {_MAX_VALUES:,} values"
        self._note(name, type(value).__name__, f"{problem}, it is not stored")
        return f"<{type(value).__name__}, which {problem}>"

    def _note_unreadable(self, error: Exception, name: str) -> None:
        self._note(name, type(error).__name__, "cannot be read, stored as null")

    def note_collision(self, name: str) -> None:
        """Note that two values have the same name; the later one is stored."""
        self._notes = {f"`{name}` is set twice, the later value is stored": None, **self._notes}

    def _note(self, name: str, kind: str, treatment: str) -> None:
        self._notes[f"`{_INDEX.sub('', name)}` ({kind}) {treatment}"] = None


def entries_of(value: Any) -> _Entries | None:
    """Return the keys and values of a mapping or of an object with declared fields; None for any other value."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if isinstance(value, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__")):
        return list(value.keys()), operator.getitem
    names = _field_names(value, kind)
    if names is not None:
        return names, getattr
    settings = _own_dict(value, kind)
    return None if settings is None else (list(settings), lambda _, key: settings[key])


def _own_dict(value: Any, kind: Any) -> Mapping[Any, Any] | None:
    """Return the dict that an object makes of itself, as configs of transformers and flags of absl do."""
    for name in ("to_dict", "flag_values_dict"):
        if callable(getattr(kind, name, None)) and not hasattr(kind, "shape"):  # a data frame is no config
            with suppress(Exception):  # the method may take arguments
                settings = getattr(value, name)()
                return settings if isinstance(settings, Mapping) else None
    return None


def _field_names(value: Any, kind: Any) -> list[str] | None:
    if hasattr(kind, "__dataclass_fields__"):
        import dataclasses

        return [field.name for field in dataclasses.fields(value)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return list(kind._fields)
    ancestors = _names_of_types(kind)
    if not ancestors.isdisjoint({"pydantic.main.BaseModel", "pydantic.v1.main.BaseModel"}):
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
        excluded = {name for name, field in fields.items() if getattr(field, "exclude", None) is True}
        return [name for name in (*fields, *(getattr(value, "model_extra", None) or ())) if name not in excluded]
    if not ancestors.isdisjoint({"argparse.Namespace", "types.SimpleNamespace"}):
        return list(vars(value))
    return list(kind.__struct_fields__) if hasattr(kind, "__struct_fields__") else None  # msgspec


def _names_of_types(kind: type) -> set[str]:
    return {f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in kind.__mro__}


def _text_of_known_type(value: Any) -> str | None:
    """Return the JSON of a value of a type whose text is its value, or of a function or class; None for others."""
    if callable(getattr(type(value), "get_secret_value", None)):  # pydantic
        return _SECRET
    if isinstance(value, os.PathLike):
        return os.fsdecode(os.fspath(value))
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        return str(content) if len(content) <= _MAX_BYTES else f"<{len(content):,} bytes, {_hash(content)}>"
    if isinstance(value, ModuleType):
        return value.__name__
    if callable(getattr(type(value), "isoformat", None)):  # date, time, and pandas.Timestamp
        return str(value.isoformat())
    if not _names_of_types(type(value)).isdisjoint(_TEXT_TYPES):
        return _without_addresses(str(value))
    qualified_name = getattr(value, "__qualname__", None) if callable(value) else None
    if isinstance(qualified_name, str):
        module = getattr(value, "__module__", None)
        return qualified_name if module in (None, "builtins") else _without_addresses(f"{module}.{qualified_name}")
    return None


def _is_array(value: Any) -> bool:
    return all(hasattr(type(value), name) for name in ("shape", "dtype", "tolist"))


def _sort_key(item: Any) -> tuple[int, bool, float, str]:
    """Order numbers by value, then text, then everything else by its JSON."""
    if isinstance(item, int | float):
        is_nan = item != item
        return 0, is_nan, 0 if is_nan else item, ""
    return (1, False, 0, item) if isinstance(item, str) else (2, False, 0, json.dumps(item, sort_keys=True))


def _describe_large(value: Any) -> str:
    items: list[Any] = list(value)
    if isinstance(value, Mapping):
        items = [part for key in sorted(value, key=repr) for part in (key, value[key])]
    elif isinstance(value, Set):
        items.sort(key=repr)
    kind = type(value).__name__
    if {type(item) for item in items} <= {int, float, str, bool, type(None)}:
        return f"<{kind} of {len(value):,} items, {_hash(repr(items).encode('utf-8', 'surrogatepass'))}>"
    return f"<{kind} of {len(value):,} items>"


def _describe_large_array(value: Any) -> str:
    shape = "x".join(map(str, value.shape))
    text = f"array of {shape}, {value.dtype}"
    numpy = sys.modules.get("numpy")  # loaded wherever arrays are; tracking must not import it
    try:
        plain = value.detach().cpu() if hasattr(value, "detach") else value
        array = numpy.asarray(plain.float() if "bfloat16" in str(value.dtype) else plain).reshape(-1)  # type: ignore[union-attr]
        sample = array[:: -(-array.size // _MAX_HASHED_ITEMS)]
        return f"<{text}>" if array.dtype.hasobject else f"<{text}, {_hash(sample.tobytes())}>"
    except Exception:  # no data to read, as on torch's device "meta"
        return f"<{text}>"


def _hash(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _without_addresses(text: str) -> str:
    """Return the text without addresses in memory, and with one name of the main module in every process."""
    return _ADDRESS.sub("", text).replace("__mp_main__", "__main__")


def _bounded(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT]}… ({len(text):,} characters, {_hash(text.encode('utf-8', 'surrogatepass'))})"
