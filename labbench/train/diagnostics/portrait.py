"""Portrait of a watched run: confusion matrix, mistakes, decision boundary, first-layer weights, histograms.

`NetworkProbe` provides one plain module, which gets the weights of the run at the end of an epoch and at the end of the
run. The training itself is not affected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from labbench.files import PORTRAIT, run_folder
from labbench.portraits.file import HISTOGRAM_BINS, Histogram, HistogramKind, Mistakes, Plane, Portrait, write_portrait
from labbench.records import Config
from labbench.train.data.dataset import DataSource
from labbench.train.diagnostics.probe import NetworkProbe
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.tasks.models import ACTIVATIONS

MAX_MISTAKES, MAX_UNITS, MAX_POINTS = 12, 24, 300
"""Maximum numbers of misclassified samples, first-layer units and points in the plane."""
PLANE_ROWS, PLANE_COLUMNS = 40, 80
"""Size of the grid on which the decision boundary is evaluated."""
MAX_CLASSES = 1000
"""Maximum number of classes in a confusion matrix."""
MAX_IMAGE_SIDE = 32
"""Longer side of a stored image in pixels; larger images are scaled down."""
BATCH_SIZE = 512
"""Samples per forward pass."""
_MAX_MAGNITUDE = 1e300
"""Magnitude above which values, like NaN, are left out of histograms: the bin width would overflow."""
GRADIENT_DECADES = (-8.0, 0.0)
"""Range of log10 |gradient| in histograms, equal for all layers and epochs: bins of half a decade."""


class PortraitWriter:
    """Write the portraits of the runs of a stack."""

    def __init__(self, probe: NetworkProbe, data: DataSource, files: Path) -> None:
        self._probe, self._data, self._files = probe, data, files
        self._histograms: dict[str, list[Histogram]] = {}
        """Histograms by run, since the run started or was resumed."""
        self._layer_modules = {
            name: module
            for name, module in probe.modules.items()
            if isinstance(module, tuple(ACTIVATIONS.values()))
            or (not list(module.children()) and list(module.parameters()))
        }

    def record_histograms(self, run: str, epoch: int, weights: Mapping[str, Tensor], config: Config) -> None:
        """Record histograms of activations and gradients if `epoch` is a power of two.

        Other epochs are a no-op. `weights` is the state_dict of the run's model, tensors of any shape.
        """
        if epoch & (epoch - 1) == 0:
            with sync_point(SyncPoint.PORTRAIT):
                self._histograms.setdefault(run, []).extend(self._make_histograms(epoch, weights, config))

    def write(self, run: str, epoch: int, weights: Mapping[str, Tensor], config: Config) -> None:
        """Write the portrait of a run that has ended.

        No-op if a weight is not finite. `weights` is the state_dict of the run's model, tensors of any shape.
        """
        histograms = self._histograms.pop(run, [])
        with sync_point(SyncPoint.PORTRAIT):
            self._write(run, epoch, histograms, weights, config)

    def _write(
        self, run: str, epoch: int, histograms: list[Histogram], weights: Mapping[str, Tensor], config: Config
    ) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            return
        if not histograms or histograms[-1].epoch != epoch:
            histograms += self._make_histograms(epoch, weights, config)
        self._probe.model.load_state_dict(weights)
        with torch.no_grad():
            write_portrait(run_folder(self._files, run) / PORTRAIT, self._make_portrait(epoch, histograms))

    def _make_portrait(self, epoch: int, histograms: list[Histogram]) -> Portrait:
        inputs, targets = self._data.sample_validation()
        if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
            return Portrait(epoch, histograms=histograms)
        weights = first_layer_weights(self._probe.model, inputs)
        outputs = [self._probe.model(part) for part in inputs.split(BATCH_SIZE)]
        if not are_classes(targets) or not all(isinstance(part, Tensor) and part.dim() == 2 for part in outputs):
            return Portrait(epoch, weights=weights, histograms=histograms)
        targets = targets.long()
        probabilities = to_probabilities(torch.cat(outputs))
        return Portrait(
            epoch,
            confusion_matrix(probabilities, targets),
            find_mistakes(inputs, targets, probabilities),
            make_plane(self._probe.model, inputs, targets),
            weights,
            histograms,
        )

    def _make_histograms(self, epoch: int, weights: Mapping[str, Tensor], config: Config) -> list[Histogram]:
        activations: dict[str, Tensor] = {}

        def make_hook(name: str) -> Any:
            def record_outputs(module: nn.Module, _: Any, outputs: Any) -> None:
                if isinstance(outputs, Tensor):
                    activations[name] = outputs.detach()

            return record_outputs

        handles = [module.register_forward_hook(make_hook(name)) for name, module in self._layer_modules.items()]
        try:
            gradients = self._probe.compute_gradients(weights, config)
        finally:
            for handle in handles:
                handle.remove()
        histograms = [
            make_histogram(epoch, "activations", name, _flatten_to_numpy([outputs]))
            for name, outputs in activations.items()
        ]
        return histograms + [
            make_histogram(epoch, "gradients", name, _flatten_to_numpy(layer_gradients))
            for name, layer_gradients in gradients.items()
            if layer_gradients
        ]


def make_histogram(epoch: int, kind: HistogramKind, layer: str, values: NDArray[np.float64]) -> Histogram:
    """Return the histogram of a layer's values, shape (values,).

    Activations are counted from the smallest to the largest, gradients by magnitude over `GRADIENT_DECADES`.
    """
    values = values[np.abs(values) < _MAX_MAGNITUDE]
    if kind == "gradients":
        low, high = GRADIENT_DECADES
        values = np.log10(np.maximum(np.abs(values), 10.0**low)).clip(low, high)
    else:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    # np.histogram raises an error if the range is too small for its bins
    bins = ((values - low) / ((high - low) or 1.0) * HISTOGRAM_BINS).astype(np.int64).clip(0, HISTOGRAM_BINS - 1)
    return Histogram(epoch, kind, layer, low, high, np.bincount(bins, minlength=HISTOGRAM_BINS))


def to_probabilities(outputs: Tensor) -> Tensor:
    """Return class probabilities (N, C) for outputs (N, C).

    Probabilities are the softmax of the outputs; a single output (N, 1) is a logit for two classes. NaN becomes 0.
    """
    if outputs.shape[1] == 1:
        return torch.cat([-outputs, outputs], dim=1).sigmoid().nan_to_num()
    return outputs.softmax(dim=1).nan_to_num()


def confusion_matrix(probabilities: Tensor, targets: Tensor) -> NDArray[np.int64]:
    """Return the confusion matrix (C, C) of probabilities (N, C) and targets (N,).

    Rows are true classes, columns predictions; of equal probabilities the lower class is predicted.
    """
    classes = max(probabilities.shape[1], int(targets.max()) + 1)
    pairs = targets * classes + probabilities.argmax(dim=1)
    return pairs.bincount(minlength=classes**2).view(classes, classes).cpu().numpy()


def find_mistakes(inputs: Tensor, targets: Tensor, probabilities: Tensor) -> Mistakes | None:
    """Return the misclassified samples of highest confidence.

    Returns None if the inputs are not images or no sample is misclassified.

    Shapes: inputs (N, channels, height, width), targets (N,), probabilities (N, C).
    """
    confidence, predictions = probabilities.max(dim=1)  # (N,)
    wrong = (predictions != targets).nonzero().squeeze(1)
    if not is_image(inputs) or not len(wrong):
        return None
    chosen = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MAX_MISTAKES]
    low, high = inputs.min(), inputs.max()
    images = (_shrink(inputs[chosen].double()) - low) / (high - low).clamp(min=1e-12) * 255
    return Mistakes(
        images.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy(),
        targets[chosen].cpu().numpy(),
        probabilities[chosen].float().cpu().numpy(),
    )


def make_plane(model: nn.Module, inputs: Tensor, targets: Tensor) -> Plane | None:
    """Return the probabilities over the plane of two inputs.

    The plane covers the inputs with a margin. Returns None if there are not two inputs.

    Shapes: inputs (N, 2), targets (N,).
    """
    if inputs.dim() != 2 or inputs.shape[1] != 2 or not inputs.is_floating_point():
        return None
    low, high = inputs.min(dim=0).values, inputs.max(dim=0).values
    margin = 0.08 * (high - low).clamp(min=1e-6)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    y, x = torch.meshgrid(
        torch.linspace(top, bottom, PLANE_ROWS), torch.linspace(left, right, PLANE_COLUMNS), indexing="ij"
    )
    outputs = model(torch.stack([x.flatten(), y.flatten()], dim=1).to(inputs))
    scores = to_probabilities(outputs).view(PLANE_ROWS, PLANE_COLUMNS, -1)
    return Plane(
        scores.half().cpu().numpy(),
        (left, right, bottom, top),
        inputs[:MAX_POINTS].float().cpu().numpy(),
        targets[:MAX_POINTS].cpu().numpy(),
    )


def first_layer_weights(model: nn.Module, inputs: Tensor) -> NDArray[np.float32] | None:
    """Return the first layer's weights as images, ordered by decreasing norm.

    The result has shape (K, height, width, 1 or 3). `inputs` has shape (N, channels, height, width). The images are the
    kernels of a convolution or the rows of a linear layer; None for any other layer or other inputs.
    """
    layer = next((module for module in model.modules() if list(module.parameters(recurse=False))), None)
    if not is_image(inputs):
        return None
    if isinstance(layer, nn.Conv2d) and layer.weight.shape[1] in (1, 3):
        images = layer.weight
    elif isinstance(layer, nn.Linear) and layer.in_features == inputs[0].numel():
        images = layer.weight.view(-1, *inputs.shape[1:])
    else:
        return None
    largest = images.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:MAX_UNITS]
    return _shrink(images.detach()[largest]).float().movedim(1, -1).cpu().numpy()


def are_classes(targets: Tensor) -> bool:
    """Return True for targets (N,) that are class indices.

    Class indices are integers from 0 to `MAX_CLASSES` - 1; the ignored index -100 is not a class.
    """
    if targets.is_floating_point() or targets.dim() != 1:
        return False
    return int(targets.min()) >= 0 and int(targets.max()) < MAX_CLASSES


def is_image(inputs: Tensor) -> bool:
    """Return True for images: floating point, shape (N, 1 or 3, height, width)."""
    return inputs.dim() == 4 and inputs.shape[1] in (1, 3) and inputs.is_floating_point()


def _shrink(images: Tensor) -> Tensor:
    longer = max(images.shape[2:])
    if longer <= MAX_IMAGE_SIDE:
        return images
    height, width = (max(1, round(side * MAX_IMAGE_SIDE / longer)) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))


def _flatten_to_numpy(tensors: list[Tensor]) -> NDArray[np.float64]:
    real = [tensor.abs() if tensor.is_complex() else tensor for tensor in tensors]
    return torch.cat([tensor.double().flatten() for tensor in real]).cpu().numpy()
