"""Placement of data: on the device of the models, or on the host if the models would have too little memory.

Placement does not change results: the batches are the same, index by index. Datasets are read on demand.
"""

from __future__ import annotations

import torch

from labbench.train.data.dataset import Data, Split
from labbench.train.data.loading import Datasets, DatasetSource
from labbench.train.data.samples import list_tensors
from labbench.train.precision import trained_dtype

MAX_DATA_SHARE = 0.5
"""Largest share of a device's free memory used for data; the rest is for models and activations."""


def place_data(
    data: Data | Datasets, device: torch.device, dtype: torch.dtype, placement: str = "auto", *, loaders: int = 0
) -> Data | DatasetSource:
    """Return the data for models on `device`, floating-point tensors as `dtype`.

    `placement` is the value of `[runtime] data`: "device", "host", or "auto", which places the data on the device
    unless it takes more than `MAX_DATA_SHARE` of the free memory of a CUDA device. `loaders` worker processes read the
    samples of Datasets.
    """
    if isinstance(data, Datasets):
        return DatasetSource(data, device, dtype, loaders)
    fits = placement == "auto" and fits_on_device(total_bytes(data, dtype), free_bytes(device))
    resident = placement == "device" or fits
    return data.to(device, dtype, resident=resident)


def fits_on_device(data_bytes: int, free: int | None) -> bool:
    """Return True if data takes at most `MAX_DATA_SHARE` of `free` bytes.

    `free` is None for a device that shares the host's memory.
    """
    return free is None or data_bytes <= MAX_DATA_SHARE * free


def free_bytes(device: torch.device) -> int | None:
    """Return the free bytes of a CUDA device.

    Returns None if the device shares the host's memory.
    """
    if device.type != "cuda":
        return None
    free: int = torch.cuda.mem_get_info(device)[0]
    return free


def total_bytes(data: Data, dtype: torch.dtype) -> int:
    """Return the bytes of all splits with floating-point tensors as `dtype`."""
    splits: list[Split | None] = [data.train, data.val, data.test]
    tensors = [tensor for split in splits if split is not None for tensor in list_tensors(split)]
    return sum(x.numel() * trained_dtype(x.dtype, dtype).itemsize for x in tensors)
