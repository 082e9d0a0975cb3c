"""Portrait file of a watched run: the arrays behind the pictures of its network, as one small .npz file.

The file is `<database>.files/KEY/portrait.npz`. `labbench.train.diagnostics.portrait` writes it,
`labbench.portraits.draw` draws it; reading needs only numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labbench.errors import InputError
from labbench.files import PORTRAIT, files_folder, run_folder, write_atomically

if TYPE_CHECKING:  # the first paint of the TUI must not import numpy
    import numpy as np
    from numpy.typing import NDArray

NO_PORTRAIT_MESSAGE = (
    "no pictures of the network: set `[runtime] watch = true` in the grid file to draw them at the end of each run"
)
"""Message for a run without a portrait."""
_MAX_BYTES = 100_000_000
"""Maximum size of all arrays of a portrait."""
HISTOGRAM_BINS = 16
"""Number of bins of a histogram."""
HistogramKind = Literal["activations", "gradients"]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Misclassified validation samples, the most confident first."""

    images: NDArray[np.uint8]
    """Images, shape (K, height, width, 1 or 3)."""
    labels: NDArray[np.int64]
    """True classes, shape (K,)."""
    probabilities: NDArray[np.float32]
    """Predicted probabilities, shape (K, classes)."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Predictions of a network with two inputs over the input plane."""

    scores: NDArray[np.float16]
    """Predicted probabilities, shape (rows, columns, classes); the first row has the largest second input."""
    bounds: tuple[float, float, float, float]
    """(smallest first input, largest first, smallest second, largest second) at the centres of the outermost cells."""
    points: NDArray[np.float32]
    """Validation samples, shape (N, 2)."""
    labels: NDArray[np.int64]
    """True classes of the validation samples, shape (N,)."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Distribution of a layer's outputs, or of the gradients of its parameters, after an epoch."""

    epoch: int
    kind: HistogramKind
    layer: str
    low: float
    """Lower edge of the first bin; for gradients, log10 of the magnitude."""
    high: float
    """Upper edge of the last bin; for gradients, log10 of the magnitude."""
    counts: NDArray[np.int64]
    """Counts per bin, shape (HISTOGRAM_BINS,); the outermost bins include values beyond them."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """All pictures of one network; None for those that do not apply to it."""

    epoch: int
    confusion: NDArray[np.int64] | None = None
    """Validation samples by true class (row) and predicted class (column), shape (classes, classes)."""
    mistakes: Mistakes | None = None
    plane: Plane | None = None
    weights: NDArray[np.float32] | None = None
    """Weights of first-layer units, largest first, shape (K, height, width, 1 or 3)."""
    histograms: Sequence[Histogram] = field(default=())


def portrait_path(database: Path, key: str) -> Path:
    """Return the path of a run's portrait, which may not exist."""
    return run_folder(files_folder(database), key) / PORTRAIT


def write_portrait(path: Path, portrait: Portrait) -> None:
    """Write a portrait atomically. Raises OSError if the file cannot be written."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        np.savez_compressed(file, **_to_arrays(portrait))


def read_portrait(path: Path) -> Portrait | None:
    """Return the portrait in a file, or None if the file does not exist. Raises InputError for an invalid file."""
    if not path.is_file():
        return None
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            _check_size(sum(member.file_size for member in file.zip.infolist()))
            return _from_arrays({name: file[name] for name in file.files})
    except Exception as error:  # numpy and zipfile raise anything for a damaged file
        raise InputError(f"{path} is not a valid portrait ({error}): delete it, or train the run again") from error


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
            f"histograms/{name}": np.array([getattr(histogram, name) for histogram in portrait.histograms])
            for name in ("epoch", "kind", "layer", "low", "high", "counts")
        }
    return arrays


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> Portrait:
    """Build a portrait from the arrays of a file. Raises ValueError or KeyError if they are inconsistent."""
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
            checked_kind: HistogramKind = "gradients" if str(kind) == "gradients" else "activations"
            histograms.append(Histogram(int(epoch), checked_kind, str(layer), float(low), float(high), counts))
    confusion, weights = arrays.get("confusion"), arrays.get("weights")
    if confusion is not None and (confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]):
        raise ValueError("the confusion matrix is not square")
    if weights is not None:
        _check_shape(weights, 4, channels=True)
    return Portrait(int(arrays["epoch"]), confusion, mistakes, plane, weights, histograms)


def _check_size(size: int) -> None:
    """Raise ValueError if a file expands to more than any portrait has."""
    if size > _MAX_BYTES:
        raise ValueError(f"it expands to {size / 1e6:.0f} MB, and no portrait has more than {_MAX_BYTES / 1e6:.0f} MB")


def _check_shape(array: NDArray[Any], dimensions: int, *, channels: bool = False) -> NDArray[Any]:
    _check_finite(array)
    if array.ndim != dimensions or not array.size or (channels and array.shape[-1] not in (1, 3)):
        raise ValueError(f"an array has the unexpected shape {array.shape}")
    return array


def _check_finite(array: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    if not np.isfinite(array).all():
        raise ValueError("not all numbers are finite")
    return array


def _check_equal_lengths(*arrays: NDArray[Any]) -> None:
    if len({len(array) for array in arrays}) != 1:
        raise ValueError("arrays that belong together have different lengths")
