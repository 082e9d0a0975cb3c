"""Key bindings of charts: of any screen with charts, and of charts that have the keyboard focus."""

from __future__ import annotations

from textual.binding import Binding

_SCREEN_KEYS = (
    # key, action, text in the key bar, text in help and palette, shown in the key bar
    ("y", "log", "log y", "Logarithmic or linear y axis", True),
    ("X", "log_x", "log x", "Logarithmic or linear x axis", False),
    ("s", "smooth(1)", "smooth", "Smooth the curves more (from strongest back to none)", True),
    ("S", "smooth(-1)", "smooth less", "Smooth the curves less", False),
    ("number_sign", "smooth_by", "smoothing", "Set the smoothing: ema, running mean or Gaussian", False),
    ("x", "axis", "x axis", "x axis by step, epoch, time or clock", True),
    ("plus", "zoom(0.5)", "zoom", "Zoom in around the crosshair", True),
    ("minus", "zoom(2)", "zoom out", "Zoom out", False),
    ("equals_sign", "fit", "fit", "Reset the zoom: show everything", False),
    ("left_curly_bracket", "window", "window", "Window by numbers: 0..100, 100 steps", False),
    ("left_square_bracket", "border('left')", "from here", "Start the window at the crosshair", False),
    ("right_square_bracket", "border('right')", "to here", "End the window at the crosshair", False),
    ("h", "cross(-1)", "crosshair", "Crosshair left: shows the value of every run", True),
    ("l", "cross(1)", "crosshair right", "Crosshair right", False),
    ("H", "cross(-10)", "far left", "Crosshair ten steps left", False),
    ("L", "cross(10)", "far right", "Crosshair ten steps right", False),
    ("F", "follow", "follow", "Follow the newest steps", False),
    ("B", "display", "bands", "Draw runs, groups over seeds with bands, or density", False),
    ("i", "spread", "band", "Band: 95 % interval, standard deviation or range", False),
    ("greater_than_sign", "layout(1)", "more charts", "More charts on the page, up to 4 x 4", True),
    ("less_than_sign", "layout(-1)", "fewer charts", "Fewer charts on the page", False),
)
_PANEL_KEYS = (
    ("w", "best(1)", "next best", "Crosshair to the next run's best value", True),
    ("b", "best(-1)", "previous best", "Crosshair to the previous best value", False),
    ("left", "pan(-0.25)", "move", "Move the window left", True),
    ("right", "pan(0.25)", "move right", "Move the window right", False),
    ("up", "lift(0.2)", "move up", "Move the window up", False),
    ("down", "lift(-0.2)", "move down", "Move the window down", False),
    ("shift+up", "stretch(0.5)", "taller", "Zoom in on the y axis", False),
    ("shift+down", "stretch(2)", "flatter", "Zoom out on the y axis", False),
    ("z", "box", "box", "Zoom box: start at the crosshair, z again zooms in", True),
    ("enter", "single", "one chart", "Show one chart, or the page of charts again", True),
    ("n", "choose(1)", "next chart", "Next chart", False),
    ("N", "choose(-1)", "previous chart", "Previous chart", False),
    ("pagedown,ctrl+f", "page(1)", "next page", "Next page of charts", False),
    ("pageup,ctrl+b", "page(-1)", "previous page", "Previous page of charts", False),
    ("j", "run(1)", "next run", "Highlight the next run", False),
    ("k", "run(-1)", "previous run", "Highlight the previous run", False),
)
_KEY_DISPLAYS = {
    "number_sign": "#", "plus": "+", "minus": "-", "equals_sign": "=", "left_square_bracket": "[",
    "left_curly_bracket": "{", "right_square_bracket": "]", "greater_than_sign": ">", "less_than_sign": "<",
    "enter": "⏎",
}  # fmt: skip


def _make_binding(key: str, action: str, description: str, tooltip: str, show: bool) -> Binding:
    return Binding(key, action, description, show=show, tooltip=tooltip, key_display=_KEY_DISPLAYS.get(key))


def _screen_action(action: str) -> str:
    """Return the screen action of a chart action: `chart('smooth', 1)` for `smooth(1)`."""
    name, _, arguments = action.rstrip(")").partition("(")
    return f"chart({', '.join(filter(None, [repr(name), arguments]))})"


CHART_BINDINGS = [
    _make_binding(key, _screen_action(action), description, tooltip, show)
    for key, action, description, tooltip, show in _SCREEN_KEYS
]
"""Bindings of a screen with charts, whose `action_chart(name, *arguments)` calls `ChartPanel.perform`."""

PANEL_BINDINGS = [_make_binding(*row) for row in _PANEL_KEYS]
"""Bindings of the charts, active while they have the keyboard focus."""
