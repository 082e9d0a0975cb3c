"""Where a training's data lies: beside the models, or on the host where it would not leave them enough room.

This is the one place that decides. What is trained does not depend on it: the batches are the same, index by index.
Datasets lie nowhere: they are read as they are needed.
"""

from __future__ import annotations

import torch

from labbench.train.data.dataset import Data, Split
from labbench.train.data.loading import Datasets, DatasetSource
from labbench.train.dtypes import trained_dtype

MAX_DATA_SHARE = 0.5
"""Of a device's free memory for data; the rest is for models and what they compute."""


def place_data(
    data: Data | Datasets, device: torch.device, dtype: torch.dtype, wish: str = "auto", *, loaders: int = 0
) -> Data | DatasetSource:
    """The data for models on `device`, floating-point numbers as `dtype`.

    `wish` is `[runtime] data`: "device" and "host" are obeyed, "auto" keeps data on the host that takes more than
    `MAX_DATA_SHARE` of what a CUDA device has free. `loaders` processes read samples of Datasets.
    """
    if isinstance(data, Datasets):
        return DatasetSource(data, device, dtype, loaders)
    resident = wish == "device" or (wish == "auto" and fits_on_device(total_bytes(data, dtype), free_bytes(device)))
    return data.to(device, dtype, resident=resident)


def fits_on_device(data_bytes: int, free: int | None) -> bool:
    """Whether data of that size may lie on a device with so many bytes free; None is the host's own memory."""
    return free is None or data_bytes <= MAX_DATA_SHARE * free


def free_bytes(device: torch.device) -> int | None:
    """What a CUDA device has free; None where device and host share their memory."""
    if device.type != "cuda":
        return None
    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def total_bytes(data: Data, dtype: torch.dtype) -> int:
    """The bytes of all splits, floating-point numbers as `dtype`."""
    splits: list[Split | None] = [data.train, data.val, data.test]
    parts = [part for split in splits if split is not None for part in split]
    return sum(x.numel() * trained_dtype(x.dtype, dtype).itemsize for x in parts)
