"""Tables in CSV or TSV: numeric and categorical columns, and the target column to predict."""

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
"""Maximum number of distinct integers in a target that count as classes, and of distinct words in a column."""


def read_table(path: Path, target: str | None) -> Split:
    """Read a table: inputs (N, F) and targets (N,).

    Inputs are float32, with words one-hot encoded; targets are classes (int64) or numbers (float32). The first line
    names the columns. `target` names the target column, by default the last one.

    Raises:
        InputError: If the file is not such a table (the message has the line), or lacks the column.
    """
    names, rows = read_rows(path)
    target_name = names[-1] if target is None else target
    if target_name not in names:
        hint = did_you_mean(target_name, names) or f"; it has {', '.join(names)}"
        raise InputError(f"{path} has no column `{target_name}`{hint}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    targets = encode_targets([parse_number(cell) for cell in columns.pop(target_name)])
    return torch.cat([encode_column(name, cells, path) for name, cells in columns.items()], dim=1), targets


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the cells of each row.

    Raises:
        InputError: If the file is not UTF-8 or CSV, names a column twice, or has an empty cell or a row of another
            length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True)
            names = next(reader, [])
            rows = []
            for row in reader:
                if row and (len(row) != len(names) or "" in row):
                    fault = f"{len(row)} cells, not {len(names)}" if len(row) != len(names) else "an empty cell"
                    raise InputError(f"{path}:{reader.line_num}: {fault}")
                if row:
                    rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table in UTF-8: {error}") from None
    if len(set(names)) != len(names) or len(names) < 2 or not rows:
        raise InputError(
            f"{path}: a table needs at least two columns with different names in its first line, and rows of values"
        )
    return names, rows


def parse_number(cell: str) -> float | int | str:
    """Return the number in a cell, or its text if it is not a number."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def encode_column(name: str, cells: Sequence[str], path: Path) -> Tensor:
    """Encode a column as float32 (N, 1), or (N, words) if it has words.

    Words are one-hot encoded.

    Raises:
        InputError: If a number is not finite, or there are more than `MAX_CLASSES` distinct words.
    """
    values = [parse_number(cell) for cell in cells]
    if not any(isinstance(value, str) for value in values):
        if all(math.isfinite(value) for value in values if not isinstance(value, str)):
            return torch.tensor(values, dtype=torch.float32).unsqueeze(1)
        raise InputError(f"{path}: column `{name}` has a value that is not finite; remove its row or the column")
    words = sorted(set(cells))
    if len(words) > MAX_CLASSES:
        raise InputError(
            f"{path}: column `{name}` has {len(words)} different words, more than {MAX_CLASSES}; remove the column"
        )
    return torch.nn.functional.one_hot(torch.tensor([words.index(cell) for cell in cells])).to(torch.float32)


def encode_targets(values: Sequence[float | int | str]) -> Tensor:
    """Encode targets as classes (int64) or numbers (float32), shape (N,).

    Words, and up to `MAX_CLASSES` distinct integers, are classes. Classes are numbered in sorted order.
    """
    if any(isinstance(value, str) for value in values):
        values = [str(value) for value in values]
    elif any(isinstance(value, float) for value in values) or len(set(values)) > MAX_CLASSES:
        return torch.tensor(values, dtype=torch.float32)
    number_of = {value: index for index, value in enumerate(sorted(set(values)))}
    return torch.tensor([number_of[value] for value in values])
