"""Metric names that are safe to store: what cannot stand in a name is made visible, what is too long is cut."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 250
"""Characters. Longer names are cut, and told apart by eight digits of their hash."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def storable_name(key: Any) -> str:
    """The name under which the values of a key are stored; the key itself where it is an ordinary one."""
    name = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(key)) or "(no name)"
    if len(name) > LONGEST:
        import hashlib  # 3 ms, which start() need not pay

        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: LONGEST - 9]}…{digest}"
    return name
