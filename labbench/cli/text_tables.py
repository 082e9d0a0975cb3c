"""Tables on stdout: cut to the width of the terminal, complete on a pipe, in markup, or lines to be read aloud."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from labbench.cli.output import is_plain
from labbench.text import cell_width, clean, fit_to_width, prints_no_color

STATUS_COLOURS = {
    "queued": "bright_black",
    "running": "cyan",
    "finished": "green",
    "diverged": "magenta",
    "failed": "red",
    "stopped": "yellow",
    "pruned": "blue",
    "lost": "red",
}

COLUMN_GAP = "   "

_MIN_LABEL_CELLS = 24
"""Cells of the labels of rows that a narrow terminal shows at least."""

_UNSPOKEN_NAMES = ("status", "key", "name")
_SPOKEN_MARKS = {ord("▲"): "better by", ord("▼"): "worse by", ord("…"): "...", ord("×"): " by "}
"""Words for marks, which a screen reader leaves out or names by their shape."""
_LATEX_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "★": r"$\star$", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "±": r"$\pm$", "✗": r"$\times$",
    "−": r"$-$", "–": "--", "≥": r"$\ge$", "≤": r"$\le$", "×": r"$\times$", "…": r"\ldots{}", "µ": r"$\mu$",
    "μ": r"$\mu$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "→": r"$\to$", "·": r"$\cdot$", "≈": r"$\approx$",
    "∞": r"$\infty$", "°": r"$^\circ$", "²": r"$^2$",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Named column of plain text."""

    name: str
    cells: Sequence[str]
    right: bool = False
    rank: int = 0
    """Order in which columns are left out in a narrow terminal, the highest rank first; rank 0 is never left out."""
    min_cells: int | None = None
    """Cells that are left of a column that is shortened where the terminal is still too narrow; None: all."""
    keeps_end: bool = False
    """True to shorten the cells in the middle, since the end of a name such as `model.encoder.width` says most."""


def print_table(columns: Sequence[TextColumn], table_format: str = "text", *, is_wide: bool = False) -> int:
    """Print columns side by side, as text or in the markup of a document, or as lines to be read aloud.

    On a terminal, statuses are coloured, and unless `is_wide` columns and then lines are cut to its width. Returns the
    number of columns left out.

    Does not use rich, which takes 5 s for the 10,000 rows that this function prints in 0.1 s.
    """
    if table_format != "text":
        rows = list(zip(*(column.cells for column in columns), strict=True))
        print_markup([column.name for column in columns], rows, [column.right for column in columns], table_format)
        return 0
    n_columns = len(columns)
    if is_plain():
        lines = plain_lines(columns)
    elif sys.stdout.isatty():
        cells = shutil.get_terminal_size().columns
        paint = unchanged_line if prints_no_color(os.environ) else colour_status
        columns = columns if is_wide else fit_columns(columns, cells)
        heading, rule, *body = table_lines(columns)
        fitted = [line if is_wide else fit_to_width(line, cells).rstrip() for line in (heading, *body)]
        lines = [fitted[0], rule[:cells], *map(paint, fitted[1:])]
    else:
        lines = table_lines(columns)
    click.echo("\n".join(lines))
    return n_columns - len(columns)


def print_markup(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], table_format: str
) -> None:
    """Print a table as `markdown`, `latex`, `csv` or `plain`; `right` tells which columns are aligned to the right."""
    from labbench.export.table_files import csv_writer, escape_formula

    cleaned = [[clean(cell).strip() for cell in row] for row in (headings, *rows)]
    if table_format == "csv":
        csv_writer(sys.stdout).writerows(
            [cell if _is_number(cell) else escape_formula(cell) for cell in row] for row in cleaned
        )
        return
    if table_format == "plain":
        columns = [TextColumn(name, cells) for name, *cells in zip(cleaned[0], *cleaned[1:], strict=True)]
        click.echo("\n".join(plain_lines(columns)))
        return
    make = markdown_table if table_format == "markdown" else latex_table
    click.echo(make(cleaned[0], cleaned[1:], right))


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Return a table of GitHub's Markdown; `right` tells which columns are aligned to the right."""
    rule = ["---:" if is_right else "---" for is_right in right]
    lines = [[_escape_markdown(cell) for cell in row] for row in (headings, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _escape_markdown(cell: str) -> str:
    """Return a cell in which no character is markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(cell.split()))


def latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Return a `tabular` with the rules of the package `booktabs`; `right` tells which columns are right-aligned."""
    columns = "".join("r" if is_right else "l" for is_right in right)
    lines = [" & ".join(map(_escape_latex, row)) + r" \\" for row in (headings, *rows)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"


def latex_float(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], caption: str, label: str
) -> str:
    """Return a `table` with caption and label around the `tabular`."""
    lines = [r"\begin{table}", r"\centering", f"\\caption{{{_escape_latex(caption)}}}", f"\\label{{{label}}}"]
    return "\n".join([*lines, latex_table(headings, rows, right), r"\end{table}"])


def latex_comment(line: str) -> str:
    """Return a line of text as a comment."""
    return f"% {line}"


def _escape_latex(cell: str) -> str:
    return " ".join(cell.split()).translate(_LATEX_ESCAPES)


def plain_lines(columns: Sequence[TextColumn]) -> list[str]:
    """Return a line for each row: `finished; 3f9a1c20; adam; val/loss 0.1; best 0.09; at step 40`, without empty cells.

    A first column without a name holds labels: `status: finished`.
    """
    lines = []
    for row in zip(*(column.cells for column in columns), strict=True):
        cells = [clean(cell).strip().translate(_SPOKEN_MARKS) for cell in row]
        names = ["" if column.name in _UNSPOKEN_NAMES else clean(column.name) for column in columns]
        parts = [f"{name} {cell}".strip() for name, cell in zip(names, cells, strict=True) if cell]
        has_label = not columns[0].name and len(parts) > 1
        lines.append(f"{parts[0]}: {'; '.join(parts[1:])}" if has_label else "; ".join(parts))
    return lines


def _is_number(cell: str) -> bool:
    """Return True for a number, such as -0.5, which is no formula."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def fit_columns(columns: Sequence[TextColumn], cells: int) -> list[TextColumn]:
    """Return the columns that fit into `cells` terminal cells.

    Settings are dropped first, the last one before the others, then steps, then metrics; then names are shortened.
    """
    widths = [max(cell_width(clean(cell)) for cell in (column.name, *column.cells)) for column in columns]
    width = sum(widths) + len(COLUMN_GAP) * (len(columns) - 1)
    order = sorted(range(len(columns)), key=lambda index: (columns[index].rank, index), reverse=True)
    dropped = set()
    for index in order:
        if width <= cells or columns[index].rank == 0:
            break
        dropped.add(index)
        width -= widths[index] + len(COLUMN_GAP)
    fitted = []
    for index, column in enumerate(columns):
        if index in dropped:
            continue
        if width > cells and column.min_cells is not None and widths[index] > column.min_cells:
            size = max(column.min_cells, widths[index] - (width - cells))
            shorten = shorten_middle if column.keeps_end else _shorten
            name, *shortened = [shorten(clean(cell), size) for cell in (column.name, *column.cells)]
            column = replace(column, name=name, cells=shortened)
            width -= widths[index] - size
        fitted.append(column)
    return fitted


def _shorten(text: str, width: int) -> str:
    return text if cell_width(text) <= width else fit_to_width(text, width)


def shorten_middle(text: str, width: int) -> str:
    """Return cleaned text of at most `width` cells, with an ellipsis in the middle if it is cut."""
    if cell_width(text) <= width:
        return text
    end = ""
    for character in reversed(text):
        if cell_width(character + end) > width // 2:
            break
        end = character + end
    return fit_to_width(text, width - cell_width(end)) + end


def limit_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels of a table's rows, on a terminal at most two fifths as wide as it, so that values remain."""
    if is_plain() or not sys.stdout.isatty():
        return list(labels)
    limit = max(_MIN_LABEL_CELLS, shutil.get_terminal_size().columns * 2 // 5)
    return [shorten_middle(clean(label), limit) for label in labels]


def table_lines(columns: Sequence[TextColumn]) -> list[str]:
    """Return the aligned lines of a table: header, rule and rows.

    Control characters are made visible.
    """
    aligned = []
    for column in columns:
        cells = [clean(cell) for cell in (column.name, *column.cells)]
        size = max(cell_width(cell) for cell in cells)
        fitted = [fit_to_width(cell, size, right=column.right) for cell in cells]
        aligned.append(fitted)
    lines = [COLUMN_GAP.join(row).rstrip() for row in zip(*aligned, strict=True)]
    rule = "─" if "utf" in sys.stdout.encoding.lower() else "-"
    return [lines[0], rule * max(cell_width(line) for line in lines), *lines[1:]]


def unchanged_line(line: str) -> str:
    return line


def colour_status(line: str) -> str:
    """Return the line with its first word, a status, in the colour of that status."""
    status = line.partition(" ")[0]
    colour = STATUS_COLOURS.get(status)
    return line if colour is None else click.style(status, fg=colour) + line[len(status) :]
