"""A plan is a partition of the runs into stacks that can train together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from labbench.params.param import TRAINING, Param
from labbench.records import RunRecord, Runtime, Stack
from labbench.runner.planner import (
    EFFICIENT_STACK_WIDTH,
    MAX_STACK_WIDTH,
    StackSettings,
    describe_plan,
    make_stack,
    plan_stacks,
)

PARAMS = {**TRAINING, "width": Param("int", 8), "noise": Param("float", 0.0, per_run=True)}


def runs_of(configs: Sequence[dict[str, Any]]) -> list[RunRecord]:
    return [RunRecord(i, f"run{i}", f"run {i}", "e", "queued", config) for i, config in enumerate(configs)]


def planned(configs: Sequence[dict[str, Any]], workers: int = 1) -> list[Stack]:
    return plan_stacks(runs_of(configs), StackSettings("mine.py:Task"), params=PARAMS, workers=workers)


CONFIGS = st.lists(
    st.fixed_dictionaries(
        {"lr": st.sampled_from([0.1, 0.2]), "seed": st.integers(0, 3)},
        optional={
            "width": st.sampled_from([8, 16]),
            "noise": st.sampled_from([0.0, 0.5]),
            "optimizer": st.sampled_from(["sgd", "adam"]),
            "epochs": st.integers(1, 9),
            "unheard": st.sampled_from([1, [1, 2], None]),
        },
    ),
    max_size=150,
)


@given(configs=CONFIGS, workers=st.integers(1, 9))
def test_every_run_is_in_exactly_one_stack_and_stacks_share_all_parameters_that_are_not_per_run(
    configs: list[dict[str, Any]], workers: int
) -> None:
    stacks = planned(configs, workers)
    assert sorted(run.key for stack in stacks for run in stack.runs) == sorted(f"run{i}" for i in range(len(configs)))
    for stack in stacks:
        assert 1 <= len(stack.runs) <= MAX_STACK_WIDTH
        assert len({run.config.get("width", 8) for run in stack.runs}) == 1
        assert len({repr(run.config.get("unheard")) for run in stack.runs}) == 1
        for row, run in enumerate(stack.runs):
            assert {key: value for key, value in stack.config(row).items() if value is not None} == {
                key: value for key, value in run.config.items() if value is not None
            }


def test_runs_that_differ_in_per_run_parameters_share_a_stack() -> None:
    configs = [
        {"lr": lr, "seed": seed, "optimizer": optimizer, "noise": noise, "weight_decay": 0.1 * seed}
        for lr in (0.1, 0.01)
        for seed in (0, 1)
        for optimizer in ("adam", "sgd")
        for noise in (0.0, 0.5)
    ]
    (stack,) = planned(configs)
    names = [run.config["optimizer"] for run in stack.runs]
    assert names == sorted(names)  # runs with the same optimizer side by side


def test_runs_with_other_shapes_or_another_boundary_do_not_share_a_stack() -> None:
    runs = runs_of([{"width": 8}, {"width": 16}, {"batch_size": 32}, {}])
    resumed = RunRecord(9, "on", "on", "e", "lost", {}, boundary=40, way="stacked")
    stacks = plan_stacks([*runs, resumed], StackSettings("mine.py:Task"), params=PARAMS)
    assert sorted(sorted(run.key for run in stack.runs) for stack in stacks) == [
        ["on"],
        ["run0", "run3"],
        ["run1"],
        ["run2"],
    ]


def test_workers_get_equal_stacks_of_efficient_width() -> None:
    configs = [{"width": width, "seed": seed} for width in (8, 16) for seed in range(72)]
    assert [len(stack.runs) for stack in planned(configs, workers=2)] == [EFFICIENT_STACK_WIDTH] * 4
    assert sorted(len(stack.runs) for stack in planned(configs[:7], workers=2)) == [3, 4]
    assert max(len(stack.runs) for stack in planned(configs * 20, workers=2)) <= MAX_STACK_WIDTH


def test_each_gpu_gets_one_stack() -> None:
    runs = runs_of([{"seed": seed} for seed in range(256)])
    for gpus, widths in ((1, [256]), (2, [128, 128]), (4, [64] * 4)):
        stacks = plan_stacks(runs, StackSettings("mine.py:Task"), params=PARAMS, workers=gpus, device="cuda:0")
        assert [len(stack.runs) for stack in stacks] == widths


def test_the_longest_stacks_come_first() -> None:
    stacks = planned([{"width": 8, "epochs": 1}, {"width": 16, "epochs": 9}, {"width": 24, "epochs": 5}])
    assert [stack.shared["epochs"] for stack in stacks] == [9, 5, 1]


def test_a_plan_is_described_in_one_line() -> None:
    def stack(width: int) -> Stack:
        return make_stack(runs_of([{"seed": seed} for seed in range(width)]), task="", stop=None, runtime=Runtime())

    assert describe_plan([stack(24), stack(24), stack(1)]) == "49 runs in 2 stacks of 24 and 1 stack of 1"
    assert describe_plan([stack(1)]) == "1 run in 1 stack of 1"
    assert describe_plan([]) == "no runs"
