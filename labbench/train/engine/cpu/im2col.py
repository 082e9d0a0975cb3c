"""im2col: a convolution as matrix products.

Images have the samples innermost, (C, H, W, N).

Source: Chellapilla, Puri & Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

ROWS_BYTES = 2**20
"""Maximum bytes of the patches built at a time (at least one output row); about the cache of a core."""

PATCHES_BYTES = 2**25
"""Maximum bytes of one row of patches, or of the images, in one part of the samples: 32 MiB."""

MIN_PART_SAMPLES = 8
"""Minimum number of samples in one part; with fewer, the contiguous copies are too short to be fast."""


class Geometry(NamedTuple):
    """Geometry of a convolution, each pair (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


class Patches:
    """Patches of the images of one run, built for some output rows at a time."""

    def __init__(self, images: Sequence[int], geometry: Geometry, dtype: np.dtype[Any]) -> None:
        """`images` is the shape (C, H, W, N)."""
        C, H, W, N = images
        kernel, _, padding = geometry
        height, width = output_size((H, W), geometry)
        self._padded: Array = np.zeros((C, H + 2 * padding[0], W + 2 * padding[1], N), dtype)  # the border stays zero
        self._inside = np.s_[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
        row_elements = C * prod(kernel) * width * N
        max_rows = max(1, ROWS_BYTES // (row_elements * dtype.itemsize))
        block_rows = ceil(height / ceil(height / max_rows))
        memory: Array = np.empty(block_rows * row_elements, dtype)
        self._blocks = [
            PatchBlock(slice(top, min(top + block_rows, height)), width, self._padded, geometry, memory)
            for top in range(0, height, block_rows)
        ]

    def iter_blocks(self, images: Array) -> Iterator[tuple[slice, Array]]:
        """Yield output rows and their patches, shape (C * kernel height * kernel width, rows * W' * N).

        `images` has shape (C, H, W, N), W' is the width of the output. Patches are valid until the next iteration.
        """
        self._padded[self._inside] = images
        for block in self._blocks:
            np.copyto(block.patches, block.windows)
            yield block.rows, block.flat

    def col2im(self, filters: Array, gradient: Array, images: Array) -> None:
        """Add the gradients of all patches at their pixels and write the sums to `images`.

        `images` becomes d loss / d images, (C, H, W, N). `filters` has shape (O, C * kernel height * kernel width),
        `gradient` is d loss / d outputs, (O, H', W', N).
        """
        images.fill(0)
        for block in self._blocks:
            np.matmul(filters.T, gradient[:, block.rows].reshape(len(gradient), -1), out=block.flat)
            for patches, pixels in block.pixels:
                images[pixels] += patches


class PatchBlock:
    """Patches of some output rows; all blocks share one buffer."""

    def __init__(self, rows: slice, width: int, padded: Array, geometry: Geometry, memory: Array) -> None:
        """Make views for output rows of images with padding.

        `padded` has shape (C, H + 2 * padding, W + 2 * padding, N), `width` is the output's width. `memory` is the
        shared buffer, shape (elements,).
        """
        kernel, stride, padding = geometry
        C, padded_height, padded_width, N = padded.shape
        self.rows = rows
        shape = C, *kernel, rows.stop - rows.start, width, N
        self.patches = memory[: prod(shape)].reshape(shape)
        self.flat = self.patches.reshape(C * prod(kernel), -1)
        channel, row, column, sample = padded.strides
        strides = channel, row, column, row * stride[0], column * stride[1], sample
        self.windows = as_strided(padded[:, rows.start * stride[0] :], shape, strides)
        """View of the padded images with the shape of `patches`: (C, kernel height, kernel width, rows, width, N)."""
        self.pixels: list[tuple[Array, tuple[slice, slice, slice]]] = []
        """Per position in the kernel: view of the patches, and the index of their pixels in the unpadded images."""
        for dy, dx in product(*map(range, kernel)):
            down, from_rows = clip_to_image(rows, dy - padding[0], stride[0], padded_height - 2 * padding[0])
            right, from_columns = clip_to_image(
                slice(0, width), dx - padding[1], stride[1], padded_width - 2 * padding[1]
            )
            inside = self.patches[:, dy, dx, down.start - rows.start : down.stop - rows.start, right]
            self.pixels.append((inside, np.s_[:, from_rows, from_columns]))


def clip_to_image(outputs: slice, shift: int, stride: int, size: int) -> tuple[slice, slice]:
    """Return the outputs whose pixel lies in the image, and these pixels.

    The pixel of an output is at `output * stride + shift`, the image has `size` pixels. Both slices are empty if there
    are none.
    """
    first = max(outputs.start, -(shift // stride))
    end = max(first, min(outputs.stop, (size - 1 - shift) // stride + 1))
    return slice(first, end), slice(first * stride + shift, end * stride + shift, stride)


def output_size(image: tuple[int, int], geometry: Geometry) -> tuple[int, int]:
    """Return (height, width) of the output of a convolution of an image (height, width)."""
    kernel, stride, padding = geometry
    height, width = ((image[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def split_samples(samples: int, sample_bytes: int) -> Iterator[slice]:
    """Yield slices of the samples, each of at most `PATCHES_BYTES` bytes or of `MIN_PART_SAMPLES` samples."""
    part_samples = max(MIN_PART_SAMPLES, PATCHES_BYTES // sample_bytes)
    for start in range(0, samples, part_samples):
        yield slice(start, min(start + part_samples, samples))
