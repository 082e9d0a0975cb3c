"""Input of one line that joins the lines of a paste."""

from __future__ import annotations

import re

from textual import events
from textual.widgets import Input

_LINE_BREAK = re.compile(r"[ \t]*[\r\n]+\s*")


class LineInput(Input):
    """Input whose pasted lines are joined by spaces; Textual's own keeps only the first."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        words = _LINE_BREAK.sub(" ", event.text.strip("\r\n"))
        if words:
            self.replace(words, *self.selection)
