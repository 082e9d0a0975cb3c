"""A convolution as products of matrices, of images whose samples are innermost: (C, H, W, N)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

ROWS_BYTES = 2**20
"""Of the patches of so many rows of the output as are looked at together, at least one: about a core's own cache."""

PATCHES_BYTES = 2**25
"""Of the patches of one row, or of the images, of so many samples as are looked at together: 32 MB."""

MIN_PART_SAMPLES = 8
"""Together, nevertheless: with fewer, copies are too short."""


class Patches:
    """The patches that a convolution's filters look at, of the images of one run at a time, some rows at a time."""

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
        height, width = output_size((H, W), kernel, stride, padding)
        self._padded: Array = np.zeros((C, H + 2 * padding[0], W + 2 * padding[1], N), dtype)  # whose rim stays zero
        self._inside = np.s_[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
        of_a_row = C * prod(kernel) * width * N
        most = max(1, ROWS_BYTES // (of_a_row * dtype.itemsize))
        at_a_time = ceil(height / ceil(height / most))
        memory: Array = np.empty(at_a_time * of_a_row, dtype)
        self._blocks = [
            PatchBlock(slice(top, min(top + at_a_time, height)), width, self._padded, kernel, stride, padding, memory)
            for top in range(0, height, at_a_time)
        ]

    def iter_blocks(self, images: Array) -> Iterator[tuple[slice, Array]]:
        """Of images (C, H, W, N): rows of the output, and (C * kernel height * kernel width, rows * W' * N).

        Those are valid until the next ones.
        """
        self._padded[self._inside] = images
        for block in self._blocks:
            np.copyto(block.patches, block.windows)
            yield block.rows, block.flat

    def col2im(self, filters: Array, gradient: Array, images: Array) -> None:
        """Add up the gradients of all patches, filters (O, ...) by (O, H', W', N), where their pixels came from."""
        images.fill(0)
        for block in self._blocks:
            np.matmul(filters.T, gradient[:, block.rows].reshape(len(gradient), -1), out=block.flat)
            for patches, pixels in block.pixels:
                images[pixels] += patches


class PatchBlock:
    """Some rows of the output; the patches of all blocks take turns in one memory."""

    def __init__(
        self,
        rows: slice,
        width: int,
        padded: Array,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        memory: Array,
    ) -> None:
        """`padded` are the images (C, H, W, N) with padding, of which outputs have so many columns."""
        C, high, wide, N = padded.shape
        self.rows = rows
        shape = C, *kernel, rows.stop - rows.start, width, N
        self.patches = memory[: prod(shape)].reshape(shape)
        self.flat = self.patches.reshape(C * prod(kernel), -1)
        channel, row, column, sample = padded.strides
        strides = channel, row, column, row * stride[0], column * stride[1], sample
        self.windows = as_strided(padded[:, rows.start * stride[0] :], shape, strides)
        """The same shape, in the images."""
        self.pixels: list[tuple[Array, tuple[slice, slice, slice]]] = []
        """By place in the kernel, patches and where their pixels are in images without padding."""
        for dy, dx in product(*map(range, kernel)):
            down, from_rows = clip_to_image(rows, dy - padding[0], stride[0], high - 2 * padding[0])
            right, from_columns = clip_to_image(slice(0, width), dx - padding[1], stride[1], wide - 2 * padding[1])
            inside = self.patches[:, dy, dx, down.start - rows.start : down.stop - rows.start, right]
            self.pixels.append((inside, np.s_[:, from_rows, from_columns]))


def clip_to_image(outputs: slice, shift: int, stride: int, size: int) -> tuple[slice, slice]:
    """Those outputs whose pixel, `shift` behind the output's place, is one of an image of that size; and the pixels.

    Where there are none, both are empty, somewhere.
    """
    first = max(outputs.start, -(shift // stride))
    end = max(first, min(outputs.stop, (size - 1 - shift) // stride + 1))
    return slice(first, end), slice(first * stride + shift, end * stride + shift, stride)


def output_size(
    image: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Height and width of what a convolution of such images gives."""
    height, width = ((image[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def split_samples(samples: int, bytes_a_sample: int) -> Iterator[slice]:
    """All samples, in parts of at most `PATCHES_BYTES`."""
    at_a_time = max(MIN_PART_SAMPLES, PATCHES_BYTES // bytes_a_sample)
    for start in range(0, samples, at_a_time):
        yield slice(start, min(start + at_a_time, samples))
