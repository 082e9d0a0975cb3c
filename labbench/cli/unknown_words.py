"""Answers to commands, options and arguments that are missing, or that only other tools have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.errors import LabbenchError
from labbench.files import database_command
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.store.reader import Reader

_MAX_METRICS = 8
"""Number of metrics that the error for a missing one lists."""

_SHOW_RUNS = "`{0} tui` shows the runs in the terminal, without a server; `{0} ls` and `{0} show RUN` print them"
_RUN_GRID = "`{0} run GRID` trains the runs of a grid file, which `{0} new` writes; there are no agents"
_NO_ACCOUNT = "there is no account and no server: runs are recorded in one file, runs.db"

_OTHER_COMMANDS = {
    **dict.fromkeys(("sweep", "agent", "train", "launch", "start", "launch-agent"), _RUN_GRID),
    **dict.fromkeys(("board", "ui", "server", "dashboard", "web", "view", "serve"), _SHOW_RUNS),
    **dict.fromkeys(("login", "logout", "online", "offline", "project", "beta"), _NO_ACCOUNT),
    **dict.fromkeys(
        ("sync", "upload", "push", "download"),
        "nothing is uploaded: `{0} pull HOST:PATH` mirrors a database of another machine, `{0} pack` writes runs to a "
        "file, and `{0} import PATH` takes the runs of other programs",
    ),
    "resume": "`{0} run GRID` resumes the unfinished runs of a grid; `{0} retry RUN` queues a run that has ended",
    "merge": "`{0} import OTHER.db` adds the runs of another database",
    "init": "`{0} new` writes a first grid; a database is made by the first run",
    **dict.fromkeys(("list", "status", "runs", "search", "query"), "`{0} ls` lists the runs"),
    **dict.fromkeys(("delete", "remove"), "`{0} rm RUN` deletes runs"),
    **dict.fromkeys(("log", "logs", "cat"), "`{0} show RUN --all` prints the output of a run"),
    **dict.fromkeys(("kill", "cancel", "pause"), "`{0} stop RUN` asks a run to stop at the end of its epoch"),
    **dict.fromkeys(("report", "summary"), "`{0} why METRIC --html FILE` writes a report"),
    **dict.fromkeys(
        ("diff", "groupby"), "`{0} compare RUN RUN` shows differences, `{0} why METRIC` the effects of keys"
    ),
    **dict.fromkeys(("artifact", "artifacts"), "`{0} show RUN` lists the files of a run"),
    **dict.fromkeys(("check", "verify", "fsck", "repair"), "`{0} doctor` checks the database"),
}
"""Commands of other tools, and what there is in their place; `{0}` is the start of a command."""

_GROUPING = (
    "`{0} why METRIC` compares the values of each key, `{0} plot METRIC --group KEY` draws the mean of each, and `b` "
    "in `{0} tui` groups the runs"
)
_OTHER_OPTIONS = {
    **dict.fromkeys((("ls", name) for name in ("--group", "--group-by", "--groupby", "--by")), _GROUPING),
    **dict.fromkeys(
        ((command, name) for command in ("show", "compare") for name in ("--filter", "--where")),
        "name the runs; `{0} ls FILTER` lists their keys",
    ),
    ("ls", "--all"): "all runs are listed but archived ones: the filter archived=true,false",
    ("ls", "--where"): "a filter needs no option: `{0} ls 'lr>0.1'`",
}
"""Options of other tools, by command, and what there is in their place."""


def explain_unknown_command(word: str, db: Path) -> str | None:
    """Return what does here what a command of another tool does, None if it is unknown."""
    answer = _OTHER_COMMANDS.get(word.lower())
    return None if answer is None else answer.format(database_command(db))


def explain_unknown_option(error: click.NoSuchOption) -> str | None:
    """Return what there is in place of an option, None if it is unknown."""
    context = error.ctx
    if context is None or context.parent is None:
        return None
    answer = _OTHER_OPTIONS.get((context.info_name or "", error.option_name))
    return None if answer is None else answer.format(database_command(context.parent.params["db"]))


def filter_of_experiments(reader: Reader, words: Sequence[str]) -> str | None:
    """Return the filter for the runs of experiments, None if not every word is the name of one."""
    from labbench.filters.completion import quote_word

    experiments = reader.experiments()
    return f"experiment={','.join(map(quote_word, words))}" if all(word in experiments for word in words) else None


def explain_missing_argument(error: click.MissingParameter) -> str:
    """Return what there is in place of a missing run, metric or grid file; the error's own message for others."""
    name, context = "" if error.param is None else error.param.name, error.ctx
    if name == "grids":
        from labbench.grid.source import list_grid_files

        hint = list_grid_files(Path())
        return hint[0].upper() + hint[1:]
    if name not in ("metric", "runs") or context is None or context.parent is None:
        return error.message
    from labbench.metrics import quality_metrics
    from labbench.store.reader import Reader

    db: Path = context.params.get("db", context.parent.params["db"])
    if name == "runs":
        return f"`{database_command(db)} ls` lists the runs"
    try:
        with Reader(db) as reader:
            metrics = [*map(clean, quality_metrics(reader.metrics()))]
    except LabbenchError:  # there is no database yet
        metrics = []
    listed = ", ".join(metrics[:_MAX_METRICS]) + ", ..." * (len(metrics) > _MAX_METRICS)
    return f"Recorded are: {listed}" if metrics else error.message
