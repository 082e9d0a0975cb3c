"""Translation of the errors of values that are not the numbers which labbench writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from labbench.errors import StoreError


@contextmanager
def number_errors(table: str) -> Iterator[None]:
    """Translate the errors of numeric conversions of a table's rows.

    Raises:
        StoreError: The block failed because a value is not a number, is out of range or has the wrong length.
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError, IndexError, struct.error) as error:
        raise StoreError(
            f"the table {table} has values that are not numbers in their range ({error}): the database is damaged, or "
            "another program wrote it; the command `doctor` counts such values"
        ) from error
