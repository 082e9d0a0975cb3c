"""Facts of one run as lines of `Content`: metrics, config, error, origin, files and system metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime

from textual.content import Content

from labbench import text
from labbench.charts.glyphs import STATUS_GLYPHS
from labbench.metrics import default_goal, is_axis, metric_rank
from labbench.portraits.file import Portrait
from labbench.records import RunRecord
from labbench.tui.screens.run_queries import RunDetail

_NAME_CELLS = 17
"""Width of the name of a fact with the space behind it."""


def facts(detail: RunDetail, width: int) -> Content:
    """Return all sections, the most relevant first, for a column of `width` cells."""
    run = detail.record
    sections = [
        _section("", _identity(run)),
        _section("note", [_plain_line(line) for line in (run.note or "").splitlines()]),
        _section("error", _error(run)),
        _section("metrics", _metrics(detail, width)),
        _section("config", _indent(_config(run, width), width)),
        _section("pictures", _pictures(detail)),
        _section("origin", _indent(_origin(detail), width)),
        _section("files", [_fact_line(item.name, text.format_size(item.size), item.path) for item in detail.artifacts]),
        _section("sources", _indent([_source(kind, words) for kind, words in detail.sources.items()], width)),
        _section("system", _system(run)),
    ]
    return Content("\n").join([line for section in sections for line in section][:-1])


def _section(title: str, lines: Iterable[Content]) -> list[Content]:
    """Return a title, its lines and an empty line, or [] without lines."""
    content = list(lines)
    if not content:
        return []
    return [*([Content.styled(title, "bold $secondary")] if title else []), *content, Content("")]


def _plain_line(words: str) -> Content:
    return Content(text.clean(words))


def _fact_line(name: str, value: str, more: str = "") -> Content:
    return Content.assemble(
        (f"{text.fit_to_width(text.clean(name), _NAME_CELLS - 1)} ", "$secondary"),
        (text.clean(value), "$foreground"),
        (f"  {text.clean(more)}" if more else "", "$secondary"),
    )


def _indent(lines: Iterable[Content], width: int) -> Iterable[Content]:
    """Yield facts; the value of one that is longer than `width` cells continues below its start."""
    for line in lines:
        if line.cell_length <= width or width < 2 * _NAME_CELLS or not line.plain[:_NAME_CELLS].isascii():
            yield line
            continue
        name, value = line.divide([_NAME_CELLS])
        for index, part in enumerate(value.wrap(width - _NAME_CELLS)):
            yield Content.assemble(name if index == 0 else " " * _NAME_CELLS, part)


def _source(kind: str, words: str) -> Content:
    """Return a text that led to the run: a single line itself, of others their number."""
    lines = words.strip().splitlines()
    return _fact_line(kind, lines[0] if len(lines) == 1 else f"{len(lines)} lines")


def _identity(run: RunRecord) -> list[Content]:
    style = STATUS_GLYPHS[run.status]
    reason = f": {text.clean(run.reason)}" if run.reason else ""
    lines = [
        Content.styled(text.clean(run.name) or run.key, "bold"),
        Content.assemble((f"{style.glyph} {run.shown_status}", f"${style.colour}"), (reason, "$foreground")),
        _fact_line("key", run.key, ", ".join(["archived"] * run.archived + ["older code"] * run.older_code)),
        _fact_line("experiment", run.experiment),
    ]
    if run.tags:
        lines.append(_fact_line("tags", " ".join(run.tags)))
    return lines


def _error(run: RunRecord) -> list[Content]:
    if run.error is None:
        return []
    kind = f"{run.error_kind}: " if run.error_kind else ""
    lines = [Content.styled(text.clean(f"{kind}{run.error}"), "$error")]
    return [*lines, *(_plain_line(line) for line in (run.traceback or "").splitlines())]


def _metrics(detail: RunDetail, width: int) -> list[Content]:
    """Return last and best value of each metric and the step of the best; progress metrics come last.

    Names are cut to the room that the numbers leave in `width` cells.
    """
    summary = detail.record.summary
    names = [name for name in summary if not name.startswith("system/")]
    names.sort(key=lambda name: (is_axis(name), metric_rank(name)))
    if not names:
        return []
    bests = {name: detail.record.best_and_step(name, detail.goals.get(name) or default_goal(name)) for name in names}
    pairs = [text.format_numbers([summary[name].last, bests[name][0]]) for name in names]
    lasts, values = (text.align_decimal_points(column) for column in zip(*pairs, strict=True))
    steps = ["" if bests[name][1] is None else str(bests[name][1]) for name in names]
    step_width = max(map(len, ["at step", *steps]))
    widest = min(_MAX_METRIC_WIDTH, max(text.cell_width(text.clean(name)) for name in names))
    room = width - len(lasts[0]) - len(values[0]) - step_width - 6
    name_width = max(_MIN_METRIC_WIDTH, min(widest, room)) if width else widest
    head = f"{'':{name_width}}  {'last':>{len(lasts[0])}}  {'best':>{len(values[0])}}  {'at step':>{step_width}}"
    lines = [Content.styled(head, "$secondary")]
    for name, last, value, step in zip(names, lasts, values, steps, strict=True):
        title = text.fit_to_width(text.clean(name), name_width)
        numbers = f"  {last:>4}  {value:>4}  {step:>{step_width}}"
        lines.append(Content.assemble((title, "$secondary"), (numbers, "$foreground")))
        if count := summary[name].n_nonfinite:
            first = summary[name].first_nonfinite_step
            lines.append(Content.styled(f"  {count} non-finite, first at step {first}", "$warning"))
    return lines


_MIN_METRIC_WIDTH, _MAX_METRIC_WIDTH = 10, 24


def _config(run: RunRecord, width: int) -> list[Content]:
    """Return keys and values, in two columns if they fit; long values come last."""
    pairs = [_fact_line(key, text.format_setting(value)) for key, value in run.config.items()]
    if width < 64 or len(pairs) < 8:
        return pairs
    long_pairs = [pair for pair in pairs if pair.cell_length > width // 2 - 2]
    pairs = [pair for pair in pairs if pair not in long_pairs]
    half = (len(pairs) + 1) // 2
    left = [line.truncate(width // 2 - 2, ellipsis=True, pad=True) for line in pairs[:half]]
    return [*(Content.assemble(*parts) for parts in _side_by_side(left, pairs[half:])), *long_pairs]


def _side_by_side(left: Sequence[Content], right: Sequence[Content]) -> Iterable[tuple[Content, ...]]:
    for index, line in enumerate(left):
        yield (line, Content("  "), right[index]) if index < len(right) else (line,)


def _pictures(detail: RunDetail) -> list[Content]:
    """Return the key that shows each picture, or the reason for their absence; [] if labbench did not train the run."""
    images = [
        Content.assemble(
            ("p", "bold $primary"),
            (" shows the image ", "$secondary"),
            (text.clean(image.name), "$foreground"),
            (f" of step {image.steps[-1]}", "$secondary"),
        )
        for image in detail.images
    ]
    if isinstance(detail.portrait, Portrait):
        return [
            *images,
            Content.assemble(
                ("p", "bold $primary"),
                (" shows pictures of the network after ", "$secondary"),
                (f"epoch {detail.portrait.epoch}", "$foreground"),
            ),
        ]
    if images or not detail.record.way or not detail.portrait:
        return images
    return [Content.styled(text.clean(detail.portrait), "$secondary")]


def _origin(detail: RunDetail) -> list[Content]:
    run = detail.record
    code = (
        "" if run.git_commit is None else run.git_commit[:12] + (" with uncommitted changes" if run.git_dirty else "")
    )
    pairs = {
        "queued": _format_time(run.created),
        "started": _format_time(run.started),
        "ended": _format_time(run.finished),
        "wall time": text.format_duration(run.seconds),
        "mirrored from": text.clean(run.source or ""),
        "attempt": f"{run.attempt}, after retries or interruptions" if run.attempt > 1 else "",
        "weights from": str(run.config.get("init_from") or ""),
        "continued from": f"{run.continued_from} at step {run.continued_step}" if run.continued_from else "",
        "resumes from": f"step {run.boundary}" if run.boundary and run.status != "finished" else "",
        "host": " ".join(filter(None, [run.host, f"process {run.pid}" if run.pid else ""])),
        "device": run.device or "",
        "job": f"{run.place} of {run.cluster}" if run.executor else "",
        "trained": _describe_engine(detail),
        "task": run.task,
        "code": code,
        "versions": ", ".join(f"{name} {version}" for name, version in run.library_versions.items()),
        "hardware": run.hardware_text,
    }
    return [_fact_line(name, value) for name, value in pairs.items() if value]


def _describe_engine(detail: RunDetail) -> str:
    """Return a description of the engine that trained the run; "" for the run of a script."""
    alone = next((line for line in detail.output if line.startswith(_TRAINED_ALONE)), None)
    if alone is not None:
        return text.clean(alone.removeprefix("trained "))
    return {"loop": "alone", "stacked": "in a stack", "vmap": "in a stack (torch.func)"}.get(
        detail.record.way or "", ""
    )


_TRAINED_ALONE = "trained alone, because "
"""Start of the note in the output of a run that could not be stacked."""


def _format_time(seconds: float | None) -> str:
    if not seconds:
        return ""
    age = text.format_age(time.time() - seconds)
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}  {age}{'' if age == 'now' else ' ago'}"


def _system(run: RunRecord) -> list[Content]:
    summaries = sorted((name, summary) for name, summary in run.summary.items() if name.startswith("system/"))
    return [
        _fact_line(
            name.removeprefix("system/"), text.format_number(summary.last), f"max {text.format_number(summary.max)}"
        )
        for name, summary in summaries
    ]
