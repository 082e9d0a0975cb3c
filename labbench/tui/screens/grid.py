"""Screen 3: progress of the grid, a heat map of a metric over two config keys, and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.message import Message
from textual.worker import get_current_worker

from labbench import text
from labbench.charts.glyphs import STATUS_GLYPHS
from labbench.files import database_command
from labbench.metrics import Goal, ranking_metrics
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.tui import queries
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.base import stop_if_cancelled
from labbench.tui.screens.cell_panel import MAX_CELL_RUNS, CellPanel, describe_effects
from labbench.tui.screens.editing import EditScreen
from labbench.tui.screens.grid_queries import (
    GridState,
    failure_summary,
    funnel_facts,
    machine_facts,
    read_grid_state,
    read_importance,
    steps_per_second,
)
from labbench.tui.screens.heatmap import MetricHeatMap
from labbench.tui.screens.run import RunScreen
from labbench.tui.session import Session
from labbench.tui.widgets.partial_drawing import StaticText, set_titles
from labbench.tui.widgets.picker import Picker, experiment_picker
from labbench.tui.widgets.text_grid import GridCell, GridRow, TextGrid
from labbench.tui.widgets.top_bar import describe_sort


class GridScreen(EditScreen[GridState]):
    """Progress, heat map, failures."""

    screen_name = "grid"
    primary_actions = ("keys", "experiment", "metric(1)", "open", "retry", "stop")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "keys(1)", "columns by", tooltip="Heat map: the config key of the columns"),
        Binding("y", "keys(0)", "rows by", tooltip="Heat map: the config key of the rows"),
        Binding("z", "keys(2)", "multiples by", tooltip="Heat map: small multiples over a third config key"),
        Binding("E", "experiment", "experiment", tooltip="Heat map of another experiment"),
        Binding("m", "metric(1)", "metric", tooltip="Heat map of the next metric"),
        Binding("M", "choose_metric", "find metric", show=False, tooltip="Choose a metric by typing"),
        Binding("enter", "open", "open", key_display="⏎", tooltip="Open the run, or compare the runs of a cell"),
        Binding("r", "retry", "retry", tooltip="Retry this failed run"),
        Binding("K", "stop", "stop", tooltip="Stop (kill) this run (asks first)"),
        Binding("tab", "app.focus_next", "failures", show=False, tooltip="Switch between heat map and failures"),
    ]

    class ImportanceRead(Message):
        """The importance of the parameters was computed."""

        def __init__(self, shares: Sequence[tuple[str, float]], cache_key: object) -> None:
            self.shares, self.cache_key = shares, cache_key
            super().__init__()

    class CellRead(Message):
        """The runs of a cell were read, with the goals of their metrics."""

        def __init__(self, title: str, metric: str, runs: tuple[Sequence[RunRecord], Mapping[str, Goal]]) -> None:
            self.title, self.metric, self.runs = title, metric, runs
            super().__init__()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._state = GridState()
        self._metric: str | None = None
        self._importance_key: object = None
        self._rate: float | None = None

    def compose_body(self) -> ComposeResult:
        yield StaticText(id="grid-progress")
        with Container(id="grid"):
            with Vertical(id="grid-left"):
                yield TextGrid(id="heat", empty=_empty_message(self.session.path))
                yield StaticText(id="grid-effects")
                yield TextGrid(id="failures", empty="no failures, no running runs")
                yield StaticText(id="traceback")
            yield CellPanel(self.session.path)

    def on_mount(self) -> None:
        self._map, self._list = self.query_one("#heat", TextGrid), self.query_one("#failures", TextGrid)
        self._map.focus()

    def prepare_read(self) -> Callable[[], GridState]:
        session, metric, experiment = self.session, self._metric, self.session.experiment

        def read() -> GridState:
            if not session.path.exists():
                return GridState()
            with Reader(session.path) as reader:
                return read_grid_state(
                    reader, session.query.expression, metric or session.query.metric, session.heat_keys, experiment
                )

        return read

    def show(self, answer: GridState) -> None:
        before = self._state
        self._rate = steps_per_second(before, answer) if answer.live else None
        self._state = answer
        self._show_progress()
        heat = answer.heat
        if heat is not None:
            set_titles(self._map, title=_map_title(heat, answer, self.session.query.expression))
            titles, rows = heat.titles_and_rows()
            self._map.show(titles, rows)
        else:
            no_keys = "no config key differs between these runs, or no metric was logged"
            self._map.empty = no_keys if answer.runs else _empty_message(self.session.path)
            self._map.show([], [])
        self._show_failures()
        self._place_panel()
        self._read_cell()
        key = (
            self.session.query.expression,
            answer.experiment,
            heat.metric if heat else None,
            tuple(self.progress.counts.items()),
        )
        if heat is not None and key != self._importance_key:
            self._importance_key = key
            self._read_importance(heat.metric, key)

    def on_resize(self) -> None:
        self.call_after_refresh(self._place_panel)

    def _place_panel(self) -> None:
        """Place the panel of the highlighted cell beside the map, or below it, where there is room."""
        self.query_one(CellPanel).place(self._map, self._list, has_cell=self._state.heat is not None)

    @on(TextGrid.Moved)
    def _read_cell(self) -> None:
        """Read the runs of the highlighted cell for the panel."""
        row, heat = self._map.current, self._state.heat
        if heat is not None and row is not None and row.cells:
            self._read_runs(heat.describe(row, self._map.column), self._runs_of_cell()[:MAX_CELL_RUNS], heat.metric)

    @work(thread=True, exclusive=True, group="cell", description="read the runs of a cell")
    def _read_runs(self, title: str, keys: Sequence[str], metric: str) -> None:
        self.post_result(lambda: self.CellRead(title, metric, queries.read_runs(self.session.path, keys)))

    @on(CellRead)
    def _show_cell(self, event: CellRead) -> None:
        runs, goals = event.runs
        if event.metric in goals:
            self.query_one(CellPanel).show(event.title, runs, event.metric, goals)

    def _show_progress(self) -> None:
        """Show the runs left at each rung of a search, and speed and utilization while runs are training."""
        facts = [*funnel_facts(self._state), *machine_facts(self._state, self._rate)]
        line = self.query_one("#grid-progress", StaticText)
        line.display = bool(facts)
        line.update(Content.styled("   ".join(facts), "$secondary"))

    def _show_failures(self) -> None:
        runs, has_experiments = [*self._state.failed, *self._state.live], len(self._state.experiments) > 1
        titles, rows = _failure_rows(runs, has_experiments=has_experiments)
        statuses = Counter(run.status for run in self._state.failed)
        ended = ", ".join(f"{count} {status}" for status, count in statuses.items()) or "0 failed"
        counts = Content.assemble((ended, "bold"), (f"  {len(self._state.live)} running", "$secondary"))
        set_titles(self._list, title=counts)
        self.set_class(not rows, "-calm")
        self._list.show(titles if rows else [], rows)
        self._show_traceback()

    @on(TextGrid.Moved)
    def _show_traceback(self) -> None:
        """Show the end of the traceback of the failure under the cursor, while the list has the focus."""
        row = self._list.current if self._list.has_focus else None
        run = next((run for run in self._state.failed if row is not None and run.key == row.key), None)
        lines = (run.traceback or "").strip().splitlines() if run is not None else []
        height = max(3, self.size.height // 4)
        box = self.query_one("#traceback", StaticText)
        title = f"traceback, last {height} of {len(lines)} lines (⏎ all)" if len(lines) > height else "traceback"
        set_titles(box, title=Content(title))
        box.update(Content("\n".join(text.clean(line) for line in lines[-height:])))
        box.set_class(bool(lines), "-said")

    def on_descendant_focus(self) -> None:
        self._show_traceback()

    @work(thread=True, exclusive=True, group="importance")
    def _read_importance(self, metric: str, cache_key: object) -> None:
        path, expression, experiment = self.session.path, self.session.query.expression, self._state.experiment
        check = stop_if_cancelled(get_current_worker())
        self.post_result(
            lambda: self.ImportanceRead(read_importance(path, expression, experiment, metric, check), cache_key)
        )

    @on(ImportanceRead)
    def _show_importance(self, event: ImportanceRead) -> None:
        if event.cache_key != self._importance_key:
            return
        line = describe_effects(event.shares)
        self.query_one("#grid-effects", StaticText).update(line)
        self.query_one(CellPanel).show_effects(event.shares)

    def selected_keys(self) -> Sequence[str]:
        row = self._list.current
        if self._list.has_focus:
            return [row.key] if row is not None else []
        return self._runs_of_cell()

    def view(self) -> Callable[[], TableRows]:
        heat, failures = self._state.heat, self._list.texts()
        return lambda: failures if heat is None or self._list.has_focus else heat.exported_rows()

    def _cell_title(self) -> str:
        row, heat = self._map.current, self._state.heat
        return heat.describe(row, self._map.column) if heat is not None and row is not None else ""

    def _runs_of_cell(self) -> list[str]:
        row, heat = self._map.current, self._state.heat
        return heat.runs_at(row, self._map.column) if heat is not None and row is not None and row.cells else []

    @on(TextGrid.Opened)
    def action_open(self) -> None:
        keys = self.selected_keys()
        if (self._list.has_focus and keys) or len(keys) == 1:
            self.app.push_screen(RunScreen(self.session, keys[0]))
        elif keys:
            self.session.compared, self.session.compared_title = tuple(keys), self._cell_title()
            self.app.switch_mode("compare")

    def action_keys(self, axis: int) -> None:
        choices = [(key, describe_sort(key)) for key in self._state.differing]
        if axis == 2:
            choices.insert(0, ("", "no multiples"))
        title = ("rows by", "columns by", "small multiples by")[axis]
        self.app.push_screen(Picker(title, choices), lambda key: self._set_heat_key(axis, key))

    def _set_heat_key(self, axis: int, key: str | None) -> None:
        heat = self._state.heat
        if key is None or heat is None:
            return
        keys = [*heat.keys, "", ""][:3]
        if key in keys:  # swap the two keys
            keys[keys.index(key)] = keys[axis]
        keys[axis] = key
        self.session.heat_keys = tuple(filter(None, keys))
        self.read()

    def action_experiment(self) -> None:
        picker = experiment_picker("heat map of the experiment", self._state.experiments, self._state.experiment)
        self.app.push_screen(picker, self._set_experiment)

    def _set_experiment(self, experiment: str | None) -> None:
        if experiment is not None:
            self.session.experiment = experiment
            self.read()

    def action_metric(self, direction: int) -> None:
        metrics = ranking_metrics(self._state.metrics)
        present = self._state.heat.metric if self._state.heat else None
        if present in metrics:
            self._metric = metrics[(metrics.index(present) + direction) % len(metrics)]
            self.read()

    def action_choose_metric(self) -> None:
        choices = [(metric, text.clean(metric)) for metric in ranking_metrics(self._state.metrics)]
        present = self._state.heat.metric if self._state.heat else None
        self.app.push_screen(Picker("metric", choices, chosen=present), self._set_metric)

    def _set_metric(self, metric: str | None) -> None:
        if metric is not None:
            self._metric = metric
            self.read()

    def step_back(self) -> None:
        self.app.switch_mode("runs")


def _failure_rows(runs: Sequence[RunRecord], *, has_experiments: bool) -> tuple[list[GridCell], list[GridRow]]:
    """Return titles and rows of failed and running runs, with their experiments if there are several."""
    titles = ["run", *(["experiment"] if has_experiments else []), "reason", "wall time"]
    rows = []
    for run in runs:
        style = STATUS_GLYPHS[run.status]
        cells = [
            *([GridCell(text.clean(run.experiment), "secondary")] if has_experiments else []),
            GridCell(failure_summary(run), style.colour),
            GridCell(text.format_duration(run.seconds), "secondary"),
        ]
        rows.append(GridRow(GridCell(f"{style.glyph} {text.clean(run.name)}", style.colour), cells, run.key))
    return list(map(GridCell, titles)), rows


def _empty_message(path: Path) -> str:
    """Return the message of a database without runs."""
    return f"no runs yet\n\n{text.clean(database_command(path))} new\nwrites a first grid and says how to train it"


def _map_title(heat: MetricHeatMap, state: GridState, expression: str) -> Content:
    """Return metric, keys, experiment (of several) and filter of the heat map."""
    keys = " by ".join(map(text.clean, heat.keys[:2]))
    parts = [(f"best {text.clean(heat.metric)}", "bold")]
    if len(state.experiments) > 1:
        number = state.experiments.index(state.experiment or "") + 1
        parts.append((f"  {text.clean(state.experiment or '')}", "$primary"))
        parts.append((f" ({number} of {len(state.experiments)} experiments, E changes)", "$secondary"))
    if expression.strip():
        parts.append((f"  filter {text.clean(expression.strip())}", "$secondary"))
    return Content.assemble(*parts, (f"  {keys}, mean over the other keys", "$secondary"))
