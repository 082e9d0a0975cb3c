"""Answer of `labbench why` on stdout: as sentences, tables and bars, as JSON or CSV, or as tables in markup."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import click

from labbench.cli.output import is_plain
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.analysis import Answer
    from labbench.analysis.setup_costs import Efficiency
    from labbench.reports.answer_tables import TableStyle

_UNLIMITED_COLUMNS = 1_000_000
"""Width of tables in a pipe or file."""


def print_answer(answer: Answer, costs: Efficiency | None) -> None:
    """Print the answer as a page, or in plain text as sentences and tables."""
    from labbench.reports.answer_tables import TableStyle

    if is_plain():
        click.echo("\n".join([*_answer_sentences(answer, costs), ""]))
        _print_tables(answer, costs, "plain", TableStyle())
    else:
        click.echo("\n".join(_answer_lines(answer, costs)))


def print_short(answer: Answer) -> None:
    """Print the verdict and one line per parameter."""
    from labbench.reports.sentences import short_sentences

    click.echo("\n".join(map(clean, short_sentences(answer))))


def print_verdict_again(answer: Answer) -> None:
    """Print the verdict below a long answer in a terminal, where its first lines have scrolled away."""
    if is_plain() or not sys.stdout.isatty() or answer.best is None:
        return
    from labbench.reports.sentences import verdict

    again = "the verdict again; --short prints it with one line per parameter:"
    click.echo("\n".join(["", again, *(f"  {clean(line)}" for line in verdict(answer))]))


def print_document(answer: Answer, costs: Efficiency | None, document_format: str, style: TableStyle) -> None:
    """Print the answer as JSON or CSV, or its tables as markup."""
    if document_format == "json":
        click.echo(json.dumps(answer.as_document() | {"efficiency": costs and costs.as_document()}))
    elif document_format == "csv":
        _print_rows(answer, costs)
    else:
        _print_tables(answer, costs, document_format, style)


def _print_rows(answer: Answer, costs: Efficiency | None) -> None:
    """Print the numbers of the answer as one CSV table."""
    from labbench.export.table_files import csv_writer, escape_formula
    from labbench.reports.answer_rows import answer_rows

    table = answer_rows(answer, costs)
    csv_writer(sys.stdout).writerows(
        [escape_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in (table.header, *table.rows)
    )


def _print_tables(answer: Answer, costs: Efficiency | None, table_format: str, style: TableStyle) -> None:
    """Print the sentences of the answer unless tables are chosen, then its tables as markup."""
    from labbench.cli.text_tables import latex_comment, latex_float, print_markup
    from labbench.reports.answer_tables import METHODS, answer_tables, rename, rename_table
    from labbench.reports.methods import methods_table

    others = [name for name in style.tables if name != METHODS]
    tables = answer_tables(answer, costs, others) if others or not style.tables else []
    if METHODS in style.tables:
        tables = [methods_table(answer, style.runs), *tables]
    tables = [rename_table(table, style.names) for table in tables]
    if not style.tables and table_format != "plain":
        make = latex_comment if table_format == "latex" else "- {}".format
        click.echo("\n".join([*(make(rename(line, style.names)) for line in _answer_sentences(answer, costs)), ""]))
    for index, table in enumerate(tables):
        report = table.table
        if index:
            click.echo()
        if table_format == "latex":
            click.echo(latex_float(report.header, report.rows, table.right, table.caption, f"tab:{table.label}"))
            continue
        title = f"{report.title}:" if table_format == "plain" else f"**{report.title}**\n"
        click.echo(clean(title) if table_format == "plain" else title)
        print_markup(report.header, report.rows, table.right, table_format)
        if report.note:
            click.echo(report.note if table_format == "plain" else f"\n{report.note}")


def _answer_sentences(answer: Answer, costs: Efficiency | None) -> list[str]:
    from labbench.reports.sentences import cost_sentences, sentences

    return [clean(line) for line in (*sentences(answer), *cost_sentences(answer, costs))]


def _answer_lines(answer: Answer, costs: Efficiency | None) -> list[str]:
    """Return the answer as lines: sentences, configurations, importance and effects of the parameters, costs."""
    from labbench.reports.budget_sentences import budget_tables
    from labbench.reports.tables import other_tables, setups_table, text_block, tuned_tables
    from labbench.reports.text_charts import IMPORTANCE_TITLE, effect_lines, importance_lines, scale_line

    columns = shutil.get_terminal_size((100, 24)).columns
    table_columns = columns if sys.stdout.isatty() else _UNLIMITED_COLUMNS
    lines = _answer_sentences(answer, costs)
    setups, others = setups_table(answer), other_tables(answer, costs)
    for table in (*tuned_tables(answer), *budget_tables(answer), *([setups] if setups else [])):
        lines += text_block(table, table_columns)
    importance = importance_lines(answer)
    if importance:
        lines += ["", IMPORTANCE_TITLE, *(f"  {line}" for line in importance)]
    for parameter in answer.parameters:
        lines += ["", f"{clean(parameter.name)}   ({clean(answer.metric)}, mean over the rest, {scale_line(answer)})"]
        lines += [f"  {line}" for line in effect_lines(answer, parameter, columns - 2)]
    for table in others:
        lines += text_block(table, table_columns)
    return lines
