"""Descriptions of a search: its rungs before it begins, and its result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labbench.files import checkpoint_files, database_command, files_folder
from labbench.runner.search.grid_search import SearchResult
from labbench.runner.search.plan import SearchPlan
from labbench.store.reader import Reader
from labbench.text import clean, format_count, format_number, format_size

HEADER = ("rung", "runs", "epoch", "run-epochs", "of full grid")
HEADER_OF_COMMANDS = ("stage", "runs", "of full grid")


def describe_plan(plan: SearchPlan) -> list[str]:
    """Return a table of the rungs of a search, one line each, with their cost and their share of the full grid's."""
    rows = _command_rows(plan) if plan.is_of_commands else _epoch_rows(plan)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" ".join([row[0].ljust(widths[0]), *map(_align_right, row[1:], widths[1:])]) for row in rows]


def _epoch_rows(plan: SearchPlan) -> list[tuple[str, ...]]:
    """Return the rows of a search that trains a task."""
    rows = [HEADER, *_rung_rows(plan)]
    if plan.finalists:
        runs = plan.finalists * len(plan.new_seeds)
        rows.append((_finalists_name(plan), f"{runs}", f"{plan.epochs}", *_cost_cells(plan.new_seeds_cost, plan)))
    return [*rows, ("total", "", "", *_cost_cells(plan.cost, plan))]


def _command_rows(plan: SearchPlan) -> list[tuple[str, ...]]:
    """Return the rows of a search that starts scripts."""
    rows = [HEADER_OF_COMMANDS]
    for number, bracket in enumerate(plan.brackets, 1):
        name = f"{plan.bracket_noun} {number}" if len(plan.brackets) > 1 else "search"
        rows.append((name, *_cost_cells(bracket[0].cost * plan.runs_per_candidate, plan)))
    if plan.finalists:
        rows.append((_finalists_name(plan), *_cost_cells(plan.new_seeds_cost, plan)))
    return [*rows, ("total", *_cost_cells(plan.cost, plan))]


def _finalists_name(plan: SearchPlan) -> str:
    return f"{format_count(len(plan.new_seeds), 'new seed')} of {format_count(plan.finalists, 'finalist')}"


def _align_right(cell: str, width: int) -> str:
    return cell.rjust(width + 1)


def _rung_rows(plan: SearchPlan) -> Iterator[tuple[str, ...]]:
    for number, bracket in enumerate(plan.brackets, 1):
        prefix = f"{plan.bracket_noun} {number}, " if len(plan.brackets) > 1 else ""
        for index, rung in enumerate(bracket, 1):
            runs = rung.candidates * plan.runs_per_candidate
            name = f"{prefix}{index} of {len(bracket)}"
            yield (name, f"{runs:.0f}", f"{rung.epochs}", *_cost_cells(runs * rung.new_epochs, plan))


def _cost_cells(cost: float, plan: SearchPlan) -> tuple[str, str]:
    return f"{cost:,.0f}", f"{cost / plan.full_cost:.1%}"


def describe_result(result: SearchResult, database: Path) -> list[str]:
    """Return lines with the winner of a search, its cost, and the checkpoints of pruned runs.

    Raises:
        StoreError: The database cannot be read.
    """
    search, plan = result.plan.search, result.plan
    lines = []
    if result.note is not None:
        lines.append(f"the search has not ended: {result.note}; the same command continues it")
    if result.finalists:
        best = result.finalists[0]
        judged = format_count(best.seeds, "new seed" if plan.new_seeds else "seed")
        basis = (
            f"mean of {judged}, best of {format_count(len(result.finalists), 'finalist')}"
            if plan.new_seeds
            else f"{judged}, on which it was also chosen, so this is optimistic: `seeds` in [search] judges on new ones"
        )
        name = f"{clean(best.run.name)} ({best.run.key})"
        lines.append(f"best configuration: {name}: {clean(search.metric)} {format_number(best.value)} ({basis})")
    elif result.note is None and plan.new_seeds:
        lines.append("no winner: every finalist diverged or failed with a new seed")
    cost = f"{result.spent:,.0f} of the {plan.full_cost:,} {plan.unit}s of the full grid"
    lines.append(f"{cost} ({result.spent / plan.full_cost:.0%}), all seeds included")
    return [*lines, *_describe_checkpoints(result, database)]


def _describe_checkpoints(result: SearchResult, database: Path) -> Iterator[str]:
    with Reader(database) as reader:
        pruned = [run for run in reader.by_keys([run.key for run in result.runs]) if run.status == "pruned"]
    files = [path for run in pruned for path in checkpoint_files(files_folder(database), run.key)]
    if files:
        size = format_size(sum(path.stat().st_size for path in files))
        yield (
            f"{format_count(len(files), 'checkpoint')} of pruned runs ({size}) are kept, from which --full trains them "
            f"on; to delete them: {database_command(database)} vacuum --states"
        )
