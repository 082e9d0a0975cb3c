"""Tables in the markup of documents: Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "★": r"$\star$", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "±": r"$\pm$", "✗": r"$\times$",
    "−": r"$-$", "–": "--", "≥": r"$\ge$", "≤": r"$\le$", "×": r"$\times$", "…": r"\ldots{}", "µ": r"$\mu$",
    "μ": r"$\mu$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "→": r"$\to$", "·": r"$\cdot$", "≈": r"$\approx$",
    "∞": r"$\infty$", "°": r"$^\circ$", "²": r"$^2$",
}  # fmt: skip
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX_ESCAPES)))


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


def _escape_latex(cell: str) -> str:
    return _LATEX_SPECIAL.sub(lambda match: _LATEX_ESCAPES[match[0]], " ".join(cell.split()))
