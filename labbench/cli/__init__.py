"""Command line: each command is one call into the library.

Results go to stdout, messages to stderr.

Exit status: 0 done (a diverged run is a result), 1 a run failed or an operation could not be completed, 2 wrong usage
or invalid input, 130 interrupted. Only click is imported at module level, which keeps `labbench --help` fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from labbench import __version__
from labbench.cli import edit, export, plot, run, share, tasks, tui, why
from labbench.cli.database import backup, doctor, experiments, vacuum
from labbench.cli.help import examples, help_
from labbench.cli.importing.commands import import_
from labbench.cli.options import database
from labbench.cli.output import limited_stream
from labbench.cli.setup import completion, new, welcome
from labbench.cli.showing import ls, show
from labbench.cli.unknown_words import explain_missing_argument, explain_unknown_command, explain_unknown_option
from labbench.errors import GridError, InputError, LabbenchError
from labbench.text import clean

UNUSABLE_PATH_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors of a path given by the user, which are invalid input (exit status 2)."""


class CommandGroup(click.Group):
    """Group of all commands, which turns errors into messages and exit statuses."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line, or answer a shell that asks for completions."""
        if completion.COMPLETE_VARIABLE in os.environ:
            completion.register_shells()
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> object:
        """Run the command. Raises CommandError, which click prints, for an error of labbench or of a file."""
        _open_closed_streams()
        sys.stdout, sys.stderr = limited_stream(sys.stdout), limited_stream(sys.stderr)
        try:
            result = super().invoke(context)
            sys.stdout.flush()  # raise the error of a full disk here, where it becomes a message
            return result
        except click.MissingParameter as error:
            hint = explain_missing_argument(error)
            raise click.MissingParameter(hint, error.ctx, error.param, error.param_hint, error.param_type) from None
        except click.NoSuchOption as error:
            answer = explain_unknown_option(error)
            raise (
                click.UsageError(f"No such option '{error.option_name}': {answer}", error.ctx) if answer else error
            ) from None
        except BrokenPipeError:
            raise  # the reader of the pipe has closed it: click exits quietly
        except OSError as error:
            message = f"{error.filename or 'output'}: {error.strerror or error}"
            raise (InputCommandError if isinstance(error, UNUSABLE_PATH_ERRORS) else CommandError)(
                LabbenchError(message)
            ) from error
        except (MemoryError, ImportError) as error:
            if isinstance(error, ImportError) and "failed to map" not in str(error):
                raise
            raise CommandError(LabbenchError("out of memory: close other programs, or select fewer runs")) from error
        except LabbenchError as error:
            raise (InputCommandError if isinstance(error, InputError) else CommandError)(error) from error
        except KeyboardInterrupt:
            context.exit(130)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word. Raises UsageError, with the answer to a command of another tool."""
        if words[0] not in self.commands and (answer := explain_unknown_command(words[0], context.params["db"])):
            raise click.UsageError(f"No such command '{words[0]}': {answer}", context)
        return super().resolve_command(context, words)

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands in the order in which a newcomer needs them."""
        return list(self.commands)


def _open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that are closed, as under cron or after `>&-`.

    Else the next file to be opened, such as the database, would take the number of stdout, and whatever is printed
    would be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  # open until the process ends
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


class CommandError(click.ClickException):
    """Message of a LabbenchError, printed to stderr; exit status 1."""

    def __init__(self, error: LabbenchError) -> None:
        lines = "\n".join(clean(line) for line in str(error).splitlines())
        super().__init__(lines if isinstance(error, GridError) else f"labbench: {lines}")

    def show(self, file: object = None) -> None:
        click.echo(self.message, err=True)


class InputCommandError(CommandError):
    """Message of wrong usage or invalid input, after which nothing was changed; exit status 2."""

    exit_code = 2


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "labbench demo",
        "labbench new --task digits",
        "labbench run grid.toml",
        "labbench ls 'optimizer=adam lr<=0.01'",
        "labbench help filters",
    ),
)
@click.version_option(__version__, prog_name="labbench")
@database
@click.pass_context
def main(context: click.Context, db: Path) -> None:
    """Train grids of PyTorch experiments and explore them in the terminal.

    Without a command, open the terminal interface; with stdout on a pipe, print the table of runs. Without a database,
    offer what to begin with.
    """
    if context.invoked_subcommand is None:
        if not db.exists():
            welcome.begin(context, db)
        elif sys.stdout.isatty():
            context.invoke(tui.tui, db=db)
        else:
            context.invoke(ls.ls, db=db)


for command in (
    new.new,
    run.run,
    tui.tui,
    ls.ls,
    experiments,
    show.show,
    show.compare,
    why.why,
    plot.plot,
    export.export,
    import_,
    share.pack,
    share.pull,
    share.serve_changes,
    edit.tag,
    edit.note,
    edit.define,
    edit.rename,
    edit.archive,
    edit.rm,
    edit.stop,
    edit.retry,
    doctor,
    backup,
    vacuum,
    tasks.tasks,
    tui.demo,
    completion.completion,
    help_,
):
    main.add_command(command)
