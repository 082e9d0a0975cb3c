"""Placeholders in the words of a command.

`{lr}` is replaced by a run's value; `${HOME}` and `{{this}}` are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from labbench.records import Config

PLACEHOLDER = re.compile(r"(?<![${])\{([A-Za-z_][\w.-]*)\}(?!\})")


def fill_placeholders(words: Sequence[str], config: Config) -> list[str]:
    """Return the words with placeholders replaced: strings unchanged, other values as JSON."""
    return [PLACEHOLDER.sub(lambda match: _text(config[match[1]]), word) for word in words]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
