"""What a run that was watched leaves to be looked at: numbers in one small .npz file, which needs numpy alone to read.

It lies at `<database>.files/KEY/portrait.npz`, is written by `labbench.train.diagnostics.portrait` and drawn by
`labbench.portraits.draw`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labbench.errors import InputError
from labbench.files import PORTRAIT, files_folder, run_folder, write_atomically

if TYPE_CHECKING:  # the TUI's first paint does without numpy
    import numpy as np
    from numpy.typing import NDArray

NO_PORTRAIT_MESSAGE = "no pictures of its network: a grid with `[runtime] watch = true` leaves some at the end of a run"
"""Said of a run without a portrait."""
HISTOGRAM_BINS = 16
"""Of a histogram."""
HistogramKind = Literal["activations", "gradients"]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Validation samples that the network got most confidently wrong, the surest first."""

    images: NDArray[np.uint8]
    """(K, height, width, 1 or 3)"""
    labels: NDArray[np.int64]
    """(K,): the true classes."""
    probabilities: NDArray[np.float32]
    """(K, classes): as the network sees them."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The classes of a network of two inputs, over the range of the points."""

    scores: NDArray[np.float16]
    """(rows, columns, classes): probabilities; the first row is that of the largest second input."""
    bounds: tuple[float, float, float, float]
    """The least and largest first input, the least and largest second one: where the outermost cells are centred."""
    points: NDArray[np.float32]
    """(N, 2): validation samples."""
    labels: NDArray[np.int64]
    """(N,)"""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the outputs of a layer, or the gradients by its parameters, were spread after an epoch."""

    epoch: int
    kind: HistogramKind
    layer: str
    low: float
    """Where the first bin begins; of gradients it is the decimal logarithm of the magnitude that is counted."""
    high: float
    counts: NDArray[np.int64]
    """(BINS,): what is outside is counted in the outermost."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """All that there is to look at; None for what such a network has not."""

    epoch: int
    confusion: NDArray[np.int64] | None = None
    """(classes, classes): validation samples by true class (row) and the network's (column)."""
    mistakes: Mistakes | None = None
    plane: Plane | None = None
    weights: NDArray[np.float32] | None = None
    """(K, height, width, 1 or 3): those of first-layer units, the largest first."""
    histograms: Sequence[Histogram] = field(default=())


def portrait_path(database: Path, key: str) -> Path:
    """Return the path of a run's portrait, which may not exist."""
    return run_folder(files_folder(database), key) / PORTRAIT


def write_portrait(path: Path, portrait: Portrait) -> None:
    """Write the file, which is whole or not there."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        np.savez_compressed(file, **_to_arrays(portrait))


def read_portrait(path: Path) -> Portrait | None:
    """The portrait in the file, None where there is none. Raises InputError for a file that is no portrait."""
    if not path.is_file():
        return None
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return _from_arrays({name: file[name] for name in file.files})
    except (
        AttributeError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path} is no portrait of a run ({error}): delete it, or train the run again") from error


def _to_arrays(portrait: Portrait) -> dict[str, Any]:
    import numpy as np

    arrays: dict[str, Any] = {"epoch": portrait.epoch}
    if portrait.confusion is not None:
        arrays["confusion"] = portrait.confusion
    if (mistakes := portrait.mistakes) is not None:
        arrays |= {f"mistakes/{name}": getattr(mistakes, name) for name in ("images", "labels", "probabilities")}
    if (plane := portrait.plane) is not None:
        arrays |= {f"plane/{name}": getattr(plane, name) for name in ("scores", "bounds", "points", "labels")}
    if portrait.weights is not None:
        arrays["weights"] = portrait.weights
    if portrait.histograms:
        arrays |= {
            f"histograms/{name}": np.array([getattr(one, name) for one in portrait.histograms])
            for name in ("epoch", "kind", "layer", "low", "high", "counts")
        }
    return arrays


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> Portrait:
    """The reverse. Raises ValueError or KeyError where the arrays do not fit together."""
    mistakes = plane = None
    histograms: list[Histogram] = []
    if "mistakes/images" in arrays:
        images = _check_shape(arrays["mistakes/images"], 4, channels=True).astype("uint8")
        labels, probabilities = (
            arrays["mistakes/labels"].astype("int64"),
            _check_shape(arrays["mistakes/probabilities"], 2),
        )
        _check_equal_lengths(images, labels, probabilities)
        mistakes = Mistakes(images, labels, probabilities)
    if "plane/scores" in arrays:
        points, labels = _check_shape(arrays["plane/points"], 2), arrays["plane/labels"].astype("int64")
        _check_equal_lengths(points, labels)
        left, right, bottom, top = _check_finite(arrays["plane/bounds"]).astype(float).tolist()
        plane = Plane(_check_shape(arrays["plane/scores"], 3), (left, right, bottom, top), points, labels)
    if "histograms/counts" in arrays:
        columns = [arrays[f"histograms/{name}"] for name in ("epoch", "kind", "layer", "low", "high", "counts")]
        _check_shape(columns[-1], 2)
        _check_equal_lengths(*columns)
        for epoch, kind, layer, low, high, counts in zip(*columns, strict=True):
            named: HistogramKind = "gradients" if str(kind) == "gradients" else "activations"
            histograms.append(Histogram(int(epoch), named, str(layer), float(low), float(high), counts))
    confusion, weights = arrays.get("confusion"), arrays.get("weights")
    if confusion is not None and (confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]):
        raise ValueError("a confusion matrix is square")
    if weights is not None:
        _check_shape(weights, 4, channels=True)
    return Portrait(int(arrays["epoch"]), confusion, mistakes, plane, weights, histograms)


def _check_shape(array: NDArray[Any], dimensions: int, *, channels: bool = False) -> NDArray[Any]:
    _check_finite(array)
    if array.ndim != dimensions or not array.size or (channels and array.shape[-1] not in (1, 3)):
        raise ValueError(f"an array has the shape {array.shape}")
    return array


def _check_finite(array: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if not np.isfinite(array).all():
        raise ValueError("not all numbers are finite")
    return array


def _check_equal_lengths(*arrays: NDArray[Any]) -> None:
    if len({len(array) for array in arrays}) != 1:
        raise ValueError("arrays that belong together have different lengths")
