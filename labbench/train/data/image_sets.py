"""MNIST, Fashion-MNIST and CIFAR-10, read from their published files."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from labbench.errors import LabbenchError
from labbench.params.builtin import IMAGE_SHAPES
from labbench.system.user_folders import cache_path
from labbench.train.data.dataset import Data, Split, stratified_order
from labbench.train.data.downloads import PublishedFile, fetch_files

Bytes = NDArray[np.uint8]

HELD_OUT_SAMPLES = 5000
"""Training samples set aside for validation."""


@dataclass(frozen=True)
class ImageSet:
    """A published image data set of ten classes."""

    files: tuple[PublishedFile, ...]
    read: Callable[[Sequence[Path]], tuple[Split, Split]]
    """Reader of the files at these paths; returns train and test: inputs uint8 (N, C, H, W), classes int64 (N,)."""
    held_out: int = HELD_OUT_SAMPLES


@cache
def load_image_set(name: str) -> Data:
    """Return the data set, downloaded on first use.

    Inputs are uint8 (N, C, H, W), which `corrupt` scales to [0, 1].

    Raises:
        LabbenchError: If a file cannot be downloaded or read.
    """
    image_set = IMAGE_SETS[name]
    whole, test = image_set.read(fetch_files(image_set.files, cache_path(name)))
    order = stratified_order(whole[1], seed=0)
    val, train = (part.sort().values for part in order.split([image_set.held_out, len(order) - image_set.held_out]))
    return Data((whole[0][train], whole[1][train]), (whole[0][val], whole[1][val]), test)


def read_mnist(paths: Sequence[Path]) -> tuple[Split, Split]:
    """Read the four files of MNIST or Fashion-MNIST.

    They are images and labels of train, then of test.
    """
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(read_idx(path)) for path in paths)
    return (train_images.unsqueeze(1), train_labels.long()), (test_images.unsqueeze(1), test_labels.long())


def read_idx(path: Path) -> Bytes:
    """Read a gzipped IDX file of bytes: uint8, of the shape in its header.

    The header is 0, 0, 8 (for bytes) and the number of dimensions, one byte each, then each dimension in 4 bytes.
    Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".

    Raises:
        LabbenchError: If the file is not IDX, is truncated or cannot be decompressed.
    """
    content = decompress_file(path)
    end = 4 + 4 * (content[3] if len(content) > 3 else 0)
    header, values = content[4:end], content[end:]
    if content[:3] == b"\0\0\x08" and len(content) >= end:
        shape = np.frombuffer(header, dtype=">u4").tolist()
        if len(values) == prod(shape):
            return np.frombuffer(bytearray(values), dtype=np.uint8).reshape(shape)
    raise LabbenchError(f"{path} is not an IDX file of bytes, or is truncated; remove it to download it again")


def decompress_file(path: Path) -> bytes:
    """Return the decompressed content of a gzip file.

    Raises LabbenchError if it is damaged.
    """
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LabbenchError(f"{path} cannot be decompressed: {error}; remove it to download it again") from None


CIFAR_SHAPE = IMAGE_SHAPES["cifar10"]
CIFAR_TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
CIFAR_TEST = ["test_batch.bin"]


def read_cifar(paths: Sequence[Path]) -> tuple[Split, Split]:
    """Read the binary archive of CIFAR-10.

    It has five files of training samples and one of test samples.

    Raises:
        LabbenchError: If the archive is damaged or lacks a file.
    """
    (path,) = paths
    batches = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in CIFAR_TRAIN + CIFAR_TEST and (file := archive.extractfile(member)) is not None:
                    batches[name] = read_records(file.read(), path)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise LabbenchError(f"{path} cannot be unpacked: {error}; remove it to download it again") from None
    missing = [name for name in CIFAR_TRAIN + CIFAR_TEST if name not in batches]
    if missing:
        raise LabbenchError(f"{path} lacks {', '.join(missing)}; remove it to download it again")
    train, test = (join_splits([batches[name] for name in names]) for names in (CIFAR_TRAIN, CIFAR_TEST))
    return train, test


def read_records(content: bytes, path: Path) -> Split:
    """Read the records of a CIFAR-10 file.

    A record is one byte for the class, then the image: red, green and blue, each row by row.

    Raises:
        LabbenchError: If the length of the file is not a multiple of the size of a record.
    """
    size = 1 + prod(CIFAR_SHAPE)
    if not content or len(content) % size:
        raise LabbenchError(
            f"{path} contains a file whose size is not a multiple of a record's {size} bytes; "
            "remove it to download it again"
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, size)
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0].long()


def join_splits(splits: Sequence[Split]) -> Split:
    inputs, targets = (torch.cat(parts) for parts in zip(*splits, strict=True))
    return inputs, targets


def published_files(names_and_sums: Sequence[tuple[str, str]], *bases: str) -> tuple[PublishedFile, ...]:
    return tuple(PublishedFile(name, digest, tuple(base + name for base in bases)) for name, digest in names_and_sums)


MNIST = published_files(
    [
        ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ],
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MNIST = published_files(
    [
        ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ],
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
CIFAR10 = published_files(
    [("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")],
    "https://www.cs.toronto.edu/~kriz/",
)

IMAGE_SETS: dict[str, ImageSet] = {
    "mnist": ImageSet(MNIST, read_mnist),
    "fashion_mnist": ImageSet(FASHION_MNIST, read_mnist),
    "cifar10": ImageSet(CIFAR10, read_cifar),
}
"""The image data sets, by the name of their task."""
