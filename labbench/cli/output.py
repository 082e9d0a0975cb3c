"""Lines of text on stdout and stderr, without control characters."""

from __future__ import annotations

import click

from labbench.text import clean


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines on stdout, or on stderr if `err`, with every control character except tabs made visible."""
    click.echo(printable(text), err=err)


def printable(text: str) -> str:
    """Return lines with every control character except tabs made visible."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))
