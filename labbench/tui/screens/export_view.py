"""Export of a view: its rows as CSV, or the screen as text or SVG picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from textual.screen import Screen

from labbench import text
from labbench.files import expand_home, write_atomically
from labbench.tui.clipboard import TableRows, format_csv, new_file_path
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.prompt import Prompt

ExportKind: TypeAlias = Literal["csv", "txt", "svg"]
_KINDS: list[tuple[ExportKind, str]] = [
    ("csv", "the view as CSV"),
    ("txt", "the screen as text"),
    ("svg", "the screen as an SVG picture"),
]


class ViewExport:
    """Dialogs that ask for a kind and a name of the file, and its writing."""

    def __init__(
        self,
        screen: Screen[Any],
        stem: str,
        read_rows: Callable[[Callable[[TableRows], None]], object],
        show_error: Callable[[str], None],
    ) -> None:
        """Prepare the export of a screen to a file with the suggested name `stem`.

        `read_rows` reads the view in a thread and passes its rows to a callback.
        """
        self._screen, self._stem, self._read_rows, self._show_error = screen, stem, read_rows, show_error

    def begin(self) -> None:
        """Ask for the kind of file, then for its name, and write it."""
        self._screen.app.push_screen(Picker("save", _KINDS), self._ask_file)

    def _ask_file(self, kind: str | None) -> None:
        if kind is None:
            return
        hint = "existing files are not overwritten"
        prompt = Prompt("save as", value=f"{self._stem}.{kind}", hint=hint, check=new_file_path)
        self._screen.app.push_screen(prompt, lambda file: self._save(Path(file), kind) if file else None)

    def _save(self, file: Path, kind: str) -> None:
        if kind == "csv":
            self._read_rows(lambda rows: self._write(file, format_csv(rows)))
        elif kind == "svg":
            self._write(file, self._screen.app.export_screenshot(title="labbench", simplify=True))
        else:  # Textual itself exports only pictures
            strips = self._screen._compositor.render_strips()
            self._write(file, "".join(f"{strip.text.rstrip()}\n" for strip in strips))

    def _write(self, file: Path, content: str) -> None:
        try:
            with write_atomically(expand_home(file)) as output:
                output.write(content.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._show_error(text.clean(f"{file} cannot be written: {error.strerror}"))
        else:
            self._screen.notify(f"saved: {text.clean(str(file))}", markup=False)
