"""Export of a screen to a file: its rows or curves as CSV, the screen or its charts as text or SVG picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from rich.console import Console
from rich.segment import Segments
from textual.screen import Screen
from textual.widget import Widget

from labbench import text
from labbench.files import expand_home, write_atomically
from labbench.tui.clipboard import TableRows, format_csv, new_file_path
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.prompt import Prompt

RowReader: TypeAlias = Callable[[Callable[[], TableRows], Callable[[TableRows], None]], object]
"""Function that reads rows in a thread and passes them to a callback."""


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """File format in which a screen can be saved."""

    label: str
    stem: str
    """End of the suggested file name."""
    extension: str
    create: Callable[[Callable[[str], None]], object]
    """Function that passes the content of the file to a callback."""


def csv_format(
    label: str, stem: str, read_rows: RowReader, prepare: Callable[[], Callable[[], TableRows]]
) -> ExportFormat:
    """Return the format of rows as CSV; `prepare` returns a function that reads them in a thread."""
    return ExportFormat(label, stem, "csv", lambda use: read_rows(prepare(), lambda rows: use(format_csv(rows))))


class PicturedWidget(Protocol):
    """Widget that draws pictures on terminals that show images."""

    is_picture_enabled: bool

    def enable_picture(self, enabled: bool) -> None:
        """Draw pictures where possible, or text always."""


@contextmanager
def drawn_as_text(screen: Screen[Any]) -> Iterator[None]:
    """Draw charts and images of a screen as text for the duration of an export, also on terminals that show images."""
    widgets = [cast("PicturedWidget", widget) for widget in screen.query("Chart, PortraitView")]
    pictured = [widget for widget in widgets if widget.is_picture_enabled]
    for widget in pictured:
        widget.enable_picture(False)
    yield
    for widget in pictured:
        widget.enable_picture(True)


def text_of(screen: Screen[Any]) -> str:
    """Return the content of a screen as text."""
    with drawn_as_text(screen):
        strips = screen._compositor.render_strips()  # Textual itself exports only pictures
        return "".join(f"{strip.text.rstrip()}\n" for strip in strips)


def picture_of(widget: Widget) -> str:
    """Return the content of a widget as an SVG picture."""
    region = widget.region
    with drawn_as_text(widget.screen):
        strips = widget.screen._compositor.render_strips()[region.y : region.bottom]
    console = Console(
        file=io.StringIO(), width=region.width, height=region.height, force_terminal=True, color_system="truecolor",
        record=True, legacy_windows=False,
    )  # fmt: skip
    for strip in strips:
        console.print(Segments(strip.crop(region.x, region.right)._segments, new_lines=True), end="")
    return console.export_svg(title="labbench")


def screen_formats(screen: Screen[Any], name: str, rows: ExportFormat) -> list[ExportFormat]:
    """Return the formats of every screen: its rows, its text and its picture; file names end with `name`."""

    def picture() -> str:
        return screen.app.export_screenshot(title="labbench", simplify=True)

    return [
        rows,
        ExportFormat("the screen as text", name, "txt", lambda use: use(text_of(screen))),
        ExportFormat("the screen as an SVG picture", name, "svg", lambda use: use(picture())),
    ]


class FileExport:
    """Dialogs that ask for the format and the name of a file, and its writing."""

    def __init__(self, screen: Screen[Any], stem: str, show_error: Callable[[str], None]) -> None:
        """Prepare the export of a screen to a file whose suggested name begins with `stem`."""
        self._screen, self._stem, self._show_error = screen, stem, show_error

    def begin(self, formats: list[ExportFormat]) -> None:
        """Ask for one of the formats, then for the name of the file, and write it."""
        choices = [(str(index), item.label) for index, item in enumerate(formats)]

        def ask_file(index: str | None) -> None:
            if index is not None:
                self._ask_file(formats[int(index)])

        self._screen.app.push_screen(Picker("save", choices), ask_file)

    def _ask_file(self, chosen: ExportFormat) -> None:
        name = f"{self._stem}-{chosen.stem}.{chosen.extension}"
        prompt = Prompt("save as", value=name, hint="existing files are not overwritten", check=new_file_path)

        def save(file: str | None) -> None:
            if file:
                chosen.create(lambda content: self._write(Path(file), content))

        self._screen.app.push_screen(prompt, save)

    def _write(self, file: Path, content: str) -> None:
        try:
            with write_atomically(expand_home(file)) as output:
                output.write(content.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._show_error(text.clean(f"{file} cannot be written: {error.strerror}"))
        else:
            self._screen.notify(f"saved: {text.clean(str(file))}", markup=False)
