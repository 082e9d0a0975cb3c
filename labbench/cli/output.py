"""Lines of text on stdout and stderr, without control characters, and notes on names in filters and columns.

A terminal without UTF-8 gets ASCII in place of lines, bars and marks; `--plain` asks for text that can be read aloud.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click

from labbench.ascii_text import needs_ascii, to_ascii
from labbench.errors import InputError
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.store.queries.known_names import NameNotes
    from labbench.store.reader import Reader

_PLAIN = "labbench.plain"
"""Key of the context's `meta` that `--plain` sets."""


class AsciiStream(io.TextIOWrapper):
    """Stream that prints ASCII: substitutes of the same width, or escapes."""

    def write(self, text: str) -> int:
        """Print text as ASCII; return the number of characters of `text`."""
        super().write(to_ascii(text))
        return len(text)


def limited_stream(stream: TextIO) -> TextIO:
    """Return a stream for a terminal without UTF-8, or the stream itself, which then prints escapes if need be."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if stream.isatty() and needs_ascii(os.environ):
        return AsciiStream(stream.buffer, encoding="utf-8", line_buffering=True)
    stream.reconfigure(errors="backslashreplace")
    return stream


def plain_output(context: click.Context, _: click.Parameter, is_requested: bool) -> None:
    """Print tables of this command as lines that can be read aloud, if `--plain` or LABBENCH_PLAIN asks for it."""
    if is_requested:
        context.meta[_PLAIN] = True


def is_plain() -> bool:
    """Return True if lines that can be read aloud were requested in place of tables and drawings."""
    context = click.get_current_context(silent=True)
    return (context is not None and _PLAIN in context.meta) or bool(os.environ.get("LABBENCH_PLAIN"))


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines on stdout, or on stderr if `err`, with every control character except tabs made visible."""
    click.echo(printable(text), err=err)


def printable(text: str) -> str:
    """Return lines with every control character except tabs made visible."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))


def require_filters(reader: Reader, words: Sequence[str], advice: str, metric_advice: str = "") -> None:
    """Require that no word of a filter is the bare name of a configuration key or of a metric.

    `advice` is what the command does with such keys, `metric_advice` what it does with several metrics.

    Raises:
        InputError: If a word is such a name.
    """
    bare = [word for word in words if not set(word) & set("=<>~")]
    if not bare:
        return
    keys, metrics = reader.config_keys(), reader.metrics()
    if names := [name for name in bare if name in keys]:
        listed = ", ".join(f"`{name}`" for name in names)
        raise InputError(f"{advice}: leave out {listed}; a filter selects runs by a value, as in `{names[0]}=VALUE`")
    if names := [name for name in bare if name in metrics]:
        example = f"leave out `{names[0]}`{metric_advice}; a filter is, for instance, `{names[0]}>0.9`"
        raise InputError(f"one metric at a time: {example}")


def print_name_notes(notes: NameNotes) -> bool:
    """Print notes on names on stderr; return True if names are missing, so that there is no result yet."""
    for note in (*notes.missing, *notes.ambiguous, *notes.unmatched):
        echo(note, err=True)
    return bool(notes.missing)
