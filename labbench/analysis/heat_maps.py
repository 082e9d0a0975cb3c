"""The pairs of parameters worth a two-way table: those that interact, else the two that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from labbench.analysis.answer import HeatMap, Interaction, ParameterAnswer
from labbench.analysis.effects import two_way
from labbench.analysis.noise import Noise
from labbench.analysis.setups import Parameter, Table

MOST_MAPS = 2
MOST_LEVELS = 12
"""Columns that a screen has room for."""


def heat_maps(
    everything: Table, noise: Noise | None, parameters: Sequence[ParameterAnswer], interactions: Sequence[Interaction]
) -> tuple[HeatMap, ...]:
    """Two-way tables of `everything`; `parameters` have the most important first, `interactions` the strongest."""
    by_name = {p.name: p for p in everything.judged if p.parent is None and len(p.levels) <= MOST_LEVELS}
    pairs = [interaction.names for interaction in interactions]
    pairs += combinations([parameter.name for parameter in parameters if parameter.name in by_name][:2], 2)
    chosen: dict[frozenset[str], HeatMap] = {}
    for names in pairs:
        if len(chosen) < MOST_MAPS and frozenset(names) not in chosen and all(name in by_name for name in names):
            row, column = sorted((by_name[name] for name in names), key=_across)
            table = two_way(everything, row, column, noise)
            chosen[frozenset(names)] = HeatMap((row.name, column.name), table)
    return tuple(chosen.values())


def _across(parameter: Parameter) -> tuple[bool, int]:
    """Words down, and numbers, of which there are more, across."""
    return (parameter.numeric, len(parameter.levels))
