"""The keys of charts: those that work wherever charts are on the screen, and those for when they have the keyboard."""

from __future__ import annotations

from textual.binding import Binding

_SCREEN_KEYS = (
    # key, action, what the key line says, what help and palette say, whether the key line says it
    ("y", "log", "log y", "Logarithmic or linear y axis", True),
    ("X", "log_x", "log x", "Logarithmic or linear x axis", False),
    ("s", "smooth(1)", "smooth", "Smooth the curves more, from strong back to none", True),
    ("S", "smooth(-1)", "smooth less", "Smooth the curves less", False),
    ("number_sign", "smooth_by", "smooth by", "Smooth by a number: ema, running mean or bell", False),
    ("x", "axis", "x axis", "x axis by step, epoch, time or clock", True),
    ("plus", "zoom(0.5)", "zoom", "Zoom in, around the crosshair", True),
    ("minus", "zoom(2)", "zoom out", "Zoom out", False),
    ("equals_sign", "fit", "fit", "Show everything again", False),
    ("left_square_bracket", "border('left')", "from here", "Begin the window at the crosshair", False),
    ("right_square_bracket", "border('right')", "to here", "End the window at the crosshair", False),
    ("h", "cross(-1)", "crosshair", "Crosshair to the left: reads every run", True),
    ("l", "cross(1)", "crosshair right", "Crosshair to the right", False),
    ("H", "cross(-10)", "far left", "Crosshair ten steps to the left", False),
    ("L", "cross(10)", "far right", "Crosshair ten steps to the right", False),
    ("F", "follow", "follow", "Stay at the newest steps", False),
    ("B", "display", "bands", "Runs, groups over seeds with bands, or density", False),
    ("i", "spread", "band", "Band of a group: 95 % interval, deviation, range", False),
    ("greater_than_sign", "layout(1)", "more charts", "More charts on the page, up to 4 x 4", True),
    ("less_than_sign", "layout(-1)", "fewer charts", "Fewer charts on the page", False),
)
_PANEL_KEYS = (
    ("w", "best(1)", "next best", "Crosshair to the next run's best value", True),
    ("b", "best(-1)", "best before", "Crosshair to the best value before", False),
    ("left", "pan(-0.25)", "move", "Move the window to the left", True),
    ("right", "pan(0.25)", "move right", "Move the window to the right", False),
    ("up", "lift(0.2)", "move up", "Move the window up", False),
    ("down", "lift(-0.2)", "move down", "Move the window down", False),
    ("shift+up", "stretch(0.5)", "taller", "Zoom in on the y axis", False),
    ("shift+down", "stretch(2)", "flatter", "Zoom out on the y axis", False),
    ("z", "box", "box", "Box: begin at the crosshair, z again zooms to it", True),
    ("enter", "single", "one chart", "One chart, or the page of charts again", True),
    ("n", "choose(1)", "next chart", "Next chart", False),
    ("N", "choose(-1)", "chart before", "Chart before", False),
    ("pagedown,ctrl+f", "page(1)", "next page", "Next page of charts", False),
    ("pageup,ctrl+b", "page(-1)", "page before", "Page of charts before", False),
    ("j", "run(1)", "next run", "Highlight the next run", False),
    ("k", "run(-1)", "run before", "Highlight the run before", False),
)
_KEY_DISPLAYS = {
    "number_sign": "#", "plus": "+", "minus": "-", "equals_sign": "=", "left_square_bracket": "[",
    "right_square_bracket": "]", "greater_than_sign": ">", "less_than_sign": "<", "enter": "⏎",
}  # fmt: skip


def _make_binding(key: str, action: str, said: str, tooltip: str, show: bool) -> Binding:
    return Binding(key, action, said, show=show, tooltip=tooltip, key_display=_KEY_DISPLAYS.get(key))


def _screen_action(action: str) -> str:
    """`smooth(1)` as an action of the screen: `chart('smooth', 1)`."""
    name, _, arguments = action.rstrip(")").partition("(")
    return f"chart({', '.join(filter(None, [repr(name), arguments]))})"


CHART_BINDINGS = [
    _make_binding(key, _screen_action(action), said, tooltip, show) for key, action, said, tooltip, show in _SCREEN_KEYS
]
"""For a screen with charts, whose `action_chart(name, *arguments)` calls `ChartPanel.do`."""

PANEL_BINDINGS = [_make_binding(*row) for row in _PANEL_KEYS]
"""For the charts themselves, while they have the keyboard."""
