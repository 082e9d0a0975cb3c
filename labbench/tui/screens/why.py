"""Screen 4: the best configuration and its explanation, as sentences, then as tables and figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.worker import get_current_worker

from labbench import text
from labbench.filters import parser
from labbench.metrics import Goal, default_metric, ranking_metrics
from labbench.store.reader import Reader
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.base import DataScreen, stop_if_cancelled
from labbench.tui.screens.grid_queries import of_experiment
from labbench.tui.session import Session
from labbench.tui.widgets.partial_drawing import StaticText, set_titles
from labbench.tui.widgets.picker import Picker, experiment_picker

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.analysis import Answer

_FIGURE_MARKS = re.compile("★|[●─]+|[█▏▎▍▌▋▊▉]+")
_EMPTY = "no run has ended yet\n\nonce runs have ended, this screen explains which configuration is best, and why"

_LOADING_MESSAGE = "analysing the runs …"
"""Message until the first answer is computed."""


@dataclass(frozen=True, slots=True)
class WhyState:
    """An answer, or None if no run has ended."""

    metrics: Mapping[str, Goal] = field(default_factory=dict)
    answer: Answer | None = None
    experiments: Sequence[str] = ()
    """Experiments of the matching runs, the newest last."""
    cache_key: object = None
    """Changes whenever the answer may change."""

    @property
    def explained_experiments(self) -> Sequence[str]:
        """Experiments of the runs that the answer is about, the newest first."""
        return self.answer.scope.experiments if self.answer and self.answer.scope else ()


class WhyScreen(DataScreen[WhyState]):
    """Explanation of the best configuration."""

    screen_name = "why"
    view_label = "all lines, also those out of sight, as CSV"
    primary_actions = ("experiment", "metric(1)", "copy", "scroll(1)")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("E", "experiment", "experiment", tooltip="Explain another experiment"),
        Binding("m", "metric(1)", "metric", tooltip="Explain the next metric"),
        Binding("M", "choose_metric", "find metric", show=False, tooltip="Choose a metric by typing"),
        Binding("Y", "copy", "copy", tooltip="Copy the answer to the clipboard"),
        Binding("j,down", "scroll(1)", "down", show=False, tooltip="Down"),
        Binding("k,up", "scroll(-1)", "up", show=False, tooltip="Up"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._why_state = WhyState()
        self._metric: str | None = None

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="why"):
            yield StaticText(Content.styled(_LOADING_MESSAGE, "$secondary"), id="why-text")

    def on_mount(self) -> None:
        self._box = self.query_one("#why", VerticalScroll)
        self._box.focus()

    def prepare_read(self) -> Callable[[], WhyState]:
        session, cached, metric = self.session, self._why_state, self._metric or self.session.query.metric
        path, expression, experiment = session.path, session.query.expression, session.experiment

        def read() -> WhyState:
            if not path.exists():
                return WhyState()
            check = stop_if_cancelled(get_current_worker())
            with Reader(path) as reader:
                return _read_answer(reader, expression, experiment, metric, cached, check)

        return read

    def show(self, answer: WhyState) -> None:
        self._why_state = answer
        set_titles(self._box, title=_title(answer, self.session.query.expression))
        self.query_one("#why-text", StaticText).update(self._content())

    def on_resize(self) -> None:
        if self.is_mounted and self._why_state.answer is not None:
            self.query_one("#why-text", StaticText).update(self._content())

    def _content(self) -> Content:
        answer = self._why_state.answer
        if answer is None:
            return Content.styled(_EMPTY, "$secondary")
        from labbench.reports.sentences import details, verdict

        first, *others = (text.clean(line) for line in verdict(answer))
        lines = [Content.styled(first, "bold $primary"), *(Content.styled(line, "bold") for line in others)]
        lines += [Content(""), *(_style_evidence(text.clean(line)) for line in details(answer))]
        return Content("\n").join([*lines, *_figure_lines(answer, self._box.scrollable_content_region.width)])

    def action_metric(self, direction: int) -> None:
        metrics = ranking_metrics(self._why_state.metrics)
        if metrics:
            present = self._why_state.answer.metric if self._why_state.answer else metrics[0]
            self._set_metric(
                metrics[(metrics.index(present) + direction) % len(metrics)] if present in metrics else metrics[0]
            )

    def action_choose_metric(self) -> None:
        choices = [(metric, text.clean(metric)) for metric in ranking_metrics(self._why_state.metrics)]
        present = self._why_state.answer.metric if self._why_state.answer else None
        self.app.push_screen(Picker("metric", choices, chosen=present), self._set_metric)

    def _set_metric(self, metric: str | None) -> None:
        if metric is not None:
            self._metric = metric
            self.session.query = replace(self.session.query, metric=metric)
            self.read()

    def action_experiment(self) -> None:
        chosen = self._why_state.explained_experiments[:1]
        title = "explain the experiment"
        picker = experiment_picker(title, self._why_state.experiments, chosen[0] if chosen else None)
        self.app.push_screen(picker, self._set_experiment)

    def _set_experiment(self, experiment: str | None) -> None:
        if experiment is not None:
            self.session.experiment = experiment
            self.read()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._content().plain)
        self.notify("copied: the answer", markup=False, timeout=2)

    def view(self) -> Callable[[], TableRows]:
        rows = [[line] for line in self._content().plain.splitlines()]
        return lambda: rows

    def action_scroll(self, lines: int) -> None:
        self._box.scroll_relative(y=lines, animate=False)

    def step_back(self) -> None:
        self.app.switch_mode("runs")


def _title(state: WhyState, expression: str) -> Content:
    """Return metric, experiment (of several) and filter of the answer."""
    metric = text.clean(state.answer.metric) if state.answer else ""
    parts = [(f"why {metric}", "bold")]
    explained, count = state.explained_experiments, len(state.experiments)
    if len(explained) == 1 and count > 1:
        number = state.experiments.index(explained[0]) + 1 if explained[0] in state.experiments else count
        parts.append((f"  {text.clean(explained[0])}", "$primary"))
        parts.append((f" ({number} of {count} experiments, E changes)", "$secondary"))
    if expression.strip():
        parts.append((f"  filter {text.clean(expression.strip())}", "$secondary"))
    return Content.assemble(*parts)


def _read_answer(
    reader: Reader,
    expression: str,
    experiment: str | None,
    metric: str | None,
    cached: WhyState,
    check: Callable[[], None],
) -> WhyState:
    """Return the answer for the matching runs: the cached one unless a run was added or has ended."""
    matching = parser.parse(expression)
    experiments = reader.experiments(parser.present_code(matching))
    if experiment in experiments:
        matching = of_experiment(matching, experiment)
    condition = parser.present_code(matching)
    metrics = reader.metrics(condition)
    names = ranking_metrics(metrics)
    chosen = metric if metric in names else default_metric(metrics, reader.declared_goals()) if names else None
    if chosen is None:
        return WhyState(metrics, experiments=experiments)
    counts = tuple(reader.status_counts(condition).items())
    cache_key = (matching, chosen, metrics[chosen], counts)
    if cache_key == cached.cache_key:
        return cached
    from labbench.analysis import explain  # imports numpy and the analysis, half a second
    from labbench.reports.selected_runs import read_selection

    selection = read_selection(reader, matching, chosen)
    has_ended = any(run.status not in ("queued", "running") for run in selection.runs)
    answer = explain(selection, chosen, metrics[chosen], check=check) if has_ended else None
    return WhyState(metrics, answer, experiments, cache_key)


def _style_evidence(sentence: str) -> Content:
    """Return a sentence, paler and in italics if its evidence is weak."""
    is_weak = any(words in sentence for words in _WEAK_EVIDENCE)
    return Content.styled(sentence, "italic $foreground 80%" if is_weak else "$foreground")


_WEAK_EVIDENCE = (
    "too close to call",
    "too few seeds",
    "too few runs",
    "no clear difference",
    "not clearly ahead",
    "weak evidence",
)
"""Words of sentences about differences that may be luck."""


def _figure_lines(answer: Answer, columns: int) -> list[Content]:
    """Return the tables and figures below the sentences."""
    from labbench.reports.budget_sentences import budget_tables
    from labbench.reports.tables import other_tables, setups_table, table_lines, tuned_tables
    from labbench.reports.text_charts import IMPORTANCE_TITLE, effect_lines, importance_lines, scale_line

    setups, others = setups_table(answer), other_tables(answer, None)
    lines = []
    for table in (*tuned_tables(answer), *budget_tables(answer), *([setups] if setups else [])):
        lines += _section_lines(table.title, table_lines(table, columns - 2))
    lines += _section_lines(IMPORTANCE_TITLE, importance_lines(answer))
    for parameter in answer.parameters:
        metric = f"{text.clean(answer.metric)}, mean over the other keys, {scale_line(answer)}"
        title = f"{text.clean(parameter.name)}   {metric}"
        lines += _section_lines(title, effect_lines(answer, parameter, columns))
    for table in others:
        lines += _section_lines(table.title, table_lines(table, columns - 2))
    return lines


def _section_lines(title: str, lines: Sequence[str]) -> list[Content]:
    if not lines:
        return []
    return [Content(""), Content.styled(title, "bold $secondary"), *(_colour_marks(line) for line in lines)]


def _colour_marks(line: str) -> Content:
    """Return a line of a figure with its bars, means and star in colour."""
    content = Content(line)
    for mark in _FIGURE_MARKS.finditer(line):
        content = content.stylize("bold $accent" if mark[0] == "★" else "$primary", *mark.span())
    return content
