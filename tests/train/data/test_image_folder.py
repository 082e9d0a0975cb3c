"""Image files as arrays: every kind of PNG exactly, and errors that name the file and the reason."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("PIL")

from PIL import Image

from helpers.png_files import CHANNELS, COLOURS, COLOURS_ALPHA, DEPTHS, GREY, GREY_ALPHA, PALETTE, chunk, png
from labbench.errors import InputError
from labbench.train.data.image_folder import read_image

KINDS = [(colour, bits) for colour, depths in DEPTHS.items() for bits in depths]
TRANSPARENCY = {GREY: b"\0\1", COLOURS: b"\0\1\0\2\0\3", PALETTE: b"\0\x80"}
"""tRNS chunk by colour type: a transparent grey or colour, or the opacities of the first colours of a palette."""


def expected(samples: NDArray[np.int64], colour: int, bits: int, palette: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Expected values from 0 to 255, shape (H, W, C), without transparency."""
    if colour == PALETTE:
        return palette[samples[..., 0]].astype(np.int64)
    values = samples >> 8 if bits == 16 else samples * 255 // (2**bits - 1)
    if colour == GREY_ALPHA:
        return values[..., [0, 0, 0] if bits == 16 else [0]]
    return values[..., :3]


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
        values = read_image(tmp_path / "a.png")
        assert values.dtype == np.uint8
        assert np.array_equal(values, expected(samples, colour, bits, palette))


@pytest.mark.parametrize("filters", "01234")
@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA, COLOURS, COLOURS_ALPHA])
def test_a_png_is_read_exactly_with_any_filter_of_its_lines(tmp_path: Path, filters: str, colour: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (11, 7, CHANNELS[colour]))
    (tmp_path / "a.PNG").write_bytes(png(pixels, filters=filters))
    assert np.array_equal(read_image(tmp_path / "a.PNG"), pixels[..., : 1 if colour == GREY_ALPHA else 3])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.tif", np.array([[-1, 3]], np.int32)),
        ("a.tif", np.array([[0.5, 1.0]], np.float32)),
        ("a.tif", np.array([[np.nan, 1.0]], np.float32)),
    ],
)
def test_grey_values_beyond_8_bits_are_refused_instead_of_clipped(
    tmp_path: Path, name: str, values: NDArray[np.generic]
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} cannot be read: its grey values are not integers from 0 to 255"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_grey_values_of_16_bits_are_read_by_their_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], np.uint16)
    file = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        file.write_bytes(b"P5\n3 2\n65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(file)
    assert read_image(file)[..., 0].tolist() == [[0, 0, 1], [0x12, 0xFF, 0xFF]]


def test_small_numbers_in_16_bits_are_refused_instead_of_read_as_black(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 9], [3, 255]], np.uint16)).save(tmp_path / "labels.png")
    with pytest.raises(InputError, match=r"labels\.png cannot be read: its grey values have 16 bits, but none exceeds"):
        read_image(tmp_path / "labels.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "black.png")
    assert not read_image(tmp_path / "black.png").any()


def test_a_read_image_is_writable(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.ones((2, 2, 3), np.uint8)))
    image = read_image(tmp_path / "a.png")
    image += 1
    assert (image == 2).all()


def test_pgm_and_ppm_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5\n# a comment\n3 2\n255\n" + bytes(range(6)))
    (tmp_path / "a.ppm").write_bytes(b"P6 1 2 255\n" + bytes(range(6)))
    assert read_image(tmp_path / "a.pgm").tolist() == [[[0], [1], [2]], [[3], [4], [5]]]
    assert read_image(tmp_path / "a.ppm").tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".gif", ".tif", ".webp"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_other_formats_are_read(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    Image.fromarray(np.full(shape, 90, np.uint8)).save(tmp_path / f"a{suffix}")
    values = read_image(tmp_path / f"a{suffix}")
    assert values.shape[:2] == (4, 6)
    assert np.abs(values.astype(int) - 90).max() < 4


PIXELS = np.random.default_rng(0).integers(0, 256, (9, 9, 3))
VALID = png(PIXELS)
HUGE = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)  # 400 megapixels
TEXT = zlib.compress(bytes(100_000_000))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is damaged, or not an image in one of PNG, PPM, JPEG"),
        (b"\xff\xd8", "it is damaged, or not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is damaged, or not an image"),
        (VALID[:40], "it is damaged, or not an image"),
        (VALID[:-60], "truncated"),
        (VALID.replace(b"IDAT", b"IDAX"), "damaged, or not an image"),
        (b"P6 3 2 255\n1234", "truncated"),
        (VALID[:8] + chunk(b"IHDR", HUGE) + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "decompression bomb"),
        (VALID[:33] + chunk(b"zTXt", b"a\0\0" + TEXT) + VALID[33:], "Decompressed data too large"),
    ],
    ids=["empty", "jpeg", "eps", "header", "truncated", "no data", "ppm", "many pixels", "long text"],
)
def test_an_unreadable_file_is_reported_with_the_reason(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png cannot be read: .*{problem}"):
        read_image(tmp_path / "a.png")


def test_a_truncated_file_is_read_completely_or_refused(tmp_path: Path) -> None:
    for size in range(len(VALID)):
        (tmp_path / "a.png").write_bytes(VALID[:size])
        try:
            assert np.array_equal(read_image(tmp_path / "a.png"), PIXELS)
        except InputError as error:
            assert "a.png cannot be read" in str(error)  # noqa: PT017


def test_without_pillow_the_error_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(VALID)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"a\.png: reading images needs Pillow: pip install pillow"):
        read_image(tmp_path / "a.png")
