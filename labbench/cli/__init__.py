"""The command line: each command is one call into the library, results on stdout, talk on stderr.

Exit status: 0 done (a diverged run is a result), 1 a run failed or something could not be done, 2 wrong usage or bad
input, 130 interrupted. Only click is imported up here, so that `labbench --help` answers at once.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click

from labbench import __version__
from labbench.cli import edit, export, run, runs, tasks, tui, why
from labbench.cli.database import backup, doctor, import_, vacuum
from labbench.cli.options import database
from labbench.errors import GridError, InputError, LabbenchError
from labbench.text import clean

UNUSABLE_PATH_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""A path that cannot be used as it was given."""


class CommandGroup(click.Group):
    """The group of all commands; the one place where an error becomes a message and an exit status."""

    def invoke(self, context: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 shows what it can
        try:
            result = super().invoke(context)
            sys.stdout.flush()  # here a full disk can still be answered
            return result
        except BrokenPipeError:
            raise  # whoever read us has read enough: click knows what to do
        except OSError as error:
            what = f"{error.filename or 'output'}: {error.strerror or error}"
            raise (InputCommandError if isinstance(error, UNUSABLE_PATH_ERRORS) else CommandError)(
                LabbenchError(what)
            ) from error
        except LabbenchError as error:
            raise (InputCommandError if isinstance(error, InputError) else CommandError)(error) from error
        except KeyboardInterrupt:
            context.exit(130)

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(self.commands)


class CommandError(click.ClickException):
    """A LabbenchError on its way to stderr."""

    def __init__(self, error: LabbenchError) -> None:
        lines = "\n".join(clean(line) for line in str(error).splitlines())
        super().__init__(lines if isinstance(error, GridError) else f"labbench: {lines}")

    def show(self, file: object = None) -> None:
        click.echo(self.message, err=True)


class InputCommandError(CommandError):
    """Wrong usage or bad input: nothing was changed."""

    exit_code = 2


@click.group(cls=CommandGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labbench")
@database
@click.pass_context
def main(context: click.Context, db: Path) -> None:
    """Train grids of PyTorch experiments, and understand them in the terminal.

    Without a command: the TUI (on a pipe: the table of runs).
    """
    if context.invoked_subcommand is None:
        if sys.stdout.isatty():
            context.invoke(tui.tui, db=db)
        else:
            context.invoke(runs.ls, db=db)


for command in (
    run.run,
    tui.tui,
    runs.ls,
    runs.show,
    runs.compare,
    why.why,
    runs.plot,
    export.export,
    import_,
    edit.tag,
    edit.note,
    edit.archive,
    edit.rm,
    edit.stop,
    edit.retry,
    doctor,
    backup,
    vacuum,
    tasks.tasks,
    tui.demo,
):
    main.add_command(command)
