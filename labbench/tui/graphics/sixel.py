"""Encoder of images as Sixel sequences (https://vt100.net/docs/vt3xx-gp/chapter14.html)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BAND_ROWS = 6
_RUN = re.compile(rb"(.)\1{3,}")
"""A character four times or more, which is shorter as a count."""


def encode_sixel(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """Return the sequence that draws an image at the cursor; pixels of index 0 stay as they are.

    indices: (height, width). colours: red, green and blue of each index, (colours, 3).
    """
    height, width = indices.shape
    registers = "".join(
        f"#{index};2;{';'.join(str(round(part / 2.55)) for part in colours[index].tolist())}"
        for index in np.unique(indices).tolist()
        if index
    )
    bands = "-".join("$".join(_encode_band(indices[row : row + _BAND_ROWS])) for row in range(0, height, _BAND_ROWS))
    return f'\x1bP0;1;0q"1;1;{width};{height}{registers}{bands}\x1b\\'


def _encode_band(band: NDArray[np.uint8]) -> Iterator[str]:
    """Yield the pixels of each colour in a band, (rows, width), of up to 6 rows."""
    weights = (1 << np.arange(len(band), dtype=np.uint8))[:, None]
    for index in np.unique(band).tolist():
        if index:
            characters = ((band == index) * weights).sum(axis=0, dtype=np.uint8) + ord("?")
            runs = _RUN.sub(lambda run: b"!%d%s" % (len(run[0]), run[1]), characters.tobytes().rstrip(b"?"))
            yield f"#{index}{runs.decode()}"
