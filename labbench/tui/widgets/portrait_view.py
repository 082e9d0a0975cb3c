"""View of the pictures of a run's network and of its logged images, drawn for the available width."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from labbench.ascii_text import needs_ascii
from labbench.portraits.file import Portrait
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.portraits.logged_images import LoggedImage
    from labbench.portraits.pixels import Colour, PaintMode, PlaceImage, StyledLine
    from labbench.tui.graphics.placed_images import PlacedImages


class PortraitView(ScrollView, can_focus=True):
    """Scrollable portrait and images, or a message that explains their absence."""

    DEFAULT_CSS = """
    PortraitView { display: none; width: 100%; height: 100%; border: round $border; border-title-color: $foreground;
               border-subtitle-color: $secondary; padding: 0 1; scrollbar-size-vertical: 1;
               scrollbar-size-horizontal: 0; }
    PortraitView:focus { border: round $primary 60%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_by(1)", show=False, tooltip="Scroll the pictures down"),
        Binding("k,up", "scroll_by(-1)", show=False, tooltip="Scroll the pictures up"),
        Binding("g", "scroll_home", show=False, tooltip="First picture"),
        Binding("G", "scroll_end", show=False, tooltip="Last picture"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._portrait: Portrait | str = ""
        self._images: Sequence[LoggedImage] = ()
        self._strips: list[Strip] = []
        self._placed: PlacedImages | None = None
        """Pictures of the images, on terminals that show some."""
        self.is_picture_enabled = True

    def on_mount(self) -> None:
        self.border_title = Content("pictures")
        output = getattr(self.app, "pictures", None)
        if output is not None:
            from labbench.tui.graphics.placed_images import PlacedImages  # on terminals that show images only

            self._placed = PlacedImages(output)

    def on_unmount(self) -> None:
        self._remove_pictures()

    def on_hide(self) -> None:
        self._remove_pictures()

    def _remove_pictures(self) -> None:
        if self._placed is not None:
            with self._placed.drawing():
                pass

    def enable_picture(self, enabled: bool) -> None:
        """Show images as pictures if the terminal shows some, or always as text."""
        self.is_picture_enabled = enabled
        self._draw()

    def show(self, portrait: Portrait | str, images: Sequence[LoggedImage] = ()) -> None:
        """Draw images and a portrait; a message instead of the portrait is shown if there are no images."""
        self._portrait, self._images = portrait, images
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_show(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if not self.display or width <= 0:  # drawn later, in on_show
            return
        if self._placed is not None and self.is_picture_enabled:
            with self._placed.drawing():
                lines = self._lines(width, self._placed.place)
        else:
            lines = self._lines(width, None)
        self._strips = [_make_strip(line) for line in lines]
        if isinstance(self._portrait, str) and not lines:
            self._strips = [Strip([Segment(part, self.rich_style)]) for part in wrap(clean(self._portrait), width)]
        epoch = "" if isinstance(self._portrait, str) else f"after epoch {self._portrait.epoch}"
        self.border_subtitle = Content(epoch)
        self.virtual_size = Size(width, len(self._strips))
        self.refresh()

    def _lines(self, width: int, place: PlaceImage | None) -> list[StyledLine]:
        """Return images and portrait as lines of at most `width` cells; `place` shows them as pictures."""
        lines: list[StyledLine] = []
        if self._images:
            from labbench.portraits.logged_images import draw_images  # imports numpy: not before the first paint

            lines += draw_images(self._images, width, self._paint_mode(), place)
        if not isinstance(self._portrait, str):
            from labbench.portraits.draw import draw_portrait

            lines += [*([[]] if lines else []), *draw_portrait(self._portrait, width, self._paint_mode(), place)]
        return lines

    def _paint_mode(self) -> PaintMode:
        if needs_ascii(os.environ):
            return "ascii"
        return "shades" if self.app.no_color else "colour"

    def action_scroll_by(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, force=True, immediate=True)

    def action_scroll_home(self) -> None:
        self.scroll_home(animate=False, force=True, immediate=True)

    def action_scroll_end(self) -> None:
        self.scroll_end(animate=False, force=True, immediate=True)

    def render_line(self, y: int) -> Strip:
        width, row = self.scrollable_content_region.width, self.scroll_offset.y + y
        if row >= len(self._strips):
            return Strip.blank(width, self.rich_style)
        return self._strips[row].apply_style(self.rich_style).crop_extend(0, width, self.rich_style)


def _make_strip(line: StyledLine) -> Strip:
    return Strip([Segment(text, _style(ink, ground, bold)) for text, ink, ground, bold in line])


@lru_cache(4096)
def _style(ink: Colour | None, ground: Colour | None, bold: bool) -> Style:
    return Style(color=_rich_color(ink), bgcolor=_rich_color(ground), bold=bold or None)


def _rich_color(colour: Colour | None) -> Color | None:
    return None if colour is None else Color.from_rgb(*colour)
