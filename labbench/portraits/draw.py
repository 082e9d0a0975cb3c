"""Drawing of a run's portrait as lines of coloured text.

`labbench show RUN` and the run screen of the TUI print these lines; `labbench.train.diagnostics.portrait` computes
the portrait.
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
    PlaceImage,
    StyledLine,
    StyledText,
    draw_bars,
    enlarge,
    line_width,
    paint_image,
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
"""Maximum number of classes drawn as a table."""
_MAX_NAMED_PAIRS = 5
"""Maximum number of confused pairs of classes in words."""
_MAX_SECTION_LINES = 32
"""Maximum number of lines of a section of images."""
_PIXELS_PER_SCORE = 4
"""Rows and columns of pixels of a picture for each row and column of scores drawn as text."""
_MAX_ENLARGED_PIXELS = 10
"""Images with a longer side up to this many pixels are drawn twice as large."""


def draw_portrait(
    portrait: Portrait, columns: int, mode: PaintMode, place: PlaceImage | None = None
) -> list[StyledLine]:
    """Return every section of a portrait as lines of at most `columns` cells; `place` shows its images as pictures."""
    sections = []
    if portrait.plane is not None:
        sections.append(_draw_plane(portrait.plane, columns, mode, place))
    if portrait.confusion is not None:
        sections.append(_draw_confusion(portrait.confusion, columns, mode))
    if portrait.mistakes is not None:
        sections.append(_draw_mistakes(portrait.mistakes, columns, mode, place))
    if portrait.weights is not None:
        sections.append(_draw_weights(portrait.weights, columns, mode, place))
    kinds: tuple[HistogramKind, ...] = ("activations", "gradients")
    for kind in kinds:
        histograms = [histogram for histogram in portrait.histograms if histogram.kind == kind]
        if histograms:
            sections.append(_draw_histograms(kind, histograms, columns, mode))
    lines = [line for section in sections for line in [[], *section]][1:]
    return [truncate_line(line, columns) for line in lines]


def _title_lines(title: str, explanation: str, columns: int) -> list[StyledLine]:
    """Return a title followed by its explanation, on one line if both fit."""
    if cell_width(f"{title}  {explanation}") <= columns:
        return [[StyledText(title, bold=True), StyledText(f"  {explanation}", _FAINT_COLOUR)]]
    return [[StyledText(title, bold=True)], *_wrap_faint(explanation, columns)]


def _wrap_faint(text: str, columns: int) -> list[StyledLine]:
    return [[StyledText(line, _FAINT_COLOUR)] for line in wrap(text, columns)]


def _draw_plane(plane: Plane, columns: int, mode: PaintMode, place: PlaceImage | None) -> list[StyledLine]:
    """Draw the predicted classes over the input plane, with the validation samples as points."""
    height, width = plane.scores.shape[:2]
    cells = max(8, min(columns, width))
    rows = max(4, 2 * round(height * cells / width / 2))
    scores = _resize(plane.scores.astype(float), rows, cells)
    grounds = rasterize_image(_blend_classes(scores), "colour") if mode == "colour" else _shade_classes(scores, mode)
    lines = _place_plane(plane, rows, cells, place) or [[*line] for line in grounds]
    marks = "●" * len(_CLASS_MARKS) if mode == "colour" else _CLASS_MARKS
    left, right, bottom, top = plane.bounds
    for (x, y), label in zip(plane.points.tolist(), plane.labels.tolist(), strict=True):
        column = round((x - left) / ((right - left) or 1) * (cells - 1))
        row = round((top - y) / ((top - bottom) or 1) * (rows - 1)) // 2
        if 0 <= row < len(lines) and 0 <= column < cells:
            under = grounds[row][column]
            ink = _lighten(CLASS_COLOURS[label % len(CLASS_COLOURS)]) if mode == "colour" else None
            lines[row][column] = StyledText(marks[label % len(marks)], ink, under.ground)
    x_low, x_high, y_low, y_high = map(format_number, (left, right, bottom, top))
    extent = f"x from {x_low} to {x_high}, y from {y_low} to {y_high}"
    return [*_title_lines("decision boundary", extent, columns), _class_legend(scores.shape[2], mode), *lines]


def _place_plane(plane: Plane, rows: int, cells: int, place: PlaceImage | None) -> list[StyledLine] | None:
    """Return the plane as a picture with a smooth boundary, one text for each cell; None without pictures."""
    if place is None:
        return None
    scores = _interpolate(plane.scores.astype(float), rows * _PIXELS_PER_SCORE, cells * _PIXELS_PER_SCORE)
    lines = place(_blend_classes(scores), cells, rows // 2)
    return None if lines is None else [[StyledText(each) for piece in line for each in piece.text] for line in lines]


def _class_legend(classes: int, mode: PaintMode) -> StyledLine:
    legend: StyledLine = [StyledText("validation samples: ", _FAINT_COLOUR)]
    for index in range(min(classes, len(CLASS_COLOURS))):
        if mode == "colour":
            legend += [StyledText("●", _lighten(CLASS_COLOURS[index])), StyledText(f" class {index}  ", _FAINT_COLOUR)]
        else:
            legend.append(StyledText(f"{_CLASS_MARKS[index]} "))
    if mode != "colour":
        meaning = (
            "denser for a higher probability of class 1" if classes == 2 else "one density per class, from class 0"
        )
        legend.append(StyledText(f"  background: {meaning}"))
    return legend


def _blend_classes(scores: NDArray[np.float64]) -> Image:
    """Return the class colours weighted by probability, darkened so that points stand out.

    scores: (rows, columns, classes).
    """
    colours = np.array([CLASS_COLOURS[index % len(CLASS_COLOURS)] for index in range(scores.shape[2])])
    blended: Image = (0.5 * np.clip(scores, 0, 1) @ colours).clip(0, 255).astype(np.uint8)
    return blended


def _shade_classes(scores: NDArray[np.float64], mode: PaintMode) -> list[StyledLine]:
    """Return lines of single cells, so that points can replace them. scores: (rows, columns, classes)."""
    if scores.shape[2] == 2:
        light = scores[..., 1]
    else:
        light = scores.argmax(axis=2) / max(1, scores.shape[2] - 1)
    ramp = RAMPS[mode][: (len(RAMPS[mode]) + 2) // 2]  # denser characters would hide the points
    level = np.clip(light[::2] * len(ramp), 0, len(ramp) - 1).astype(int)
    return [[StyledText(ramp[index]) for index in row] for row in level]


def _draw_confusion(confusion: NDArray[np.int64], columns: int, mode: PaintMode) -> list[StyledLine]:
    """Draw a confusion matrix, (classes, classes), as a table if it fits, and the most common confusions in words."""
    total, correct = int(confusion.sum()), int(np.trace(confusion))
    summary = f"{correct} of {total} validation samples correct; rows are true classes"
    lines = _title_lines("confusion matrix", summary, columns)
    classes = len(confusion)
    digits = len(str(max(int(confusion.max()), classes - 1)))
    wide, narrow = ((margin, margin + (digits + gap) * classes) for margin, gap in ((5, 2), (3, 1)))
    if classes > _MAX_TABLE_CLASSES:
        lines += _wrap_faint(f"no table: {classes} classes, and it is drawn for up to {_MAX_TABLE_CLASSES}", columns)
    elif columns < narrow[1]:
        lines += _wrap_faint(f"no table: it needs {narrow[1]} columns", columns)
    else:
        margin, width = wide if wide[1] <= columns else narrow
        cell = (width - margin) // classes
        header = "".join(f"{index:>{cell - 1}} " for index in range(classes))
        lines.append([StyledText(" " * margin + header, _FAINT_COLOUR)])
        lines += [_draw_confusion_row(index, row, margin, cell, mode) for index, row in enumerate(confusion)]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_NAMED_PAIRS]
    pairs = [(int(index) // classes, int(index) % classes) for index in order if wrong.flat[index]]
    listed = ", ".join(f"{true} as {predicted} ({wrong[true, predicted]})" for true, predicted in pairs)
    return lines + _wrap_faint(f"most confused: {listed}" if listed else "no class was mistaken", columns)


def _draw_confusion_row(index: int, row: NDArray[np.int64], margin: int, cell: int, mode: PaintMode) -> StyledLine:
    zero = "." if mode == "ascii" else "·"
    line: StyledLine = [StyledText(f"{index:>{margin - 1}} ", _FAINT_COLOUR)]
    for column, count in enumerate(row.tolist()):
        share = count / max(1, int(row.sum()))
        colour = _RIGHT_COLOUR if column == index else _WRONG_COLOUR
        strength = share if column == index else min(1.0, 0.3 + 3 * share) if count else 0.0
        text = f"{count or zero:>{cell - 1}} "
        if mode == "colour":
            ground = _mix(_BLANK_COLOUR, colour, strength)
            line.append(StyledText(text, _WHITE if count else (90, 95, 105), ground))
        else:
            line.append(StyledText(text))
    return line


def _draw_mistakes(mistakes: Mistakes, columns: int, mode: PaintMode, place: PlaceImage | None) -> list[StyledLine]:
    """Draw misclassified images, each with its true class, its predicted class and the probability."""
    blocks = []
    for image, label, probabilities in zip(mistakes.images, mistakes.labels, mistakes.probabilities, strict=True):
        predicted = int(probabilities.argmax())
        lines = paint_image(_enlarge_if_small(np.broadcast_to(image, (*image.shape[:2], 3))), mode, place)
        caption = f"{int(label)} as {predicted}, {100 * float(probabilities[predicted]):.0f} %"
        blocks.append([*lines, [StyledText(caption, _FAINT_COLOUR)]])
    title = _title_lines("most confident mistakes", "true class as predicted class, probability", columns)
    return [*title, *side_by_side(blocks, columns, max_rows=max(1, _MAX_SECTION_LINES // (len(blocks[0]) + 1)))]


def _draw_weights(
    weights: NDArray[np.float32], columns: int, mode: PaintMode, place: PlaceImage | None
) -> list[StyledLine]:
    """Draw the weights of first-layer units, (K, height, width, 1 or 3), on one scale."""
    max_abs = float(np.abs(weights).max())
    if mode != "colour":
        images = [signed_grey_image(unit.mean(axis=2), max_abs) for unit in weights]
        meaning = "denser is larger"
    elif weights.shape[3] == 3:
        images, meaning = [rgb_image(unit, max_abs) for unit in weights], "grey is 0"
    else:
        images, meaning = [signed_image(unit[..., 0], max_abs) for unit in weights], "blue below 0, orange above"
    blocks = [paint_image(_enlarge_if_small(image), mode, place) for image in images]
    bound = format_number(max_abs)
    title = _title_lines("first-layer weights", f"largest units, -{bound} to {bound}, {meaning}", columns)
    return [*title, *side_by_side(blocks, columns, max_rows=max(1, _MAX_SECTION_LINES // (len(blocks[0]) + 1)))]


def _draw_histograms(
    kind: HistogramKind, histograms: Sequence[Histogram], columns: int, mode: PaintMode
) -> list[StyledLine]:
    """Draw one row per layer and one column per epoch, for as many epochs as fit, always with the last one.

    Bar heights are square roots of counts, so that many units at zero do not hide the others.
    """
    layers = list(dict.fromkeys(histogram.layer for histogram in histograms))
    by_epoch = {
        epoch: {histogram.layer: histogram for histogram in group}
        for epoch, group in groupby(histograms, lambda histogram: histogram.epoch)
    }
    name_width = min(24, max(len(clean(layer)) for layer in layers))
    cells = {
        (epoch, layer): _draw_histogram(histogram, mode)
        for epoch, by_layer in by_epoch.items()
        for layer, histogram in by_layer.items()
    }
    width = max(line_width(cell) for cell in cells.values())
    epochs = _choose_epochs(list(by_epoch), max(1, (columns - name_width) // (width + 3)))
    if kind == "gradients":
        decades = f"magnitudes from 1e{histograms[0].low:.0f} or less to 1e{histograms[0].high:.0f} or more"
        title = _title_lines("gradients by layer", decades, columns)
    else:
        title = _title_lines("activations by layer", "from the smallest to the largest", columns)
    lines = [
        *title,
        [
            StyledText(" " * name_width),
            *(StyledText("   " + fit_to_width(f"epoch {epoch}", width), _FAINT_COLOUR) for epoch in epochs),
        ],
    ]
    for layer in layers:
        line = [StyledText(fit_to_width(clean(layer), name_width), _FAINT_COLOUR)]
        for epoch in epochs:
            cell = cells.get((epoch, layer), [])
            line += [StyledText("   "), *cell, StyledText(" " * (width - line_width(cell)))]
        lines.append(line)
    return lines


def _draw_histogram(histogram: Histogram, mode: PaintMode) -> StyledLine:
    colour = CLASS_COLOURS[0] if histogram.kind == "activations" else CLASS_COLOURS[1]
    bars = StyledText(draw_bars(histogram.counts, mode), colour)
    if histogram.kind == "gradients":
        return [StyledText("|", _FAINT_COLOUR), bars, StyledText("|", _FAINT_COLOUR)]
    return [
        StyledText(f"{format_number(histogram.low):>8} ", _FAINT_COLOUR),
        bars,
        StyledText(f" {format_number(histogram.high):<8}", _FAINT_COLOUR),
    ]


def _choose_epochs(epochs: Sequence[int], count: int) -> list[int]:
    """Return at most `count` epochs, evenly spaced, always with the last one."""
    if count >= len(epochs):
        return list(epochs)
    if count == 1:
        return [epochs[-1]]
    indices = np.unique(np.linspace(0, len(epochs) - 1, count).round().astype(int))
    return [epochs[index] for index in indices]


def _enlarge_if_small(image: Image) -> Image:
    """Return a small image twice as large, others unchanged; (height, width, 3)."""
    return enlarge(image, 2) if max(image.shape[:2]) <= _MAX_ENLARGED_PIXELS else image


def _resize(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return values, (height, width, classes), resampled to (rows, columns, classes) by nearest neighbour."""
    row_indices = np.linspace(0, values.shape[0] - 1, rows).round().astype(int)
    column_indices = np.linspace(0, values.shape[1] - 1, columns).round().astype(int)
    resized: NDArray[np.float64] = values[row_indices][:, column_indices]
    return resized


def _interpolate(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return values, (height, width, classes), interpolated linearly at (rows, columns, classes)."""
    for axis, count in ((0, rows), (1, columns)):
        position = np.linspace(0, values.shape[axis] - 1, count)
        low = np.minimum(position.astype(int), max(0, values.shape[axis] - 2))
        share = (position - low).reshape([-1 if each == axis else 1 for each in range(3)])
        high = np.minimum(low + 1, values.shape[axis] - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour blended with a share (0 to 1) of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _lighten(colour: Colour) -> Colour:
    return _mix(colour, (255, 255, 255), 0.35)
