"""`labbench help`, and the texts that `--help` prints below a command's options."""

from __future__ import annotations

from collections.abc import Sequence

import click

from labbench.errors import InputError, did_you_mean

FILTER_HELP = """
FILTER selects runs by terms such as 'lr<=0.01' or 'best(val/loss)<0.2'; several terms must all hold. Quote the terms,
since < and > are special to the shell. The whole language: labbench help filters
"""
"""Paragraph on FILTER, for the help of every command that takes one."""

FILTERS = """\
A filter selects runs by configuration, metrics, status, name and tags.

  labbench ls 'optimizer=adam lr<=0.01 (tag=best or best(val/loss)<0.2)'

Terms
  A term is KEY OPERATOR VALUE. Terms separated by a space, or by `and`, must
  all hold. `or` binds less tightly, `not` more tightly; parentheses group.
  A comparison with a key that the run lacks is false.

  lr<=0.01 lr>0.0001       both terms hold
  optimizer=sgd,adam       either value (with = != ~ only)
  name~conv                the name contains the text, ignoring case
  not dropout=0            the term is false, or the run lacks the key
  dropout!=0               the run has the key, with another value
  hidden=[128,64]          this list
  activation="leaky relu"  quoted text; quotes and backslashes as in a shell
  clip=none                no value
  val/loss<0.3             last value of a metric
  best(val/loss)<0.2       function of a metric
  status=finished,diverged
  started>=2026-11-30      this day or later
  tag=best                 one of the tags; tag=none: without tags

Operators
  =  !=  <  <=  >  >=  ~ (contains)

Values
  numbers, nan, inf, -inf, true, false, none, lists, text

Keys, looked up in this order
  status                   queued, running, finished, diverged, failed,
                           stopped, pruned or lost
  name, key, experiment    of the run
  tag                      any tag of the run
  started                  date or time, ISO 8601
  archived                 true or false; archived runs are hidden otherwise
  older_code               true or false; means leave these runs out otherwise
  a configuration key      nested tables are joined with a point: model.width
  a metric                 its last value

Functions of a metric M
  last(M)                  last value, as M alone
  smooth(M)                mean of the last 20 points
  best(M)                  minimum or maximum, by the metric's goal
  min(M), max(M)           smallest and largest finite value
  first(M)                 first value
  n(M)                     number of points

labbench run --only FILTER takes configuration keys only."""
"""Text of `labbench help filters`: docs/reference/filters.md in brief."""

TOPICS = {"filters": FILTERS}


def examples(*commands: str) -> str:
    """Return the paragraph of example commands at the end of a help text."""
    return "\n".join(["\b", "Example:" if len(commands) == 1 else "Examples:", *(f"  {line}" for line in commands), ""])


@click.command(
    "help",
    epilog=examples("labbench help filters", "labbench help run", "labbench help import csv"),
)
@click.argument("topic", nargs=-1, metavar="[TOPIC]...")
@click.pass_context
def help_(context: click.Context, topic: Sequence[str]) -> None:
    """Show the help of a command, or of a topic: filters.

    Without TOPIC, the help of labbench itself.
    \f
    Raises:
        InputError: There is no such topic.
    """
    assert context.parent is not None, "help is a command of the group"
    if len(topic) == 1 and topic[0] in TOPICS:
        click.echo(TOPICS[topic[0]])
        return
    parent, topics = context.parent, tuple(TOPICS) if len(topic) == 1 else ()
    for index, word in enumerate(topic):
        commands = parent.command.commands if isinstance(parent.command, click.Group) else {}
        if word not in commands:
            words, choices = " ".join(topic[: index + 1]), (*topics, *commands)
            hint = (
                f": choose from {', '.join(choices)}"
                if choices
                else f"; `{' '.join(topic[:index])}` has no subcommands"
            )
            raise InputError(f"no help on `{words}`{did_you_mean(word, choices) or hint}")
        parent, topics = click.Context(commands[word], info_name=word, parent=parent), ()
    click.echo(parent.get_help())
