"""A table in CSV: columns of numbers, columns of words, and the column that is to be told from them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from labbench.errors import InputError, did_you_mean
from labbench.train.data.dataset import Split

MAX_CLASSES = 100
"""Different whole numbers in a target up to which they are taken for classes, and different words in a column."""


def read_table(path: Path, target: str | None) -> Split:
    """Inputs float32 (N, F), a column of words as one input a word; targets classes or numbers (N,).

    The first line names the columns; the target is the last one if none is named. Raises InputError with the line.
    """
    names, rows = read_rows(path)
    wanted = names[-1] if target is None else target
    if wanted not in names:
        hint = did_you_mean(wanted, names) or f"; it has {', '.join(names)}"
        raise InputError(f"{path} has no column `{wanted}`{hint}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    targets = encode_targets([parse_number(cell) for cell in columns.pop(wanted)])
    return torch.cat([encode_column(name, cells, path) for name, cells in columns.items()], dim=1), targets


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the cells of each line behind them, none of them empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True)
            names = next(reader, [])
            rows = []
            for row in reader:
                if row and (len(row) != len(names) or "" in row):
                    what = f"{len(row)} cells, not {len(names)}" if len(row) != len(names) else "an empty cell"
                    raise InputError(f"{path}:{reader.line_num}: {what}")
                if row:
                    rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table in UTF-8: {error}") from None
    if len(set(names)) != len(names) or len(names) < 2 or not rows:
        raise InputError(f"{path}: a table needs a line of at least two different names, and lines of values")
    return names, rows


def parse_number(cell: str) -> float | int | str:
    """A cell's number, else its word."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def encode_column(name: str, cells: Sequence[str], path: Path) -> Tensor:
    """A column of numbers (N, 1), or of words (N, words) with a 1 for each cell's own."""
    values = [parse_number(cell) for cell in cells]
    if not any(isinstance(value, str) for value in values):
        if all(math.isfinite(value) for value in values if not isinstance(value, str)):
            return torch.tensor(values, dtype=torch.float32).unsqueeze(1)
        raise InputError(f"{path}: column `{name}` has a value that is not finite")
    words = sorted(set(cells))
    if len(words) > MAX_CLASSES:
        raise InputError(f"{path}: column `{name}` has {len(words)} different words: leave it out")
    return torch.nn.functional.one_hot(torch.tensor([words.index(cell) for cell in cells])).to(torch.float32)


def encode_targets(values: Sequence[float | int | str]) -> Tensor:
    """Words and few different whole numbers as classes, in their order; others as numbers, float32."""
    if any(isinstance(value, str) for value in values):
        values = [str(value) for value in values]
    elif any(isinstance(value, float) for value in values) or len(set(values)) > MAX_CLASSES:
        return torch.tensor(values, dtype=torch.float32)
    number_of = {value: index for index, value in enumerate(sorted(set(values)))}
    return torch.tensor([number_of[value] for value in values])
