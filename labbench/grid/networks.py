"""The `layers` of a grid beside the rest of each config, which may choose classes or data: they must fit the samples,
and end in a score for each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from labbench.grid.file import Grid
from labbench.grid.source import Setting
from labbench.grid.toml_positions import Path
from labbench.params.builtin import sample_and_classes
from labbench.params.layers import Refused, read_layers, require_scores
from labbench.params.param import BadItem


def require_networks(grid: Grid, configs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a list of layers where the grid says it, if its task's samples and classes are known without the data."""
    fitting = set()
    for config in configs:
        layers: list[str] | None = config.get("layers")
        if layers is None:
            continue
        known = sample_and_classes(grid.task, config)
        if known is None or (tuple(layers), known) in fitting:
            continue
        shape, classes = known
        try:
            require_scores(read_layers(layers, shape), shape, classes)
        except BadItem as problem:
            raise grid.source.error(f"layers{problem}", (*_place(grid, layers), problem.index)) from None
        except Refused as problem:
            raise grid.source.error(str(problem), (*_place(grid, layers), len(layers) - 1)) from None
        fitting.add((tuple(layers), known))


def _place(grid: Grid, layers: Sequence[str]) -> Path:
    """Where the grid says these layers; what stands nowhere was drawn."""
    said = (setting for setting in _settings(grid) if setting.key == "layers" and setting.value == layers)
    return next((setting.path for setting in said), ("random", "layers"))


def _settings(grid: Grid) -> Iterator[Setting]:
    """Everything that the grid sets, what decides first."""
    yield from grid.pinned.values()
    yield from (setting for axis in grid.axes for point in axis.points for setting in point)
    yield from (setting for include in grid.includes for setting in include.values())
    yield from (setting for rule in grid.sets for setting in rule.then.values())
    yield from grid.params.values()
