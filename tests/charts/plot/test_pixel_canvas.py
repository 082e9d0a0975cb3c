"""Curves as an image: lines at their values with soft edges, bands that show what is below, nothing elsewhere."""

from __future__ import annotations

import numpy as np

from labbench.charts.lines import Line
from labbench.charts.palette import BAND, slot_and_style
from labbench.charts.plot.pixel_canvas import Pixels, paint_plot
from labbench.charts.render import ChartRenderer
from labbench.charts.series import Series
from labbench.charts.view import ChartView

CELL = (8, 16)
WIDTH, HEIGHT = 60, 20


def line(key: str, y: list[float], *, slot: int = 1, group: str = "") -> Line:
    return Line(key, key, Series(np.arange(len(y), dtype=float), np.array(y, dtype=float)), slot, "●", group=group)


def colours(ink: int) -> tuple[int, int, int, float]:
    """Return red for lines of slot 1 and blue for others; bands are translucent."""
    slot, style = slot_and_style(ink) or (0, BAND)
    return (255, 0, 0, 0.25 if style == BAND else 1.0) if slot == 1 else (0, 0, 255, 0.25 if style == BAND else 1.0)


def paint(lines: list[Line], view: ChartView | None = None) -> tuple[Pixels, ChartRenderer]:
    renderer = ChartRenderer()
    renderer.draw(lines, view or ChartView(), WIDTH, HEIGHT)
    plot = renderer.plot
    assert plot is not None
    return paint_plot(plot, CELL, colours), renderer


def test_the_image_covers_the_cells_of_the_plot() -> None:
    image, renderer = paint([line("a", [1.0, 2.0])])
    assert renderer.frame is not None
    assert image.shape == (renderer.frame.height * CELL[1], renderer.frame.width * CELL[0], 4)


def test_a_line_is_where_its_values_are_and_the_rest_is_transparent() -> None:
    image, renderer = paint([line("a", [0.0, 1.0, 0.0])])
    assert renderer.frame is not None
    opacity = image[..., 3].astype(float)
    height, width = opacity.shape
    x = renderer.frame.left + (np.arange(width) + 0.5) / width * (renderer.frame.right - renderer.frame.left)
    expected = renderer.frame.dot_rows(np.interp(x, [0, 1, 2], [0.0, 1.0, 0.0]), CELL[1])
    centre = (opacity * np.arange(height)[:, None]).sum(axis=0) / opacity.sum(axis=0)
    assert np.abs(centre - expected).max() < 1.0
    assert (np.count_nonzero(opacity, axis=0) <= 6).all()
    assert set(np.unique(image[opacity > 0][:, :3], axis=0).ravel().tolist()) == {0, 255}


def test_edges_are_soft() -> None:
    image, _ = paint([line("a", [0.0, 1.0])])
    opacities = np.unique(image[..., 3])
    assert len(opacities) > 4
    assert opacities.max() == 255


def test_the_raw_values_behind_a_smoothed_line_are_a_translucent_band() -> None:
    noisy = [value + (0.2 if index % 2 else -0.2) for index, value in enumerate(np.linspace(0, 1, 200))]
    image, _ = paint([line("a", noisy)], ChartView(smoothing="0.9"))
    assert ((image[..., 3] > 50) & (image[..., 3] < 90)).sum() > 0.05 * image[..., 3].size


def test_the_band_of_a_group_shows_the_lines_below_it() -> None:
    lines = [
        line(f"{group}{seed}", [seed + 1.0, seed + 1.5], slot=slot, group=group)
        for group, slot in (("a", 1), ("b", 2))
        for seed in range(2)
    ]
    image, _ = paint(lines, ChartView(display="groups", spread="range"))
    mixed = (image[..., 0] > 0) & (image[..., 2] > 0)
    assert mixed.any()


def test_lines_that_leave_the_window_are_cut_at_its_border() -> None:
    image, _ = paint([line("a", [0.0, 1e6, 0.0])], ChartView(height=(0.0, 1.0)))
    assert image[..., 3].any()


def test_the_density_of_many_runs_is_an_image_too() -> None:
    lines = [line(str(run), [0.0, run / 10], slot=-1) for run in range(40)]
    image, _ = paint(lines, ChartView(display="density"))
    assert image[..., 3].any()
