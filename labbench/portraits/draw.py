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

from labbench.portraits.file import Histogram, Kind, Mistakes, Plane, Portrait
from labbench.portraits.pixels import (
    RAMPS,
    Colour,
    Hand,
    Image,
    Line,
    Piece,
    bars,
    beside,
    coloured,
    cut,
    enlarged,
    grey_by_sign,
    raster,
    signed,
    size,
)
from labbench.text import clean, fit, number, width

CLASSES: Sequence[Colour] = (
    (66, 135, 245), (245, 140, 40), (60, 180, 100), (215, 80, 160), (220, 200, 60),
    (120, 100, 220), (70, 200, 210), (200, 90, 80), (150, 150, 150), (150, 190, 90),
)  # fmt: skip
_RIGHT, _WRONG = (40, 130, 80), (190, 60, 50)
_BLANK = (22, 24, 30)
_FAINT = (140, 145, 155)
_WHITE = (240, 240, 240)
_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TABLED = 20
"""Classes that a table has room for."""
_TOLD = 5
"""Pairs of classes that are named."""
_TALL = 32
"""Lines that a section of pictures takes at most."""
_SMALL = 10
"""Pixels of an image's longer side up to which it is drawn twice as large."""


def draw(portrait: Portrait, columns: int, hand: Hand) -> list[Line]:
    """Every section that the portrait has, in lines of at most `columns` cells."""
    sections = []
    if portrait.plane is not None:
        sections.append(_plane(portrait.plane, columns, hand))
    if portrait.confusion is not None:
        sections.append(_confusion(portrait.confusion, columns, hand))
    if portrait.mistakes is not None:
        sections.append(_mistakes(portrait.mistakes, columns, hand))
    if portrait.weights is not None:
        sections.append(_weights(portrait.weights, columns, hand))
    kinds: tuple[Kind, ...] = ("activations", "gradients")
    for kind in kinds:
        found = [one for one in portrait.histograms if one.kind == kind]
        if found:
            sections.append(_histograms(kind, found, columns, hand))
    lines = [line for section in sections for line in [[], *section]][1:]
    return [cut(line, columns) for line in lines]


def _title(words: str, more: str, columns: int) -> list[Line]:
    """Both in one line, or what there is to say below the words where that is too wide."""
    if width(f"{words}  {more}") <= columns:
        return [[Piece(words, bold=True), Piece(f"  {more}", _FAINT)]]
    return [[Piece(words, bold=True)], *_told(more, columns)]


def _told(words: str, columns: int) -> list[Line]:
    """In as many lines as it takes."""
    return [[Piece(line, _FAINT)] for line in wrap(words, columns)]


def _plane(plane: Plane, columns: int, hand: Hand) -> list[Line]:
    """What the network says all over the plane, and the points that it was not trained on."""
    height, wide = plane.scores.shape[:2]
    room = max(8, min(columns, wide))
    rows = max(4, 2 * round(height * room / wide / 2))
    scores = _resized(plane.scores.astype(float), rows, room)
    lines = raster(_blended(scores), "colour") if hand == "colour" else _shaded(scores, hand)
    marks = "●" * len(_MARKS) if hand == "colour" else _MARKS
    left, right, bottom, top = plane.bounds
    for (x, y), label in zip(plane.points.tolist(), plane.labels.tolist(), strict=True):
        column = round((x - left) / ((right - left) or 1) * (room - 1))
        row = round((top - y) / ((top - bottom) or 1) * (rows - 1)) // 2
        if 0 <= row < len(lines) and 0 <= column < room:
            under = lines[row][column]
            ink = _lighter(CLASSES[label % len(CLASSES)]) if hand == "colour" else None
            lines[row][column] = Piece(marks[label % len(marks)], ink, under.ground)
    extent = f"from {number(left)} to {number(right)}, upwards from {number(bottom)} to {number(top)}"
    return [*_title("decision boundary", extent, columns), _classes_named(scores.shape[2], hand), *lines]


def _classes_named(classes: int, hand: Hand) -> Line:
    named: Line = [Piece("points of the validation data: ", _FAINT)]
    for index in range(min(classes, len(CLASSES))):
        if hand == "colour":
            named += [Piece("●", _lighter(CLASSES[index])), Piece(f" class {index}  ", _FAINT)]
        else:
            named.append(Piece(f"{_MARKS[index]} "))
    if hand != "colour":
        told = "the denser, the likelier class 1" if classes == 2 else "one density a class, from class 0"
        named.append(Piece(f"  ground: {told}"))
    return named


def _blended(scores: NDArray[np.float64]) -> Image:
    """The colours of the classes, each as strong as the class is likely, dark enough for points to be seen."""
    colours = np.array([CLASSES[index % len(CLASSES)] for index in range(scores.shape[2])])
    blended: Image = (0.5 * np.clip(scores, 0, 1) @ colours).clip(0, 255).astype(np.uint8)
    return blended


def _shaded(scores: NDArray[np.float64], hand: Hand) -> list[Line]:
    """In single cells, over which points may be put."""
    if scores.shape[2] == 2:
        light = scores[..., 1]
    else:
        light = scores.argmax(axis=2) / max(1, scores.shape[2] - 1)
    ramp = RAMPS[hand][: (len(RAMPS[hand]) + 2) // 2]  # the fuller ones would hide the points
    level = np.clip(light[::2] * len(ramp), 0, len(ramp) - 1).astype(int)
    return [[Piece(ramp[index]) for index in row] for row in level]


def _confusion(confusion: NDArray[np.int64], columns: int, hand: Hand) -> list[Line]:
    """A table where there is room for one, and the commonest mistakes in words."""
    total, right = int(confusion.sum()), int(np.trace(confusion))
    share = f"{right} of {total} validation samples right; rows are true classes"
    lines = _title("confusion matrix", share, columns)
    classes = len(confusion)
    digits = len(str(max(int(confusion.max()), classes - 1)))
    airy, tight = ((margin, margin + (digits + gap) * classes) for margin, gap in ((5, 2), (3, 1)))
    if classes > _TABLED:
        lines += _told(f"the table is drawn for up to {_TABLED} classes, and here are {classes}", columns)
    elif columns < tight[1]:
        lines += _told(f"the table takes {tight[1]} columns", columns)
    else:
        margin, whole = airy if airy[1] <= columns else tight
        cell = (whole - margin) // classes
        numbered = "".join(f"{index:>{cell - 1}} " for index in range(classes))
        lines.append([Piece(" " * margin + numbered, _FAINT)])
        lines += [_counted(index, row, margin, cell, hand) for index, row in enumerate(confusion)]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_TOLD]
    pairs = [(int(place) // classes, int(place) % classes) for place in order if wrong.flat[place]]
    told = ", ".join(f"{true} for {taken} ({wrong[true, taken]})" for true, taken in pairs)
    return lines + _told(f"taken most often: {told}" if told else "none was taken for another", columns)


def _counted(index: int, row: NDArray[np.int64], margin: int, cell: int, hand: Hand) -> Line:
    nothing = "." if hand == "ascii" else "·"
    line: Line = [Piece(f"{index:>{margin - 1}} ", _FAINT)]
    for column, count in enumerate(row.tolist()):
        share = count / max(1, int(row.sum()))
        colour = _RIGHT if column == index else _WRONG
        strength = share if column == index else min(1.0, 0.3 + 3 * share) if count else 0.0
        words = f"{count or nothing:>{cell - 1}} "
        if hand == "colour":
            ground = _mixed(_BLANK, colour, strength)
            line.append(Piece(words, _WHITE if count else (90, 95, 105), ground))
        else:
            line.append(Piece(words))
    return line


def _mistakes(mistakes: Mistakes, columns: int, hand: Hand) -> list[Line]:
    """Images, each with its class, what it was taken for, and how sure the network was."""
    blocks = []
    for image, label, chances in zip(mistakes.images, mistakes.labels, mistakes.probabilities, strict=True):
        taken = int(chances.argmax())
        lines = raster(_scaled(np.broadcast_to(image, (*image.shape[:2], 3))), hand)
        said = f"{int(label)} as {taken}, {100 * float(chances[taken]):.0f} %"
        blocks.append([*lines, [Piece(said, _FAINT)]])
    title = _title("most confident mistakes", "class as what it was taken for, and how surely", columns)
    return [*title, *beside(blocks, columns, most_rows=max(1, _TALL // (len(blocks[0]) + 1)))]


def _weights(weights: NDArray[np.float32], columns: int, hand: Hand) -> list[Line]:
    """Units of the first layer, on one scale."""
    most = float(np.abs(weights).max())
    if hand != "colour":
        images, means = [grey_by_sign(one.mean(axis=2), most) for one in weights], "the denser, the larger"
    elif weights.shape[3] == 3:
        images, means = [coloured(one, most) for one in weights], "grey is 0"
    else:
        images, means = [signed(one[..., 0], most) for one in weights], "blue below 0, orange above"
    blocks = [raster(_scaled(image), hand) for image in images]
    title = _title("first-layer weights", f"the largest, -{number(most)} to {number(most)}, {means}", columns)
    return [*title, *beside(blocks, columns, most_rows=max(1, _TALL // (len(blocks[0]) + 1)))]


def _histograms(kind: Kind, found: Sequence[Histogram], columns: int, hand: Hand) -> list[Line]:
    """A row a layer, a column an epoch: the first, the last and as many between as there is room for.

    A bar is as high as the root of its count, so that the many units at zero hide no others.
    """
    layers = list(dict.fromkeys(one.layer for one in found))
    by_epoch = {epoch: {one.layer: one for one in ones} for epoch, ones in groupby(found, lambda one: one.epoch)}
    room = min(24, max(len(clean(layer)) for layer in layers))
    cells = {(epoch, layer): _spread(one, hand) for epoch, ones in by_epoch.items() for layer, one in ones.items()}
    wide = max(size(cell) for cell in cells.values())
    epochs = _chosen(list(by_epoch), max(1, (columns - room) // (wide + 3)))
    if kind == "gradients":
        decades = f"magnitudes from 1e{found[0].low:.0f} or less to 1e{found[0].high:.0f} or more"
        title = _title("gradients by layer", decades, columns)
    else:
        title = _title("activations by layer", "from the least to the largest", columns)
    lines = [*title, [Piece(" " * room), *(Piece("   " + fit(f"epoch {epoch}", wide), _FAINT) for epoch in epochs)]]
    for layer in layers:
        line = [Piece(fit(clean(layer), room), _FAINT)]
        for epoch in epochs:
            cell = cells.get((epoch, layer), [])
            line += [Piece("   "), *cell, Piece(" " * (wide - size(cell)))]
        lines.append(line)
    return lines


def _spread(one: Histogram, hand: Hand) -> Line:
    drawn = Piece(bars(one.counts, hand), CLASSES[0] if one.kind == "activations" else CLASSES[1])
    if one.kind == "gradients":
        return [Piece("|", _FAINT), drawn, Piece("|", _FAINT)]
    return [Piece(f"{number(one.low):>8} ", _FAINT), drawn, Piece(f" {number(one.high):<8}", _FAINT)]


def _chosen(epochs: Sequence[int], room: int) -> list[int]:
    """At most `room` of them, evenly, the last one always."""
    if room >= len(epochs):
        return list(epochs)
    if room == 1:
        return [epochs[-1]]
    places = np.unique(np.linspace(0, len(epochs) - 1, room).round().astype(int))
    return [epochs[place] for place in places]


def _scaled(image: Image) -> Image:
    """Small ones twice as large."""
    return enlarged(image, 2) if max(image.shape[:2]) <= _SMALL else image


def _resized(values: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """The nearest values of a grid of that size."""
    down = np.linspace(0, values.shape[0] - 1, rows).round().astype(int)
    along = np.linspace(0, values.shape[1] - 1, columns).round().astype(int)
    resized: NDArray[np.float64] = values[down][:, along]
    return resized


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _lighter(colour: Colour) -> Colour:
    return _mixed(colour, (255, 255, 255), 0.35)
