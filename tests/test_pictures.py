"""Image files as arrays: every kind of PNG exactly, and what is wrong with a file said with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("PIL")

from labbench.train.pictures import read_picture
from png_files import CHANNELS, COLOURS, COLOURS_ALPHA, DEPTHS, GREY, GREY_ALPHA, PALETTE, png

KINDS = [(colour, bits) for colour, depths in DEPTHS.items() for bits in depths]
TRANSPARENCY = {GREY: b"\0\1", COLOURS: b"\0\1\0\2\0\3", PALETTE: b"\0\x80"}
"""A transparent grey or colour, and how opaque the first colours of a palette are."""


def expected(samples: NDArray[np.int64], colour: int, bits: int, palette: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The values from 0 to 255, without transparency."""
    if colour == PALETTE:
        return palette[samples[..., 0]].astype(np.int64)
    if (colour, bits) == (GREY, 16):
        return samples.clip(max=255)
    values = samples >> 8 if bits == 16 else samples * 255 // (2**bits - 1)
    if colour == GREY_ALPHA:
        return values[..., [0, 0, 0] if bits == 16 else [0]]
    return values[..., :3]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("interlaced", [False, True], ids=["in order", "interlaced"])
@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "tRNS"])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_a_png_of_any_kind_is_read_exactly(
    tmp_path: Path, colour: int, bits: int, transparent: bool, interlaced: bool
) -> None:
    random = np.random.default_rng(bits)
    palette = random.integers(0, 256, (2 ** min(bits, 8), 3), dtype=np.uint8)
    for height, width in ((11, 7), (1, 1), (1, 9), (8, 8)):
        samples = random.integers(0, 2**bits, (height, width, CHANNELS[colour]))
        content = png(
            samples,
            bits=bits,
            colour=colour,
            interlaced=interlaced,
            palette=palette if colour == PALETTE else None,
            transparency=TRANSPARENCY.get(colour, b"") if transparent else b"",
        )
        (tmp_path / "a.png").write_bytes(content)
        values = read_picture(tmp_path / "a.png")
        assert values.dtype == np.uint8
        assert np.array_equal(values, expected(samples, colour, bits, palette))


@pytest.mark.parametrize("filters", "01234")
@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA, COLOURS, COLOURS_ALPHA])
def test_a_png_is_read_exactly_whatever_filters_its_lines(tmp_path: Path, filters: str, colour: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (11, 7, CHANNELS[colour]))
    (tmp_path / "a.PNG").write_bytes(png(pixels, filters=filters))
    assert np.array_equal(read_picture(tmp_path / "a.PNG"), pixels[..., : 1 if colour == GREY_ALPHA else 3])


def test_an_image_can_be_changed_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.ones((2, 2, 3), np.uint8)))
    picture = read_picture(tmp_path / "a.png")
    picture += 1
    assert (picture == 2).all()


def test_pgm_and_ppm_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n# a comment\n3 2\n255\n" + bytes(range(6)))
    (tmp_path / "a.ppm").write_bytes(b"P6 1 2 255\n" + bytes(range(6)))
    assert read_picture(tmp_path / "a.pgm").tolist() == [[[0], [1], [2]], [[3], [4], [5]]]
    assert read_picture(tmp_path / "a.ppm").tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
