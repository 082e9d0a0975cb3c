"""User data for the task `own`: a CSV table, arrays in .npz, or a folder of images with one subfolder per class."""

from __future__ import annotations

import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labbench.errors import InputError
from labbench.params.paths import resolve_data_path
from labbench.train.data.csv_table import encode_targets, read_table
from labbench.train.data.dataset import Data, Split, split_stratified
from labbench.train.data.image_folder import read_folder

HELD_OUT_SHARE = 0.15
"""Share of the samples in `val`, and in `test`, if the file has no splits of its own."""


def load_user_data(path: str, target: str | None) -> Data:
    """Return the data at `path`.

    `target` names the target column of a table, by default its last column.

    Raises:
        InputError: If the file cannot be read, or its content is not a data set.
    """
    file = resolve_data_path(path)
    return read_file(file, target, file.stat().st_mtime_ns)


@cache
def read_file(file: Path, target: str | None, modified: int) -> Data:
    """Return the data of a file or folder.

    `modified`, its modification time in ns, is part of the cache key.

    Raises:
        InputError: If the file cannot be read, or its content is not a data set.
    """
    if file.is_dir():
        return split_data(read_folder(file))
    if file.suffix == ".npz":
        return read_npz(file)
    if file.suffix in (".csv", ".tsv"):
        return standardize(split_data(read_table(file, target)))
    raise InputError(f"{file}: unknown file type; use .csv, .tsv, .npz or a folder of images")


def split_data(whole: Split, test: Split | None = None) -> Data:
    """Split samples into train, val and test, stratified by class.

    With `test` given, the samples are split into train and val.

    Raises:
        InputError: If there are too few samples for a held-out split.
    """
    inputs, targets = whole
    held_out = round(HELD_OUT_SHARE * len(targets))
    if held_out == 0:
        raise InputError(f"{len(targets)} samples are too few to split into training and held-out data")
    classes = torch.zeros_like(targets, dtype=torch.int64) if targets.is_floating_point() else targets
    train, val, rest = split_stratified(classes, held_out, seed=0)
    if test is None:
        test = inputs[rest], targets[rest]
    else:
        train = torch.cat([train, rest]).sort().values
    return Data((inputs[train], targets[train]), (inputs[val], targets[val]), test)


def standardize(data: Data) -> Data:
    """Standardize each column of the inputs (N, F) by the training split."""
    mean, deviation = data.train[0].mean(0), data.train[0].std(0, correction=0)
    divisor = deviation.where(deviation > 0, 1)

    def scale(split: Split) -> Split:
        return (split[0] - mean) / divisor, split[1]

    return data.map_splits(scale)


def standardize_targets(data: Data) -> tuple[Data, float]:
    """Standardize the targets (N,) by the training split; return their standard deviation, too.

    Raises:
        InputError: If the targets are classes.
    """
    targets = data.train[1]
    if not targets.is_floating_point():
        raise InputError(
            "standardize_target needs numbers as targets, but the targets of this data are classes: remove it"
        )
    mean, deviation = targets.double().mean(), float(targets.double().std(correction=0)) or 1.0

    def scale(split: Split) -> Split:
        return split[0], ((split[1].double() - mean) / deviation).to(split[1].dtype)

    return data.map_splits(scale), deviation


def read_npz(path: Path) -> Data:
    """Read a data set from named arrays in a .npz file.

    The names are `x`, `y`, or `x_train`, `y_train` and optionally `x_val`, `y_val`, `x_test`, `y_test`. `x` of shape
    (N, F) is a table; (N, H, W), (N, H, W, C) and (N, C, H, W) are images.

    Raises:
        InputError: If the file cannot be read or its arrays do not fit together.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # ValueError: pickled objects, which are refused
        raise InputError(f"{path} cannot be read: {error}") from None
    endings = [ending for ending in SPLIT_SUFFIXES if f"x{ending}" in arrays]
    if not {"", "_train"} & set(endings):
        raise InputError(f"{path} must hold x and y, or x_train and y_train; it has {', '.join(arrays) or 'no arrays'}")
    inputs = [read_npz_inputs(arrays, ending, path) for ending in endings]
    targets = encode_targets([value for ending in endings for value in arrays[f"y{ending}"].reshape(-1).tolist()])
    parts = zip(inputs, targets.split([len(each) for each in inputs]), strict=True)
    splits: dict[str, Split] = dict(zip(endings, parts, strict=True))
    whole, val, test = splits[endings[0]], splits.get("_val"), splits.get("_test")
    data = split_data(whole, test) if val is None else Data(whole, val, test)
    return standardize(data) if data.train[0].dim() == 2 else data


SPLIT_SUFFIXES = ("", "_train", "_val", "_test")


def read_npz_inputs(arrays: dict[str, NDArray[Any]], ending: str, path: Path) -> Tensor:
    """Return the inputs of one split, (N, F) or (N, C, H, W).

    The dtype is uint8 for images of bytes, else float32.

    Raises:
        InputError: If the inputs or the targets are missing, of other types, or not of the same length.
    """
    inputs, targets = (arrays.get(letter + ending) for letter in "xy")
    if inputs is None or targets is None or inputs.ndim == 0 or targets.size != len(inputs):
        raise InputError(f"{path} must hold both x{ending} and y{ending}, with one target per sample")
    if inputs.dtype.kind not in "buif" or targets.dtype.kind not in "buifU":
        raise InputError(f"{path}: x{ending} must be numbers, and y{ending} numbers or words")
    in_bytes = inputs.dtype == np.uint8 and inputs.ndim > 2
    return to_channels_first(torch.from_numpy(inputs if in_bytes else inputs.astype(np.float32)), path)


def to_channels_first(values: Tensor, path: Path) -> Tensor:
    """Return a table (N, F) unchanged, images as (N, C, H, W).

    Images may have shape (N, H, W), (N, H, W, C) or (N, C, H, W).

    Raises:
        InputError: If `values` has another number of dimensions.
    """
    if values.dim() == 2:
        return values
    if values.dim() == 3:
        return values.unsqueeze(1)
    if values.dim() == 4:
        return values.permute(0, 3, 1, 2).contiguous() if values.shape[3] in (1, 3, 4) else values
    raise InputError(f"{path}: x must be a table or images, not {values.dim()}-dimensional")
