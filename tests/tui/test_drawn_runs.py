"""Runs on the charts: marked runs, leaders, and the groups of the table."""

from __future__ import annotations

from labbench.charts.glyphs import LEADER_COUNT, OTHER_SLOT
from labbench.tui.drawn_runs import choose_drawn_runs, runs_of_first_groups
from labbench.tui.groups import RunGroup


def group(name: str, n_runs: int) -> RunGroup:
    return RunGroup(f"⟨group⟩{name}", {"lr": name}, f"lr {name}", tuple(f"{name}-{seed}" for seed in range(n_runs)))


def by_id(*groups: RunGroup) -> dict[str, RunGroup]:
    return {each.id: each for each in groups}


def test_without_marks_all_groups_of_the_table_are_drawn_in_its_order() -> None:
    high, low = group("high", 3), group("low", 2)
    drawn = choose_drawn_runs(by_id(high, low), runs_of_first_groups([high, low]), {})
    assert drawn.group_slots == {high.id: 1, low.id: 2}
    assert drawn.slots == {"high-0": 1, "high-1": 1, "high-2": 1, "low-0": 2, "low-1": 2}
    assert drawn.group_names["low-1"] == "lr low"


def test_with_marks_their_groups_are_drawn_and_runs_outside_the_table_are_not() -> None:
    groups = by_id(group("a", 2), group("b", 2))
    drawn = choose_drawn_runs(groups, [], {"b-0": 1, "b-1": 2, "gone": 3})
    assert drawn.slots == {"b-0": 1, "b-1": 1}
    assert drawn.group_slots == {"⟨group⟩b": 1}


def test_the_first_ten_groups_have_colours_and_only_whole_groups_are_drawn() -> None:
    groups = [group(str(number), 40) for number in range(20)]
    keys = runs_of_first_groups(groups)
    assert len(keys) == 480
    slots = list(choose_drawn_runs(by_id(*groups), keys, {}).group_slots.values())
    assert slots == [*range(1, LEADER_COUNT + 1), OTHER_SLOT, OTHER_SLOT]
