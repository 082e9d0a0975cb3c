"""Screen 3: the whole grid as a picture: how far it is, a metric over two keys, and what has failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from labbench import text
from labbench.charts.glyphs import STATUS_GLYPHS
from labbench.metrics import quality_metrics
from labbench.records import STATUSES
from labbench.store.reader import Reader
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.editing import EditScreen
from labbench.tui.screens.grid_queries import (
    GridState,
    failure_summary,
    machine_facts,
    read_grid_state,
    read_importance,
    steps_per_second,
)
from labbench.tui.screens.run import RunScreen
from labbench.tui.session import Session
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.text_grid import GridCell, GridRow, TextGrid
from labbench.tui.widgets.top_bar import describe_sort

_EMPTY = """
no runs yet

labbench run experiments/quickstart.toml
trains some, and their grid appears here
"""


class GridScreen(EditScreen[GridState]):
    """Progress, heat map, failures."""

    screen_name = "grid"
    primary_actions = ("keys", "metric(1)", "open", "request('retry')", "request('stop')")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "keys(1)", "columns by", tooltip="Heat map: the config key of the columns"),
        Binding("y", "keys(0)", "rows by", tooltip="Heat map: the config key of the rows"),
        Binding("z", "keys(2)", "multiples by", tooltip="Heat map: small multiples over a third config key"),
        Binding("m", "metric(1)", "metric", tooltip="Heat map of the next metric"),
        Binding("M", "metric(-1)", "metric before", show=False, tooltip="Heat map of the metric before"),
        Binding("enter", "open", "open", key_display="⏎", tooltip="Open the run, or show the runs of a cell"),
        Binding("r", "request('retry')", "retry", tooltip="Retry: put this failed run back into the queue"),
        Binding("K", "request('stop')", "stop", tooltip="Stop (kill) this run"),
        Binding("tab", "app.focus_next", "failures", show=False, tooltip="To the failures, or to the heat map"),
    ]

    class ImportanceRead(Message):
        """What the parameters explain was reckoned."""

        def __init__(self, shares: Sequence[tuple[str, float]], about: object) -> None:
            self.shares, self.cache_key = shares, about
            super().__init__()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._state = GridState()
        self._metric: str | None = None
        self._importance_key: object = None
        self._rate: float | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="grid-progress", markup=False)
        with Container(id="grid"):
            yield TextGrid(id="heat", empty=_EMPTY.strip())
            yield Static(id="grid-effects", markup=False)
            yield TextGrid(id="failures", empty="nothing has failed, nothing is training")
            yield Static(id="traceback", markup=False)

    def on_mount(self) -> None:
        self._map, self._list = self.query_one("#heat", TextGrid), self.query_one("#failures", TextGrid)
        self._map.focus()

    def prepare_read(self) -> Callable[[], GridState]:
        session, metric = self.session, self._metric

        def read() -> GridState:
            if not session.path.exists():
                return GridState()
            with Reader(session.path) as reader:
                return read_grid_state(
                    reader, session.query.expression, metric or session.query.metric, session.heat_keys
                )

        return read

    def show(self, answer: GridState) -> None:
        before = self._state
        self._rate = steps_per_second(before, answer) if answer.live else None
        self._state = answer
        self._show_progress()
        heat = answer.heat
        if heat is not None:
            over = " by ".join(map(text.clean, heat.keys[:2]))
            self._map.border_title = Content.assemble(
                (f"best {text.clean(heat.metric)}", "bold"), (f"  mean, {over}, over the rest", "$secondary")
            )
            titles, rows = heat.titles_and_rows()
            self._map.styles.height = len(rows) + 3 if self._state.failed or self._state.live else None
            self._map.show(titles, rows)
        else:
            self._map.empty = (
                "nothing differs between these runs, or nothing was measured" if answer.runs else _EMPTY.strip()
            )
            self._map.show([], [])
        self._show_failures()
        about = (self.session.query.expression, heat.metric if heat else None, tuple(self.progress.counts.items()))
        if heat is not None and about != self._importance_key:
            self._importance_key = about
            self._read_importance(heat.metric, about)

    def _show_progress(self) -> None:
        """Runs by status as one bar in their colours, then what the machine does."""
        progress = self.progress
        words = "  ".join(f"{progress.counts[status]} {status}" for status in STATUSES if progress.counts.get(status))
        width = max(8, min(60, self.size.width - len(words) - 6))
        parts: list[tuple[str, str]] = []
        for status in ("finished", "diverged", "failed", "stopped", "lost", "running", "queued"):
            count = progress.counts.get(status, 0)
            cells = max(1, round(width * count / progress.total)) if count else 0
            parts.append(("█" * cells if status != "queued" else "░" * cells, f"${STATUS_GLYPHS[status].colour}"))
        line = Content.assemble(*parts, ("   " + words, "$foreground"))
        facts = machine_facts(self._state, self._rate)
        if progress.seconds_left is not None:
            facts.insert(0, f"{text.format_duration(progress.seconds_left)} left")
        said = Content.styled("   ".join(facts), "$secondary")
        self.query_one("#grid-progress", Static).update(Content("\n").join([line, said] if facts else [line]))

    def _show_failures(self) -> None:
        runs = [*self._state.failed, *self._state.live]
        rows = []
        for run in runs:
            look = STATUS_GLYPHS[run.status]
            cells = [
                GridCell(failure_summary(run), look.colour),
                GridCell(text.format_duration(run.seconds), "secondary"),
            ]
            rows.append(GridRow(GridCell(f"{look.glyph} {text.clean(run.name)}", look.colour), cells, run.key))
        failed, live = len(self._state.failed), len(self._state.live)
        self._list.border_title = Content.assemble(
            (f"{failed} not finished", "bold"), (f"  {live} training", "$secondary")
        )
        head = ["run", "last line of its traceback, or why it ended", "took"]
        self.set_class(not rows, "-calm")
        self._list.show([GridCell(title) for title in head] if rows else [], rows)
        self._show_traceback()

    @on(TextGrid.Moved)
    def _show_traceback(self) -> None:
        """The end of the traceback of the chosen failure, while somebody is among the failures."""
        row = self._list.current if self._list.has_focus else None
        run = next((run for run in self._state.failed if row is not None and run.key == row.key), None)
        lines = (run.traceback or "").strip().splitlines() if run is not None else []
        room = max(3, self.size.height // 4)
        shown = self.query_one("#traceback", Static)
        shown.border_title = (
            f"traceback, last {room} of {len(lines)} lines: ⏎ all" if len(lines) > room else "traceback"
        )
        shown.update(Content("\n".join(text.clean(line) for line in lines[-room:])))
        shown.set_class(bool(lines), "-said")

    def on_descendant_focus(self) -> None:
        self._show_traceback()

    @work(thread=True, exclusive=True, group="importance")
    def _read_importance(self, metric: str, about: object) -> None:
        path, expression = self.session.path, self.session.query.expression
        self.post_result(lambda: self.ImportanceRead(read_importance(path, expression, metric), about))

    @on(ImportanceRead)
    def _show_importance(self, event: ImportanceRead) -> None:
        if event.cache_key != self._importance_key:
            return
        parts: list[tuple[str, str]] = [("marginal effects  ", "$secondary")]
        for name, share in event.shares:
            parts += [(f" {text.clean(name)} ", "$foreground"), (text.progress_bar(share, 10).rstrip(), "$primary")]
            parts.append((f" {share:.0%} ", "$foreground"))
        parts.append(("  of the variance; the rest: interactions and seeds", "$secondary"))
        line = Content.assemble(*parts) if event.shares else Content("")
        self.query_one("#grid-effects", Static).update(line)

    def selected_keys(self) -> Sequence[str]:
        row = self._list.current
        if self._list.has_focus:
            return [row.key] if row is not None else []
        return self._runs_of_cell()

    def view(self) -> Callable[[], TableRows]:
        rows = (self._list if self._list.has_focus else self._map).texts()
        return lambda: rows

    def _runs_of_cell(self) -> list[str]:
        row, heat = self._map.current, self._state.heat
        return heat.runs_at(row, self._map.column) if heat is not None and row is not None and row.cells else []

    @on(TextGrid.Opened)
    def action_open(self) -> None:
        keys = self.selected_keys()
        if self._list.has_focus and keys:
            self.app.push_screen(RunScreen(self.session, keys[0]))
        elif keys:  # the runs of the cell are marked, so that their curves are drawn together
            self.session.marks.clear()
            self.session.marks.add(keys)
            self.session.highlighted = keys[0]
            self.app.switch_mode("runs" if len(keys) == 1 else "compare")

    def action_keys(self, place: int) -> None:
        choices = [(key, describe_sort(key)) for key in self._state.differing]
        if place == 2:
            choices.insert(0, ("", "no multiples"))
        title = ("rows by", "columns by", "small multiples by")[place]
        self.app.push_screen(Picker(title, choices), lambda key: self._set_heat_key(place, key))

    def _set_heat_key(self, place: int, key: str | None) -> None:
        heat = self._state.heat
        if key is None or heat is None:
            return
        keys = [*heat.keys, "", ""][:3]
        if key in keys:  # the two change places
            keys[keys.index(key)] = keys[place]
        keys[place] = key
        self.session.heat_keys = tuple(filter(None, keys))
        self.read()

    def action_metric(self, direction: int) -> None:
        metrics = quality_metrics(self._state.metrics)
        present = self._state.heat.metric if self._state.heat else None
        if present in metrics:
            self._metric = metrics[(metrics.index(present) + direction) % len(metrics)]
            self.read()

    def step_back(self) -> None:
        self.app.switch_mode("runs")
