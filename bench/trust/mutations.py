"""Random changes of texts and bytes, made of the samples themselves and of words that break parsers."""

from __future__ import annotations

import random
from collections.abc import Sequence

TEXTS = (
    "", "nan", "inf", "-0", "1e999", "9" * 400, "0x1f", "1_000", "true", "null", "\x00", "\x1b[2J", "\ud800", "\u202e",
    "é", "損", "𝟙", "'", '"', '"""', "\\", "\\u", "[", "]", "[[", "]]", "{", "}", "(", ")", "=", "==", "<=", "~", "!",
    ",", ".", "..", "#", "\n", "\r\n", "\t", " " * 50, "%", "$", "&&", "-", "--", "*", "/", "../..", "and", "or", "not",
    "best(", "tag=", "lr", "lr=", "seed", "[" * 300, "(" * 300, "not " * 300, "a" * 5000, "1" + "0" * 30, "2026-11-30",
)  # fmt: skip


def mutate_text(rng: random.Random, samples: Sequence[str]) -> str:
    """Return a sample with a few pieces inserted, deleted, doubled, exchanged or taken from another sample."""
    text = rng.choice(samples)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 1, 1, 3, 20]))
        other = rng.choice(samples)
        cut = rng.randrange(len(other) + 1)
        piece = rng.choice(
            [
                rng.choice(TEXTS),
                other[cut : cut + rng.randrange(30)],
                text[start:end] * 3,
                "",
                chr(rng.randrange(0x250)),
            ]
        )
        text = text[:start] + piece + text[end:]
    return text


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return data with flipped, inserted and deleted bytes, or cut."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 | 1 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 2:
                changed[at:at] = rng.randbytes(rng.choice([1, 4, 300]))
            case 3:
                del changed[at : at + rng.choice([1, 8, 300])]
            case 4:
                changed[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"99999999"])
            case _:
                if rng.random() < 0.2:
                    del changed[at:]
    return bytes(changed)
