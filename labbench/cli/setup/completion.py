"""`labbench completion`: completion of commands, options and names in bash, zsh and fish."""

from __future__ import annotations

import click

from labbench.cli.help import examples

COMPLETE_VARIABLE = "_LABBENCH_COMPLETE"
"""Environment variable with which the shell asks for completions; click names it."""


def register_shells() -> None:
    """Replace click's completion for bash."""
    from click.shell_completion import add_completion_class

    from labbench.cli.setup.bash_completion import QuotingBashComplete

    add_completion_class(QuotingBashComplete)


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
