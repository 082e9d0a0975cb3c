"""Tables as Markdown, LaTeX and CSV: cells stay cells, whatever they contain."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import write_three_runs
from labbench.cli.text_tables import latex_table, markdown_table

Labbench = Callable[..., Result]

HOSTILE = "a|b & c_d \\ {x} $1 50% #1 ~ ^ <br> *bold* `code`\n[link](x)"


def test_markdown_cells_are_no_markup() -> None:
    lines = markdown_table(["name", "n"], [[HOSTILE, "1"]], [False, True]).splitlines()
    assert lines[:2] == ["| name | n |", "| --- | ---: |"]
    assert len(lines) == 3
    assert lines[2] == (r"| a\|b & c\_d \\ \{x\} $1 50% \#1 ~ ^ \<br\> \*bold\* \`code\` \[link\](x) | 1 |")


def test_latex_cells_are_no_commands() -> None:
    table = latex_table(["name", "n"], [[HOSTILE, "1 ± 0.5"]], [False, True])
    assert table.startswith("\\begin{tabular}{lr}\n\\toprule\nname & n \\\\\n\\midrule\n")
    row = table.splitlines()[4]
    assert row == (
        r"a\textbar{}b \& c\_d \textbackslash{} \{x\} \$1 50\% \#1 \textasciitilde{} \textasciicircum{} "
        r"\textless{}br\textgreater{} *bold* `code` [link](x) & 1 $\pm$ 0.5 \\"
    )


def read_rows(table: str, table_format: str) -> list[list[str]]:
    """Return the cells of a table without the escapes of the key's and name's characters."""
    lines = table.splitlines()
    if table_format == "csv":
        return list(csv.reader(lines))
    if table_format == "markdown":
        return [line.strip("| ").split(" | ") for line in lines if "---" not in line]
    return [line.removesuffix(" \\\\").split(" & ") for line in lines if line.endswith("\\\\")]


@pytest.mark.parametrize("table_format", ["markdown", "latex", "csv"])
def test_every_format_of_ls_has_the_cells_of_the_text(labbench: Labbench, tmp_path: Path, table_format: str) -> None:
    write_three_runs(tmp_path / "runs.db")
    expected = [line.split() for line in labbench("ls").stdout.splitlines() if "──" not in line]
    rows = read_rows(labbench("ls", "--format", table_format).stdout, table_format)
    assert [" ".join(row).split() for row in rows] == expected


@pytest.mark.parametrize("command", [["compare", "a", "b"], ["why", "score"]])
@pytest.mark.parametrize(("table_format", "start"), [("markdown", "|"), ("latex", "\\begin{tabular}")])
def test_compare_and_why_print_tables(
    labbench: Labbench, tmp_path: Path, command: list[str], table_format: str, start: str
) -> None:
    write_three_runs(tmp_path / "runs.db")
    result = labbench(*command, "--format", table_format)
    assert result.exit_code == 0, result.output
    starts = (start, "**", "% ", "- ", "\\begin{table}")
    assert all(table.splitlines()[0].startswith(starts) for table in result.stdout.split("\n\n"))


def test_latex_has_no_symbols_that_a_font_may_lack() -> None:
    table = latex_table(["from ≥", "×"], [["≤ 0.3", "−2 × 10 ± 1 … µ"]], [False, True])
    assert table.isascii()
    assert r"from $\ge$ & $\times$" in table
