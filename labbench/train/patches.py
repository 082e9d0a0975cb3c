"""A convolution as products of matrices, of images whose samples are innermost: (C, H, W, N)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

PATCHES_BYTES = 2**25
"""Of the patches of one run's images at a time: 32 MB, however many samples are looked at."""

FEWEST_SAMPLES = 8
"""At a time, nevertheless: with fewer, copies are too short."""


class Patches:
    """The patches that a convolution's filters look at, of the images of one run at a time."""

    def __init__(
        self,
        images: Sequence[int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dtype: np.dtype[Any],
    ) -> None:
        """`images` is (C, H, W, N)."""
        C, H, W, N = images
        high, wide = H + 2 * padding[0], W + 2 * padding[1]
        self.size = outputs_of((H, W), kernel, stride, padding)
        self._padded: Array = np.zeros((C, high, wide, N), dtype)  # whose rim stays zero
        self._sums: Array = np.empty_like(self._padded)
        self._inside = np.s_[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
        self._patches: Array = np.empty((C, *kernel, *self.size, N), dtype)
        self._flat = self._patches.reshape(C * kernel[0] * kernel[1], -1)
        channel, row, column, sample = self._padded.strides
        self._windows = as_strided(
            self._padded, self._patches.shape, (channel, row, column, row * stride[0], column * stride[1], sample)
        )
        ends = [stride[i] * (self.size[i] - 1) + 1 for i in (0, 1)]
        self._shifts = [
            (self._patches[:, dy, dx], self._sums[:, dy : dy + ends[0] : stride[0], dx : dx + ends[1] : stride[1]])
            for dy, dx in product(range(kernel[0]), range(kernel[1]))
        ]

    def of(self, images: Array) -> Array:
        """Of images (C, H, W, N): (C * kernel height * kernel width, H' * W' * N). Valid until the next call."""
        self._padded[self._inside] = images
        np.copyto(self._patches, self._windows)
        return self._flat

    def put_back(self, filters: Array, gradient: Array, images: Array) -> None:
        """Add up the gradients of all patches, filters (O, ...) by (O, H' * W' * N), where their pixels came from."""
        np.matmul(filters.T, gradient, out=self._flat)
        self._sums.fill(0)
        for patches, places in self._shifts:
            places += patches
        images[...] = self._sums[self._inside]


def outputs_of(
    image: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Height and width of what a convolution of such images gives."""
    height, width = ((image[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def in_parts(samples: int, bytes_a_sample: int) -> Iterator[slice]:
    """All samples, in parts whose patches take at most `PATCHES_BYTES`."""
    at_a_time = max(FEWEST_SAMPLES, PATCHES_BYTES // bytes_a_sample)
    for start in range(0, samples, at_a_time):
        yield slice(start, min(start + at_a_time, samples))
