"""A run's portrait drawn for a terminal: numbers in, lines of coloured text out.

Shown by `labbench show RUN` and on the TUI's run screen; `labbench.train.diagnostics.portrait` measures
the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from labbench.portraits.file import Histogram, HistogramKind, Mistakes, Plane, Portrait
from labbench.portraits.pixels import (
    RAMPS,
    Colour,
    Image,
    PaintMode,
    StyledLine,
    StyledText,
    draw_bars,
    enlarge,
    line_width,
    rasterize_image,
    rgb_image,
    side_by_side,
    signed_grey_image,
    signed_image,
    truncate_line,
)
from labbench.text import cell_width, clean, fit_to_width, format_number

CLASS_COLOURS: Sequence[Colour] = (
    (66, 135, 245), (245, 140, 40), (60, 180, 100), (215, 80, 160), (220, 200, 60),
    (120, 100, 220), (70, 200, 210), (200, 90, 80), (150, 150, 150), (150, 190, 90),
)  # fmt: skip
_RIGHT_COLOUR, _WRONG_COLOUR = (40, 130, 80), (190, 60, 50)
_BLANK_COLOUR = (22, 24, 30)
_FAINT_COLOUR = (140, 145, 155)
_WHITE = (240, 240, 240)
_CLASS_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_TABLE_CLASSES = 20
"""Classes that a table has room for."""
_MAX_NAMED_PAIRS = 5
"""Pairs of classes that are named."""
_MAX_SECTION_LINES = 32
"""Lines that a section of pictures takes at most."""
_MAX_ENLARGED_PIXELS = 10
"""Pixels of an image's longer side up to which it is drawn twice as large."""


def draw_portrait(portrait: Portrait, columns: int, mode: PaintMode) -> list[StyledLine]:
    """Every section that the portrait has, in lines of at most `columns` cells."""
    sections = []
    if portrait.plane is not None:
        sections.append(_draw_plane(portrait.plane, columns, mode))
    if portrait.confusion is not None:
        sections.append(_draw_confusion(portrait.confusion, columns, mode))
    if portrait.mistakes is not None:
        sections.append(_draw_mistakes(portrait.mistakes, columns, mode))
    if portrait.weights is not None:
        sections.append(_draw_weights(portrait.weights, columns, mode))
    kinds: tuple[HistogramKind, ...] = ("activations", "gradients")
    for kind in kinds:
        found = [one for one in portrait.histograms if one.kind == kind]
        if found:
            sections.append(_draw_histograms(kind, found, columns, mode))
    lines = [line for section in sections for line in [[], *section]][1:]
    return [truncate_line(line, columns) for line in lines]


def _title_lines(words: str, more: str, columns: int) -> list[StyledLine]:
    """Both in one line, or what there is to say below the words where that is too wide."""
    if cell_width(f"{words}  {more}") <= columns:
        return [[StyledText(words, bold=True), StyledText(f"  {more}", _FAINT_COLOUR)]]
    return [[StyledText(words, bold=True)], *_wrap_faint(more, columns)]


def _wrap_faint(words: str, columns: int) -> list[StyledLine]:
    """In as many lines as it takes."""
    return [[StyledText(line, _FAINT_COLOUR)] for line in wrap(words, columns)]


def _draw_plane(plane: Plane, columns: int, mode: PaintMode) -> list[StyledLine]:
    """What the network says all over the plane, and the points that it was not trained on."""
    height, wide = plane.scores.shape[:2]
    room = max(8, min(columns, wide))
    rows = max(4, 2 * round(height * room / wide / 2))
    scores = _resize(plane.scores.astype(float), rows, room)
    lines = rasterize_image(_blend_classes(scores), "colour") if mode == "colour" else _shade_classes(scores, mode)
    marks = "●" * len(_CLASS_MARKS) if mode == "colour" else _CLASS_MARKS
    left, right, bottom, top = plane.bounds
    for (x, y), label in zip(plane.points.tolist(), plane.labels.tolist(), strict=True):
        column = round((x - left) / ((right - left) or 1) * (room - 1))
        row = round((top - y) / ((top - bottom) or 1) * (rows - 1)) // 2
        if 0 <= row < len(lines) and 0 <= column < room:
            under = lines[row][column]
            ink = _lighten(CLASS_COLOURS[label % len(CLASS_COLOURS)]) if mode == "colour" else None
            lines[row][column] = StyledText(marks[label % len(marks)], ink, under.ground)
    x_low, x_high, y_low, y_high = map(format_number, (left, right, bottom, top))
    extent = f"from {x_low} to {x_high}, upwards from {y_low} to {y_high}"
    return [*_title_lines("decision boundary", extent, columns), _class_legend(scores.shape[2], mode), *lines]


def _class_legend(classes: int, mode: PaintMode) -> StyledLine:
    named: StyledLine = [StyledText("points of the validation data: ", _FAINT_COLOUR)]
    for index in range(min(classes, len(CLASS_COLOURS))):
        if mode == "colour":
            named += [StyledText("●", _lighten(CLASS_COLOURS[index])), StyledText(f" class {index}  ", _FAINT_COLOUR)]
        else:
            named.append(StyledText(f"{_CLASS_MARKS[index]} "))
    if mode != "colour":
        told = "the denser, the likelier class 1" if classes == 2 else "one density a class, from class 0"
        named.append(StyledText(f"  ground: {told}"))
    return named


def _blend_classes(scores: NDArray[np.float64]) -> Image:
    """The colours of the classes, each as strong as the class is likely, dark enough for points to be seen."""
    colours = np.array([CLASS_COLOURS[index % len(CLASS_COLOURS)] for index in range(scores.shape[2])])
    blended: Image = (0.5 * np.clip(scores, 0, 1) @ colours).clip(0, 255).astype(np.uint8)
    return blended


def _shade_classes(scores: NDArray[np.float64], mode: PaintMode) -> list[StyledLine]:
    """In single cells, over which points may be put."""
    if scores.shape[2] == 2:
        light = scores[..., 1]
    else:
        light = scores.argmax(axis=2) / max(1, scores.shape[2] - 1)
    ramp = RAMPS[mode][: (len(RAMPS[mode]) + 2) // 2]  # the fuller ones would hide the points
    level = np.clip(light[::2] * len(ramp), 0, len(ramp) - 1).astype(int)
    return [[StyledText(ramp[index]) for index in row] for row in level]


def _draw_confusion(confusion: NDArray[np.int64], columns: int, mode: PaintMode) -> list[StyledLine]:
    """A table where there is room for one, and the commonest mistakes in words."""
    total, right = int(confusion.sum()), int(np.trace(confusion))
    share = f"{right} of {total} validation samples right; rows are true classes"
    lines = _title_lines("confusion matrix", share, columns)
    classes = len(confusion)
    digits = len(str(max(int(confusion.max()), classes - 1)))
    airy, tight = ((margin, margin + (digits + gap) * classes) for margin, gap in ((5, 2), (3, 1)))
    if classes > _MAX_TABLE_CLASSES:
        lines += _wrap_faint(
            f"the table is drawn for up to {_MAX_TABLE_CLASSES} classes, and here are {classes}", columns
        )
    elif columns < tight[1]:
        lines += _wrap_faint(f"the table takes {tight[1]} columns", columns)
    else:
        margin, whole = airy if airy[1] <= columns else tight
        cell = (whole - margin) // classes
        numbered = "".join(f"{index:>{cell - 1}} " for index in range(classes))
        lines.append([StyledText(" " * margin + numbered, _FAINT_COLOUR)])
        lines += [_draw_confusion_row(index, row, margin, cell, mode) for index, row in enumerate(confusion)]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_NAMED_PAIRS]
    pairs = [(int(place) // classes, int(place) % classes) for place in order if wrong.flat[place]]
    told = ", ".join(f"{true} for {taken} ({wrong[true, taken]})" for true, taken in pairs)
    return lines + _wrap_faint(f"taken most often: {told}" if told else "none was taken for another", columns)


def _draw_confusion_row(index: int, row: NDArray[np.int64], margin: int, cell: int, mode: PaintMode) -> StyledLine:
    nothing = "." if mode == "ascii" else "·"
    line: StyledLine = [StyledText(f"{index:>{margin - 1}} ", _FAINT_COLOUR)]
    for column, count in enumerate(row.tolist()):
        share = count / max(1, int(row.sum()))
        colour = _RIGHT_COLOUR if column == index else _WRONG_COLOUR
        strength = share if column == index else min(1.0, 0.3 + 3 * share) if count else 0.0
        words = f"{count or nothing:>{cell - 1}} "
        if mode == "colour":
            ground = _mix(_BLANK_COLOUR, colour, strength)
            line.append(StyledText(words, _WHITE if count else (90, 95, 105), ground))
        else:
            line.append(StyledText(words))
    return line


def _draw_mistakes(mistakes: Mistakes, columns: int, mode: PaintMode) -> list[StyledLine]:
    """Images, each with its class, what it was taken for, and how sure the network was."""
    blocks = []
    for image, label, chances in zip(mistakes.images, mistakes.labels, mistakes.probabilities, strict=True):
        taken = int(chances.argmax())
        lines = rasterize_image(_enlarge_if_small(np.broadcast_to(image, (*image.shape[:2], 3))), mode)
        said = f"{int(label)} as {taken}, {100 * float(chances[taken]):.0f} %"
        blocks.append([*lines, [StyledText(said, _FAINT_COLOUR)]])
    title = _title_lines("most confident mistakes", "class as what it was taken for, and how surely", columns)
    return [*title, *side_by_side(blocks, columns, most_rows=max(1, _MAX_SECTION_LINES // (len(blocks[0]) + 1)))]


def _draw_weights(weights: NDArray[np.float32], columns: int, mode: PaintMode) -> list[StyledLine]:
    """Units of the first layer, on one scale."""
    most = float(np.abs(weights).max())
    if mode != "colour":
        images, means = [signed_grey_image(one.mean(axis=2), most) for one in weights], "the denser, the larger"
    elif weights.shape[3] == 3:
        images, means = [rgb_image(one, most) for one in weights], "grey is 0"
    else:
        images, means = [signed_image(one[..., 0], most) for one in weights], "blue below 0, orange above"
    blocks = [rasterize_image(_enlarge_if_small(image), mode) for image in images]
    title = _title_lines(
        "first-layer weights", f"the largest, -{format_number(most)} to {format_number(most)}, {means}", columns
    )
    return [*title, *side_by_side(blocks, columns, most_rows=max(1, _MAX_SECTION_LINES // (len(blocks[0]) + 1)))]


def _draw_histograms(
    kind: HistogramKind, found: Sequence[Histogram], columns: int, mode: PaintMode
) -> list[StyledLine]:
    """A row a layer, a column an epoch: the first, the last and as many between as there is room for.

    A bar is as high as the root of its count, so that the many units at zero hide no others.
    """
    layers = list(dict.fromkeys(one.layer for one in found))
    by_epoch = {epoch: {one.layer: one for one in ones} for epoch, ones in groupby(found, lambda one: one.epoch)}
    room = min(24, max(len(clean(layer)) for layer in layers))
    cells = {
        (epoch, layer): _draw_histogram(one, mode) for epoch, ones in by_epoch.items() for layer, one in ones.items()
    }
    wide = max(line_width(cell) for cell in cells.values())
    epochs = _choose_epochs(list(by_epoch), max(1, (columns - room) // (wide + 3)))
    if kind == "gradients":
        decades = f"magnitudes from 1e{found[0].low:.0f} or less to 1e{found[0].high:.0f} or more"
        title = _title_lines("gradients by layer", decades, columns)
    else:
        title = _title_lines("activations by layer", "from the least to the largest", columns)
    lines = [
        *title,
        [
            StyledText(" " * room),
            *(StyledText("   " + fit_to_width(f"epoch {epoch}", wide), _FAINT_COLOUR) for epoch in epochs),
        ],
    ]
    for layer in layers:
        line = [StyledText(fit_to_width(clean(layer), room), _FAINT_COLOUR)]
        for epoch in epochs:
            cell = cells.get((epoch, layer), [])
            line += [StyledText("   "), *cell, StyledText(" " * (wide - line_width(cell)))]
        lines.append(line)
    return lines


def _draw_histogram(one: Histogram, mode: PaintMode) -> StyledLine:
    drawn = StyledText(draw_bars(one.counts, mode), CLASS_COLOURS[0] if one.kind == "activations" else CLASS_COLOURS[1])
    if one.kind == "gradients":
        return [StyledText("|", _FAINT_COLOUR), drawn, StyledText("|", _FAINT_COLOUR)]
    return [
        StyledText(f"{format_number(one.low):>8} ", _FAINT_COLOUR),
        drawn,
        StyledText(f" {format_number(one.high):<8}", _FAINT_COLOUR),
    ]


def _choose_epochs(epochs: Sequence[int], room: int) -> list[int]:
    """At most `room` of them, evenly, the last one always."""
    if room >= len(epochs):
        return list(epochs)
    if room == 1:
        return [epochs[-1]]
    places = np.unique(np.linspace(0, len(epochs) - 1, room).round().astype(int))
    return [epochs[place] for place in places]


def _enlarge_if_small(image: Image) -> Image:
    """Small ones twice as large."""
    return enlarge(image, 2) if max(image.shape[:2]) <= _MAX_ENLARGED_PIXELS else image


def _resize(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """The nearest values of a grid of that size."""
    down = np.linspace(0, values.shape[0] - 1, rows).round().astype(int)
    along = np.linspace(0, values.shape[1] - 1, columns).round().astype(int)
    resized: NDArray[np.float64] = values[down][:, along]
    return resized


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _lighten(colour: Colour) -> Colour:
    return _mix(colour, (255, 255, 255), 0.35)
