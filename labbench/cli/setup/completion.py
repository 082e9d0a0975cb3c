"""`labbench completion`, and the names that are completed: runs, metrics, keys, experiments, filters and tasks.

The names come from the database of the command line, which is only read. Where it cannot be read, nothing is completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from labbench.cli.help import examples
from labbench.errors import LabbenchError
from labbench.files import default_database

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from labbench.store.reader import Reader

Names: TypeAlias = Iterable["str | tuple[str, str]"]
"""Names, or names with descriptions that some shells show."""

COMPLETE_VARIABLE = "_LABBENCH_COMPLETE"
"""Environment variable with which the shell asks for completions; click names it."""
_MAX_RUNS = 2_000
"""Number of runs, the newest ones, whose names are completed."""


def complete_names(read: Callable[[Reader, str], Names]) -> Callable[..., list[CompletionItem]]:
    """Return a function for click's `shell_complete` that selects the names from `read` with the typed prefix."""

    def complete(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
        from labbench.store.reader import Reader

        try:
            with Reader(_database(context)) as reader:
                return _items(read(reader, typed), typed)
        except (LabbenchError, OSError):
            return []

    return complete


def _database(context: click.Context) -> Path:
    paths = (parent.params.get("db") for parent in (context, context.parent) if parent is not None)
    return next((path for path in paths if isinstance(path, Path)), None) or default_database()


def _items(names: Names, typed: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    pairs = dict((name, "") if isinstance(name, str) else name for name in names)
    return [CompletionItem(name, help=help or None) for name, help in pairs.items() if _is_offered(name, typed)]


def _is_offered(name: str, typed: str) -> bool:
    return name.startswith(typed) and name.isprintable()


def _read_runs(reader: Reader, typed: str) -> Names:
    runs = reader.runs("archived=true,false", sort="created", descending=True, limit=_MAX_RUNS, summaries=False)
    yield from ((run.name, run.shown_status) for run in runs)
    yield from ((run.key, run.name) for run in runs)


def _read_metrics(reader: Reader, typed: str) -> Names:
    return reader.metrics("archived=true,false")


def _read_keys(reader: Reader, typed: str) -> Names:
    return reader.config_keys()


def _read_columns(reader: Reader, typed: str) -> Names:
    """Yield the keys and metrics of a list such as `lr,val/loss`, each with what is typed before its last item."""
    before, comma, _ = typed.rpartition(",")
    yield from (f"{before}{comma}{name}" for name in (*reader.config_keys(), *reader.metrics()))


def _read_filter_words(reader: Reader, typed: str) -> Names:
    from labbench.filters.completion import complete
    from labbench.tui.vocabulary import read_vocabulary

    start, words = complete(typed, read_vocabulary(reader.path))
    yield from (typed[:start] + word for word in words)


complete_runs = complete_names(_read_runs)
complete_metrics = complete_names(_read_metrics)
complete_keys = complete_names(_read_keys)
complete_columns = complete_names(_read_columns)
complete_experiments = complete_names(lambda reader, _: reader.experiments("archived=true,false"))
complete_filters = complete_names(_read_filter_words)


def complete_tasks(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the built-in tasks that start as typed, for click's `shell_complete`."""
    from labbench.params.builtin import BUILTIN

    return _items(BUILTIN, typed)


def register_shells() -> None:
    """Replace click's completion classes."""
    from click.shell_completion import add_completion_class

    from labbench.cli.setup import shells

    for completion_class in (shells.QuotingBashComplete, shells.EscapingZshComplete, shells.CommaFishComplete):
        add_completion_class(completion_class)


@click.command(epilog=examples("labbench completion bash", "labbench completion fish"))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes words in a shell.

    Completes commands, options, runs, metrics, configuration keys, experiments, filters and tasks; the names are those
    of the default database, or of --db. In bash and zsh, evaluate the script at the start of the shell:
    eval "$(labbench completion bash)" in ~/.bashrc. For fish, write it to ~/.config/fish/completions/labbench.fish.
    """
    from click.shell_completion import get_completion_class

    register_shells()
    completion_class = get_completion_class(shell)
    assert completion_class is not None, "click completes in these shells"
    assert context.parent is not None, "completion is a command of the group"
    click.echo(completion_class(context.parent.command, {}, "labbench", COMPLETE_VARIABLE).source())
