"""Render an answer as one self-contained HTML page: sentences, tables, figures and interactive curves.

Style, script and numbers are inline, and a content security policy forbids loading anything else. Text from a database
is escaped and stripped of control characters.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labbench.analysis import Answer
from labbench.analysis.answer import ParameterAnswer
from labbench.analysis.setup_costs import Efficiency
from labbench.charts.groups import make_band
from labbench.charts.series import Floats
from labbench.configs import canonical_json, distinguishing_keys
from labbench.metrics import Goal
from labbench.records import RunRecord, rank_of_configuration
from labbench.reports.budget_chart import budget_svg
from labbench.reports.budget_sentences import budget_tables
from labbench.reports.formatting import describe_settings, effect_decimals, effect_labels, format_interval
from labbench.reports.sentences import cost_sentences, details, verdict
from labbench.reports.tables import STAR, ReportTable, other_tables, setups_table, tuned_tables
from labbench.reports.text_charts import IMPORTANCE_TITLE, importance_rows
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest
from labbench.text import clean

MAX_CURVE_POINTS = 300
"""Largest number of points per curve."""
MAX_CURVES = 60
"""Largest number of configurations with a curve, the best ones; more are unreadable and make the page too large."""


@dataclass(frozen=True, slots=True)
class SetupCurve:
    """Mean and range over the runs of one configuration; arrays have shape (P,)."""

    name: str
    steps: Floats
    mean: Floats
    low: Floats
    """Smallest value of the runs."""
    high: Floats
    """Largest value of the runs."""
    n: NDArray[np.int64]
    """Number of runs with a value at each step; runs may end at different steps."""


def read_setup_curves(reader: Reader, runs: Sequence[RunRecord], metric: str, goal: Goal) -> list[SetupCurve]:
    """Return the curves of up to `MAX_CURVES` configurations, best first, named by the settings that differ."""
    setups: dict[str, list[RunRecord]] = {}
    for run in runs:
        if metric in run.summary:
            setups.setdefault(canonical_json(_without_seed(run.config)), []).append(run)
    order = sorted(setups.values(), key=lambda members: rank_of_configuration(members, metric, goal))[:MAX_CURVES]
    configs = [_without_seed(members[0].config) for members in setups.values()]
    differing = distinguishing_keys(configs)
    levels = {key: [config[key] for config in configs if key in config] for key in differing}
    read = reader.curves(
        [run.id for members in order for run in members], metric, CurveRequest(MAX_CURVE_POINTS, times=False)
    )
    curves = []
    for members in order:
        parts = [(read[run.id].first_step.astype(np.float64), read[run.id].mean) for run in members if run.id in read]
        if not parts:  # summaries without points
            continue
        steps = np.unique(np.concatenate([x for x, _ in parts]))
        index = np.linspace(0, len(steps) - 1, min(MAX_CURVE_POINTS, len(steps))).round().astype(int)  # with both ends
        band = make_band(parts, steps[index])
        settings = {key: members[0].config[key] for key in differing if key in members[0].config}
        name = describe_settings(settings, levels) or "all runs"
        curves.append(SetupCurve(clean(name), band.x, band.mean, band.low, band.high, band.n))
    return curves


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def render_page(answer: Answer, efficiency: Efficiency | None, curves: Sequence[SetupCurve]) -> str:
    """Return the HTML of the whole page.

    `efficiency` is the cost of reaching a target.
    """
    others = [*details(answer), *cost_sentences(answer, efficiency)]
    setups = setups_table(answer)
    template = Template(files("labbench.reports").joinpath("answer_page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=_escape(f"{answer.metric}: the best configuration, and why"),
        metric=_escape(answer.metric),
        verdict="<br>".join(map(_escape, verdict(answer))),
        sentences="\n".join(f"<li>{_escape(line)}</li>" for line in others),
        tuned="\n".join(map(_render_report_table, tuned_tables(answer))),
        budgets="\n".join(
            _render_report_table(table) + budget_svg(comparison, answer)
            for table, comparison in zip(budget_tables(answer), answer.budgets, strict=True)
        ),
        setups=_render_report_table(setups) if setups is not None else "",
        importance=_render_importance(answer),
        parameters="\n".join(_render_parameter(parameter, answer) for parameter in answer.parameters),
        tables="\n".join(map(_render_report_table, other_tables(answer, efficiency))),
        data=_script_json([_curve_document(curve) for curve in curves]),
        shown=f"{len(curves)} configurations" if len(curves) < MAX_CURVES else f"best {MAX_CURVES} configurations",
    )


def _render_report_table(table: ReportTable) -> str:
    """Return a table with its title.

    Means are shaded, and the best one has a star.
    """
    rows = []
    for i, row in enumerate(table.rows):
        cells = [f'<th scope="row">{_escape(row[0])}</th>']
        for j, cell in enumerate(row[1:], start=1):
            shade = table.shades[i][j - 1] if table.shades else None
            style = f' style="--share: {shade:.0%}" class="shaded"' if shade is not None else ""
            cells.append(f"<td{style}>{_escape(f'{STAR} {cell}' if table.best == (i, j) else cell)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = f"<p>{_escape(table.note)}</p>" if table.note else ""
    return f"<h3>{_escape(table.title)}</h3>{_render_table(table.header, rows)}{note}"


def _render_importance(answer: Answer) -> str:
    """Return the shares of the variance as a table with bars."""
    rows = [
        f'<tr><th scope="row">{_escape(name)}</th><td><meter value="{share:.4f}"></meter></td>'
        f"<td>{share:.0%}</td><td>{_escape(interval)}</td></tr>"
        for name, share, interval in importance_rows(answer)
    ]
    head = f"<h2>{IMPORTANCE_TITLE.capitalize()}</h2>"
    return f"{head}{_render_table(['', '', 'share', '95 %'], rows)}" if rows else ""


def _render_parameter(parameter: ParameterAnswer, answer: Answer) -> str:
    """Return the table of a parameter's values: mean over the rest of the grid and number of runs."""
    effects, decimals = parameter.marginal.effects, effect_decimals(parameter)
    means = [effect.interval.mean for effect in effects if effect.n]
    best = (min if answer.goal == "min" else max)(means, default=math.nan)
    rows = [
        _render_row(
            [
                f"{STAR} {value}" if effect.n and effect.interval.mean == best else value,
                format_interval(effect.interval, decimals) if effect.n else "no result",
                f"{effect.n}" + (f", {effect.diverged} {answer.lost}" if effect.diverged else ""),
            ]
        )
        for effect, value in zip(effects, effect_labels(parameter), strict=True)
    ]
    return (
        f"<section><h3>{_escape(parameter.name)}</h3>{_render_table(['value', 'mean [95 %]', 'runs'], rows)}</section>"
    )


def _render_table(header: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{_escape(name)}</th>' for name in header)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _render_row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in cells) + "</tr>"


def _escape(text: str) -> str:
    return html.escape(clean(text))


def _curve_document(curve: SetupCurve) -> dict[str, Any]:
    """Return the JSON of a curve for the script; non-finite values are null."""

    def rounded(values: Floats) -> list[float | None]:
        return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]

    arrays = {"x": curve.steps, "mean": curve.mean, "low": curve.low, "high": curve.high}
    return {"name": curve.name, "n": curve.n.tolist(), **{key: rounded(values) for key, values in arrays.items()}}


def _script_json(value: Any) -> str:
    """Return JSON for a script element, with <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
