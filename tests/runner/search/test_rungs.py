"""Brackets and rungs of successive halving and Hyperband."""

from __future__ import annotations

from labbench.runner.search.rungs import make_brackets, rung_epochs, total_cost


def test_rungs_are_quotients_of_the_epochs_by_powers_of_eta() -> None:
    assert rung_epochs(81, 3, 1) == [1, 3, 9, 27, 81]
    assert rung_epochs(81, 3, 5) == [9, 27, 81]
    assert rung_epochs(20, 3, 1) == [2, 7, 20]
    assert rung_epochs(10, 2, 2) == [3, 5, 10]
    assert rung_epochs(5, 3, 5) == [5]
    assert rung_epochs(3, 2, 1) == [2, 3]


def test_halving_trains_a_third_on_and_never_none() -> None:
    (bracket,) = make_brackets("halving", 81, [1, 3, 9], 3)
    assert [(rung.candidates, rung.epochs, rung.new_epochs, rung.survivors) for rung in bracket] == [
        (81, 1, 1, 27),
        (27, 3, 2, 9),
        (9, 9, 6, 3),
    ]
    assert total_cost([bracket]) == 81 + 54 + 54
    (small,) = make_brackets("halving", 2, [1, 3, 9], 3)
    assert [rung.candidates for rung in small] == [2, 1, 1]


def test_hyperband_has_the_brackets_of_the_paper() -> None:
    """Li et al. 2018, table 1: R = 81, eta = 3."""
    brackets = make_brackets("hyperband", 81 + 34 + 15 + 8 + 5, [1, 3, 9, 27, 81], 3)
    assert [[(rung.candidates, rung.epochs) for rung in bracket] for bracket in brackets] == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


def test_hyperband_leaves_no_configuration_out() -> None:
    for count in range(1, 40):
        brackets = make_brackets("hyperband", count, [1, 3, 9], 3)
        assert sum(bracket[0].candidates for bracket in brackets) == count


def test_a_random_search_trains_every_configuration_to_its_end() -> None:
    (bracket,) = make_brackets("random", 5, [1, 3, 9], 3)
    assert [(rung.candidates, rung.epochs) for rung in bracket] == [(5, 9)]
