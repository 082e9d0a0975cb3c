"""Names of runs beside columns of their settings, so that the table says nothing twice.

A wide table has a column for each setting that differs, and names have only the words that no column holds. A narrow
table has full names, without the columns of settings that the names mention.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from labbench import text
from labbench.records import RunRecord
from labbench.tui.charts.labels import is_in_names, mentions
from labbench.tui.columns.run_column import ColumnLayout, RunColumn

_SETTING = "config:"
_GAP_CELLS = 2


def short_name(run: RunRecord, keys: Collection[str]) -> str:
    """Return the words of a run's name that none of its settings in columns of these config keys explains."""
    settings = [(key, run.config[key]) for key in keys if key in run.config]
    name = text.clean(run.name)
    for _, value in settings:
        spelling = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if " " in spelling:  # a list of texts, which is one word
            name = re.sub(rf"\S*={re.escape(spelling)}", "", name)
    words = name.split()
    return " ".join(word for word in words if not any(mentions(word, key, value) for key, value in settings))


def fit_names(
    columns: Sequence[RunColumn], runs: Sequence[RunRecord], layout: ColumnLayout, width: int
) -> list[RunColumn]:
    """Return the columns of a table of `width` cells with short names, or without the settings that names mention.

    The columns of mentioned settings come first, the seed last among them; the name is optional then if it is empty for
    all of these runs.
    """
    mentioned = [column for column in columns if _is_mentioned(column, runs) and layout.is_shown(column)]
    if not mentioned or not runs:
        return list(columns)
    mentioned.sort(key=lambda column: column.id == f"{_SETTING}seed")
    ids, keys = [column.id for column in mentioned], [column.id.removeprefix(_SETTING) for column in mentioned]
    name, *others = (column for column in columns if column.id not in ids)
    for column in columns:
        column.widen_for(runs)
    name_width = max(text.cell_width(short_name(run, keys)) for run in runs)
    main = [*mentioned, *(column for column in others if column.id.startswith("metric:") and layout.is_shown(column))]
    if name_width + sum(_GAP_CELLS + layout.widths.get(column.id, column.width) for column in main) > width:
        for column in mentioned:
            column.optional = True
        return list(columns)
    name = replace(name, text_of=lambda run: short_name(run, keys), longest=name_width, optional=not name_width)
    return [name, *mentioned, *others]


def _is_mentioned(column: RunColumn, runs: Sequence[RunRecord]) -> bool:
    """Return True if a column holds a setting that differs and that the names of all runs mention."""
    is_setting = column.id.startswith(_SETTING) and not column.optional
    return is_setting and is_in_names(runs, column.id.removeprefix(_SETTING))
