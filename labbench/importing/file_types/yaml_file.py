"""YAML documents of other programs, read without constructing their Python objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from labbench.errors import InputError

_MAX_BYTES = 1 << 22


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """Loader that reads tags such as `!!python/tuple` as the plain sequence, mapping or text that follows."""


def _construct_plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) or suffix


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _construct_plain)
_PlainLoader.add_multi_constructor("!", _construct_plain)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; empty if the file does not exist.

    Raises:
        InputError: If the file cannot be read or is no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES >> 20} MB")
    try:
        document = yaml.load(content, _PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a YAML document: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"{path}: a mapping of names and values was expected")
    return {str(key): value for key, value in document.items()}
