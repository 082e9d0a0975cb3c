"""Words of a command: placeholders and `~`, which no shell expands.

`{lr}` is replaced by a run's value; `${HOME}` and `{{this}}` are left alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence

from labbench.records import Config

PLACEHOLDER = re.compile(r"(?<![${])\{([A-Za-z_][\w.-]*)\}(?!\})")


def fill_placeholders(words: Sequence[str], config: Config) -> list[str]:
    """Return the words with placeholders replaced, strings unchanged and other values as JSON, and `~` expanded."""
    return [expand_home_in_word(PLACEHOLDER.sub(lambda match: _text(config[match[1]]), word)) for word in words]


def expand_home_in_word(word: str) -> str:
    """Return a word with a leading `~` or `~USER` expanded; every other word stays as it is."""
    return os.path.expanduser(word)  # noqa: PTH111 (a word need not be a path)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
