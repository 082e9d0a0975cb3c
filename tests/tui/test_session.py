"""Marks of runs: colour slots, and the runs that an edit applies to."""

from __future__ import annotations

from labbench.tui.session import Marks


def test_a_marked_run_gets_the_first_free_slot() -> None:
    marks = Marks()
    for key in "abc":
        marks.toggle(key)
    assert marks == {"a": 1, "b": 2, "c": 3}
    marks.toggle("a")
    marks.toggle("d")
    assert marks == {"b": 2, "c": 3, "d": 1}
    marks.add(f"more {number}" for number in range(20))
    assert set(marks.values()) == set(range(1, 9))
    assert len(marks) == 23
    marks.invert(["b", "new"])
    assert "b" not in marks
    assert "new" in marks


def test_an_edit_applies_to_marked_runs_only_if_one_of_them_is_highlighted() -> None:
    marks = Marks()
    marks.add(["a", "b"])
    assert marks.selected_keys(["a"]) == ["a", "b"]
    assert marks.selected_keys(["c"]) == ["c"]
    assert marks.selected_keys([]) == []
