"""Completion in bash, zsh and fish, where it differs from click's.

bash takes words with spaces and with `=` for several words; zsh may not have loaded its completion system, and removes
backslashes; click's script for fish cuts names at commas.
"""

from __future__ import annotations

import os
import re

from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, split_arg_string

_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_WORD_BREAKS = "=:"
"""Characters at which bash begins a new word; it replaces what follows the last one."""

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response
    response=$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        local type="${completion%%%%,*}" value="${completion#*,}"
        case "$type" in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            *) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


_ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
"""

_FISH = """\
function %(complete_func)s
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (commandline -ct | string collect)
    for completion in (%(complete_var)s=fish_complete %(prog_name)s)
        set -l metadata (string split -m 1 , -- $completion)
        switch $metadata[1]
            case dir
                __fish_complete_directories $metadata[2]
            case file
                __fish_complete_path $metadata[2]
            case plain
                printf '%%s\\n' $metadata[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class QuotingBashComplete(BashComplete):
    """Completion for bash of words with spaces and with `=`, which bash takes for several words."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words and the unfinished one, from the line up to the cursor."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        is_unfinished = len(split_arg_string(f"{line}x")) == len(words)
        return (words[1:-1], words[-1]) if is_unfinished else (words[1:], "")

    def format_completion(self, item: CompletionItem) -> str:
        """Return the type and what bash inserts in place of the part of the word that it takes for a word."""
        line = os.environ.get("COMP_LINE", "")
        _, typed = self.get_completion_args()
        value = str(item.value)
        if _has_open_quote(line):
            return f"{item.type},{value}"
        skipped = max((typed.rfind(mark) for mark in _WORD_BREAKS), default=-1) + 1
        return f"{item.type}," + _SPECIAL.sub(lambda match: f"\\{match.group()}", value[skipped:])


def _has_open_quote(line: str) -> bool:
    """Return True if the line ends within quotes."""
    quote = ""
    escaped = False
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
    return bool(quote)


class EscapingZshComplete(ZshComplete):
    """Completion for zsh that starts its completion system if needed, and of names with backslashes."""

    source_template = ZshComplete.source_template.replace("\n", f"\n{_ZSH}", 1)

    def format_completion(self, item: CompletionItem) -> str:
        """Return the type, the value and its description, or `_`, in a line each."""
        if item.help:  # the function of zsh for values with descriptions removes backslashes
            item = CompletionItem(item.value.replace("\\", "\\\\"), item.type, item.help)
        return super().format_completion(item)


class CommaFishComplete(FishComplete):
    """Completion for fish of names with commas, which click's script cuts, and of short options."""

    source_template = _FISH
