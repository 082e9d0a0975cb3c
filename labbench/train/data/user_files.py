"""A person's own data: a table in CSV, arrays in .npz, or a folder of images with a folder for each class."""

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
from labbench.params.files import resolve_data_path
from labbench.train.data.csv_table import encode_targets, read_table
from labbench.train.data.dataset import Data, Split, split_stratified
from labbench.train.data.image_folder import read_folder

HELD_OUT_SHARE = 0.15
"""Share of the samples for validation, and as much for the test, where they are not split already."""


def load_user_data(path: str, target: str | None) -> Data:
    """The data at `path`; `target` is the column of a table that is to be told from the others.

    Raises InputError where nothing can be made of them.
    """
    place = resolve_data_path(path)
    return read_file(place, target, place.stat().st_mtime_ns)


@cache
def read_file(place: Path, target: str | None, changed: int) -> Data:
    """The data of a file as it was `changed` last."""
    if place.is_dir():
        return split_data(read_folder(place))
    if place.suffix == ".npz":
        return read_npz(place)
    if place.suffix in (".csv", ".tsv"):
        return standardise(split_data(read_table(place, target)))
    raise InputError(f"{place}: labbench reads .csv, .tsv, .npz and folders of images")


def split_data(whole: Split, test: Split | None = None) -> Data:
    """All samples as train, val and test, classes in proportion; where there is a test, as train and val."""
    inputs, targets = whole
    held_out = round(HELD_OUT_SHARE * len(targets))
    if held_out == 0:
        raise InputError(f"{len(targets)} samples are too few to learn from and to judge by")
    classes = torch.zeros_like(targets, dtype=torch.int64) if targets.is_floating_point() else targets
    train, val, last = split_stratified(classes, held_out, seed=0)
    if test is None:
        test = inputs[last], targets[last]
    else:
        train = torch.cat([train, last]).sort().values
    return Data((inputs[train], targets[train]), (inputs[val], targets[val]), test)


def standardise(data: Data) -> Data:
    """The columns with mean 0 and deviation 1 in the training data."""
    mean, deviation = data.train[0].mean(0), data.train[0].std(0, correction=0)
    scale = deviation.where(deviation > 0, 1)

    def scaled(split: Split) -> Split:
        return (split[0] - mean) / scale, split[1]

    return Data(scaled(data.train), scaled(data.val), None if data.test is None else scaled(data.test))


def read_npz(path: Path) -> Data:
    """Arrays `x` and `y`, or `x_train` and `y_train` with `x_test`, `y_test` and perhaps `x_val`, `y_val`.

    `x` of two dimensions is a table; of three or four, images: (N, H, W), (N, H, W, C) or (N, C, H, W).
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # ValueError: objects, which are code
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
    return standardise(data) if data.train[0].dim() == 2 else data


SPLIT_SUFFIXES = ("", "_train", "_val", "_test")


def read_npz_inputs(arrays: dict[str, NDArray[Any]], ending: str, path: Path) -> Tensor:
    """The inputs of one split, after a look at the targets: bytes for images in bytes, else float32."""
    inputs, targets = (arrays.get(letter + ending) for letter in "xy")
    if inputs is None or targets is None or inputs.ndim == 0 or targets.size != len(inputs):
        raise InputError(f"{path}: x{ending} and y{ending} must both be there, with one target a sample")
    if inputs.dtype.kind not in "buif" or targets.dtype.kind not in "buifU":
        raise InputError(f"{path}: x{ending} must be numbers, and y{ending} numbers or words")
    in_bytes = inputs.dtype == np.uint8 and inputs.ndim > 2
    return to_channels_first(torch.from_numpy(inputs if in_bytes else inputs.astype(np.float32)), path)


def to_channels_first(values: Tensor, path: Path) -> Tensor:
    """A table (N, F) as it is, images as (N, C, H, W)."""
    if values.dim() == 2:
        return values
    if values.dim() == 3:
        return values.unsqueeze(1)
    if values.dim() == 4:
        return values.permute(0, 3, 1, 2).contiguous() if values.shape[3] in (1, 3, 4) else values
    raise InputError(f"{path}: x must be a table or images, not {values.dim()}-dimensional")
