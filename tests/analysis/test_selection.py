"""The runs and keys that an answer is about."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from labbench.analysis import KeyOptions, explain, select_runs
from labbench.analysis.run_keys import find_rank_key, find_run_keys
from labbench.analysis.selection import find_seed_keys
from labbench.errors import InputError
from labbench.records import MetricSummary, RunRecord
from labbench.reports.sentences import sentences

LOSS = "val/loss"
NUMBERS = itertools.count(1)


def finished(config: dict[str, Any], best: float, *, last: float | None = None, **fields: Any) -> RunRecord:
    last = best if last is None else last
    summary = MetricSummary(5, 0, None, last, 4, best, 3, max(last, 2 * best), 0)
    number = next(NUMBERS)
    values = {"experiment": "e", "created": float(number), "summary": {LOSS: summary}, **fields}
    return RunRecord(number, f"k{number}", f"r{number}", status="finished", config=config, **values)


def sweep(extra: Any = lambda lr, seed: {}, seed_key: str = "seed", **fields: Any) -> list[RunRecord]:
    """Return runs of 2 learning rates with 3 seeds each; the lower rate is better."""
    pairs = itertools.product((0.1, 0.3), (0, 1, 2))
    return [finished({"lr": lr, seed_key: seed, **extra(lr, seed)}, lr + 0.01 * seed, **fields) for lr, seed in pairs]


def answer(runs: list[RunRecord], **options: Any) -> Any:
    return explain(select_runs(runs, LOSS, **options), LOSS, "min")


def text(runs: list[RunRecord], **options: Any) -> str:
    return "\n".join(sentences(answer(runs, **options)))


REFERENCE = answer(sweep()).difference


@pytest.mark.parametrize(
    "key",
    [
        *("trainer.seed", "random_state", "data_seed", "randomSeed", "seed_everything", "prng_key", "repeat", "trial"),
        *("seed.torch", "fold", "cv_fold", "data.foldIdx"),
    ],
)
def test_a_seed_under_another_name_is_a_seed(key: str) -> None:
    found = answer(sweep(seed_key=key))
    assert found.best.n == 3
    assert found.difference == REFERENCE
    assert [p.name for p in found.parameters] == ["lr"]


@pytest.mark.parametrize("convert", [str, float, lambda seed: f"{seed}.0"])
def test_a_seed_of_another_type_is_the_same_seed(convert: Any) -> None:
    runs = [finished({"lr": lr, "seed": convert(seed)}, lr + 0.01 * seed) for lr in (0.1, 0.3) for seed in (0, 1, 2)]
    assert answer(runs).difference == REFERENCE


def test_keys_that_only_resemble_a_seed_are_parameters() -> None:
    assert (
        find_seed_keys([{"n_seeds": 3, "use_seed": True, "seed_words": "a", "seedling": 4, "data_seed": "spring"}])
        == ()
    )
    assert find_seed_keys([{"n_folds": 5, "k_fold": 5, "seeds": 3, "folds": 5, "fold_dir": "a", "seed_dir": 1}]) == ()


def test_lists_of_seeds_are_seeds() -> None:
    runs = [
        finished({"lr": lr, "seeds": [seed, seed + 1]}, lr + 0.01 * seed) for lr in (0.1, 0.3) for seed in (0, 1, 2)
    ]
    assert answer(runs).difference == REFERENCE


def test_the_number_of_a_trial_in_a_search_is_no_seed_beside_one() -> None:
    numbered = [{"trial": number, "lr": number / 7, "seed": number % 2} for number in range(6)]
    assert find_seed_keys(numbered) == ("seed",)
    repeated = [{"trial": number % 3, "lr": number // 3, "seed": 0} for number in range(6)]
    assert set(find_seed_keys(repeated)) == {"seed", "trial"}


def test_a_seed_key_can_be_given_and_an_unknown_one_is_refused() -> None:
    runs = sweep(seed_key="draw")
    assert answer(runs).best.n == 1
    assert answer(runs, keys=KeyOptions(seeds=("draw",))).difference == REFERENCE
    with pytest.raises(InputError, match="did you mean `draw`"):
        select_runs(runs, LOSS, keys=KeyOptions(seeds=("draws",)))


def test_two_seeds_that_vary_count_as_one() -> None:
    runs = sweep(lambda lr, seed: {"data_seed": seed + 10})
    assert answer(runs).difference == REFERENCE


RUN_KEYS = {
    "output_dir": lambda lr, seed: f"outputs/lr{lr}_s{seed}",
    "timestamp": lambda lr, seed: f"2026-09-0{seed + 1}T10:00:00",
    "started": lambda lr, seed: 1_790_000_000 + 100 * lr + seed,
    "run_id": lambda lr, seed: int(10 * lr) + seed,
    "host": lambda lr, seed: f"node{seed % 2}",
    "device": lambda lr, seed: f"cuda:{seed}",
    "gpu": lambda lr, seed: seed,
    "slurm.nodelist": lambda lr, seed: f"node[{seed % 2}]",
    "wandb.id": lambda lr, seed: f"{seed}{lr}",
    "run_name": lambda lr, seed: f"brave-{lr}-{seed}",
    "hparams_text": lambda lr, seed: f"lr is {lr}, seed is {seed}",
    "uid": lambda lr, seed: f"3f2a9c1{seed}{int(lr * 10)}",
}


@pytest.mark.parametrize("key", RUN_KEYS)
def test_a_key_that_identifies_a_run_does_not_separate_seeds_and_is_named(key: str) -> None:
    runs = sweep(lambda lr, seed: {key: RUN_KEYS[key](lr, seed)})
    assert answer(runs).difference == REFERENCE
    assert f"keys left out: {key}, which identify a run" in text(runs)
    kept = answer(runs, keys=KeyOptions(kept=(key,)))
    assert kept.counts.setups > 2


@pytest.mark.parametrize(
    "configs",
    [
        [{"method": m} for m in ("ours", "theirs", "ours", "theirs")],
        [{"exp_name": name} for name in ("baseline", "ours")],  # nothing else differs
        [{"optimizer": name} for name in "abcdefgh"],
        [{"lr": 0.01 * i} for i in range(1, 9)],  # a swept number
        [{"layers": i} for i in range(1, 9)],
        [{"gpu": n, "lr": 0.1} for n in (1, 2, 4)],  # their number
        [{"layers": i, "activation": "ab"[i % 2]} for i in range(1, 9)],
        [{"tokens": n} for n in (1_000_000_000, 2_000_000_000)],
        [{"hidden": [i, i], "lr": 0.1 * i} for i in range(1, 9)],
        [{"data_path": f"data/{name}", "lr": lr} for name in "ab" for lr in (1, 2)],
    ],
)
def test_parameters_are_not_taken_for_keys_of_a_run(configs: list[dict[str, Any]]) -> None:
    assert find_run_keys(configs, [0] * len(configs)) == ()


def test_a_name_that_tells_methods_apart_stays() -> None:
    runs = [{"exp_name": name, "lr": lr} for name in ("baseline", "ours") for lr in (1, 2) for _ in range(3)]
    assert find_run_keys(runs, [0, 1, 2] * 4) == ()


def test_a_key_can_be_ignored() -> None:
    runs = sweep(lambda lr, seed: {"width": 64 + seed})
    assert answer(runs).counts.setups == 6
    assert answer(runs, keys=KeyOptions(ignored=("width",))).difference == REFERENCE
    assert "keys left out: width, as requested" in text(runs, keys=KeyOptions(ignored=("width",)))


def test_processes_of_a_distributed_job_are_no_seeds() -> None:
    runs = [
        finished({"lr": lr, "local_rank": rank, "world_size": 4}, lr + 0.001 * rank)
        for lr in (0.1, 0.3)
        for rank in range(4)
    ]
    assert answer(runs).best.n == 1
    assert "left out: 6 runs of further processes of a distributed job" in text(runs)


def test_the_rank_of_a_matrix_is_a_parameter() -> None:
    assert find_rank_key([{"rank": 4}, {"rank": 8}]) is None
    assert find_rank_key([{"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}]) == "rank"


def test_an_answer_is_about_the_newest_experiment_and_says_so() -> None:
    old, new = sweep(lambda lr, seed: {"depth": 3}, experiment="old"), sweep(experiment="new")
    found = answer(old + new)
    assert (found.counts.runs, found.scope.experiments) == (6, ("new",))
    assert "experiment new, the newest of 2 with val/loss" in text(old + new)
    assert "experiment" not in text(new)


def test_an_experiment_that_is_still_queued_does_not_hide_the_one_before() -> None:
    queued = RunRecord(10**6, "kq", "q", "next", "queued", {"lr": 0.1}, created=1e9)
    assert answer([*sweep(), queued]).scope.experiments == ("e",)


def test_pooled_experiments_have_one_task_and_one_code() -> None:
    first = sweep(experiment="a", task="digits", code_version="digits@1")
    other_task = sweep(experiment="b", task="toy", code_version="toy@1")
    other_code = sweep(experiment="c", task="digits", code_version="digits@2")
    newest = sweep(experiment="d", task="digits", code_version="digits@1")
    pooled = answer(first + other_task + other_code + newest, pooled=True)
    assert pooled.scope.experiments == ("d", "a")
    assert (pooled.scope.other_tasks, pooled.scope.other_code) == (6, 6)
    said = text(first + other_task + other_code + newest, pooled=True)
    assert "pooled experiments: d, a" in said
    assert "left out: 6 runs of another version of the code (--all-code includes them), 6 runs of another task" in said
    with_all_code = answer(first + other_task + other_code + newest, pooled=True, all_code=True)
    assert with_all_code.scope.experiments == ("d", "c", "a")


def test_scripts_at_several_commits_are_told_apart_in_words() -> None:
    runs = sweep(git_commit="a1") + sweep(git_commit="b2")
    assert "the runs were made at 2 git commits" in text(runs)
    assert "git commits" not in text(sweep(git_commit="a1"))


def test_a_key_that_some_runs_lack_is_shown_as_not_set() -> None:
    runs = sweep() + sweep(lambda lr, seed: {"dropout": 0.5})
    assert '"not set" is analysed like a value, because it is not known what such runs used: dropout in 6 runs' in text(
        runs
    )
    assert "not set" not in text(sweep(lambda lr, seed: {"dropout": 0.5}))


def test_values_are_bests_over_the_run_or_the_last_ones() -> None:
    runs = [finished({"lr": lr, "seed": s}, 0.1, last=lr) for lr in (0.1, 0.3) for s in (0, 1)]
    assert "each run counts with its best val/loss, the lowest of the whole run" in text(runs)
    assert answer(runs).difference.interval.mean == 0.0
    assert answer(runs, at="last").difference.interval.mean == pytest.approx(-0.2)
    assert "each run counts with its last val/loss" in text(runs, at="last")


def continued_sweep() -> list[RunRecord]:
    """Return runs of 2 learning rates with 3 seeds each, and their continuations to twice the epochs."""
    shorter = sweep(lambda lr, seed: {"epochs": 20})
    return shorter + [
        finished({**run.config, "epochs": 40}, run.config["lr"] + 0.01 * run.config["seed"], continued_from=run.key)
        for run in shorter
    ]


def test_runs_that_others_continue_are_left_out_and_reported() -> None:
    runs = continued_sweep()
    found = answer(runs)
    assert (found.difference, found.scope.continued) == (REFERENCE, 6)
    assert [parameter.name for parameter in found.parameters] == ["lr"]
    assert (
        "left out: 6 runs of fewer epochs that others continue: they are the first part of the same training"
        in text(runs)
    )
    assert answer(runs[:6]).scope.continued == 0


def test_runs_stay_if_only_some_of_their_configurations_are_continued() -> None:
    found = answer(continued_sweep()[:9])  # three seeds of one learning rate
    assert found.scope.continued == 0
    assert {parameter.name for parameter in found.parameters} == {"lr", "epochs"}
    *others, last = continued_sweep()
    assert answer([*others, replace(last, status="running")]).scope.continued == 0


def test_the_name_of_a_part_of_the_model_is_a_setting_and_the_name_of_a_run_is_none() -> None:
    """`optimizer` and `optimizer.name` have the same values, so that the runs differ without either of them."""
    configs = [
        {"optimizer": name, "optimizer.name": name, "model.label": name, "run.name": f"{name} {seed}", "lr": 0.1}
        for name in ("adam", "sgd")
        for seed in (0, 1, 2)
    ]
    assert find_run_keys(configs, [0, 1, 2] * 2) == ("run.name",)
