"""Secrets in the words of a command, such as `--api-key VALUE`, which are not recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

ASSIGNMENT = re.compile(r"(?P<dashes>-{0,2}|\+{1,2})(?P<key>[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)
OPTION = re.compile(r"--?(?P<key>[A-Za-z_][\w./-]*)")

_SECRETS = ("secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials", "apikey", "accesskey")
"""Endings of the words in the name of a secret."""
_LAST_WORDS = ("key", "auth", "oauth", "pwd")
"""Last words of the name of a secret; `key_dim` is none."""
_WORD_LIMITS = re.compile(r"[^a-zA-Z]+|(?<=[a-z])(?=[A-Z])")
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")


def mask_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command with the values of secrets replaced by `***`."""
    masked: list[str] = []
    is_value = False
    for word in words:
        assignment, option = ASSIGNMENT.fullmatch(word), OPTION.fullmatch(word)
        if assignment and is_secret(assignment["key"]):
            masked.append(f"{assignment['dashes']}{assignment['key']}={MASK}")
        else:
            masked.append(MASK if is_value and not option else mask_url(word))
        is_value = bool(option and is_secret(option["key"]))
    return masked


def is_secret(key: str) -> bool:
    """Return True for the name of a key, token, secret, password or credential."""
    parts = [part.lower() for part in _WORD_LIMITS.split(key.rpartition(".")[2]) if part]
    return bool(parts) and (
        any(part.endswith(_SECRETS) for part in parts) or parts[-1] in _LAST_WORDS or parts[-1].endswith("token")
    )


def mask_url(text: str) -> str:
    """Return a text in which the passwords of URLs are replaced by `***`."""
    return _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)
