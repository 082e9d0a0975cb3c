"""`labbench why`: which set-up is best and why, in words, in tables, and as curves."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import as_json, database, filters
from labbench.errors import InputError, LabbenchError, did_you_mean
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.analysis import Answer
    from labbench.filters import Filter
    from labbench.store.reader import Reader

_MOST_SETUPS = 6
"""Curves of so many values of the most important parameter can be told apart."""


@click.command()
@click.argument("metric")
@filters
@as_json
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one page for a browser instead, with curves to point at; it needs no network.",
)
@database
def why(db: Path, metric: str, filters: Sequence[str], as_json: bool, html_file: Path | None) -> None:
    """Which set-up has the best METRIC, how sure that is, and what each parameter does."""
    from labbench.analysis import observe
    from labbench.analysis import why as answer_why
    from labbench.filters import parse
    from labbench.store.reader import Reader

    wanted = parse(filters)
    with Reader(db) as reader:
        goals = reader.metrics()
        if metric not in goals:
            raise InputError(f"no run has logged the metric `{metric}`{did_you_mean(metric, goals)}")
        runs = reader.runs(wanted, summaries=[metric, "time/compute_s"])
        answer = answer_why(observe(runs, metric, goals[metric]), metric, goals[metric])
        if html_file is not None:
            from labbench.answer_page import page, setup_curves

            _write(html_file, page(answer, setup_curves(reader, runs, metric, goals[metric])))
            click.echo(f"written: {html_file}", err=True)
        if as_json:
            click.echo(json.dumps(answer.as_document()))
        if as_json or html_file is not None:
            return
        click.echo("\n".join(_lines(answer)))
        if sys.stdout.isatty() and answer.parameters:
            click.echo("\n" + _curves(reader, answer, wanted))


def _write(path: Path, text: str) -> None:
    """The whole file, or none of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise LabbenchError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _lines(answer: Answer) -> list[str]:
    """Sentences, then the importance of the parameters, then what each value does."""
    from labbench.analysis import sentences
    from labbench.answer_figures import effect_lines, importance_lines, scale_line

    lines = [clean(line) for line in sentences(answer)]
    importance = importance_lines(answer)
    if importance:
        lines += ["", "where the variance comes from", *(f"  {line}" for line in importance)]
    columns = shutil.get_terminal_size((100, 24)).columns
    for parameter in answer.parameters:
        lines += ["", f"{clean(parameter.name)}   ({clean(answer.metric)}, mean over the rest, {scale_line(answer)})"]
        lines += [f"  {line}" for line in effect_lines(answer, parameter, columns - 2)]
    return lines


def _curves(reader: Reader, answer: Answer, wanted: Filter | None) -> str:
    """The metric's curves by the values of the parameter that matters most."""
    from labbench.cli.figure import draw_metric

    few = [one.name for one in answer.parameters if len(one.marginal.effects) <= _MOST_SETUPS]
    columns, rows = shutil.get_terminal_size()
    return draw_metric(
        reader,
        answer.metric,
        wanted,
        axis="step",
        smooth=0.0,
        log=False,
        group=few[0] if few else answer.parameters[0].name,
        size=(columns, max(10, rows // 2)),
        colour="NO_COLOR" not in os.environ,
    )
