"""Labels of lines and groups of lines on a chart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from labbench.records import RunRecord
from labbench.tui.charts.labels import group_labels, run_labels

RUN = RunRecord(1, "k3f9", "adam lr=0.1", "optimizers", "finished", {"optimizer": "adam", "lr": 0.1})


def runs_of(*named: tuple[str, dict[str, Any]]) -> list[RunRecord]:
    return [replace(RUN, key=f"key{number}", name=name, config=config) for number, (name, config) in enumerate(named)]


def test_labels_omit_the_words_that_all_runs_share() -> None:
    def named(*names: str) -> list[str]:
        runs = [replace(RUN, key=f"key{number}", name=name) for number, name in enumerate(names)]
        return list(run_labels(runs).values())

    assert named("adam lr=0.1 s0", "adam lr=0.01 s0") == ["lr=0.1", "lr=0.01"]
    assert named("adam lr=0.1", "sgd lr=0.1 bn") == ["adam", "sgd bn"]
    assert named("adam lr=0.1", "adam lr=0.1 bn") == ["adam lr=0.1", "adam lr=0.1 bn"]
    assert named("adam lr=0.1") == ["adam lr=0.1"]
    assert named("baseline", "baseline") == ["baseline key0", "baseline key1"]
    assert named("", "x\x1b") == ["key0", "x␛"]


def test_differing_config_keys_missing_in_names_are_appended() -> None:
    runs = runs_of(("baseline", {"lr": 0.1, "seed": 0}), ("second try", {"lr": 0.01, "seed": 0}))
    assert list(run_labels(runs).values()) == ["baseline lr=0.1", "second try lr=0.01"]


def test_a_number_that_a_name_spells_in_another_way_is_not_appended() -> None:
    spelled = [(f"lr={rate} s0", {"lr": 1e6, "seed": 0}) for rate in ("1000000", "1e6", "1e+06")]
    for named in spelled:
        labels = run_labels(runs_of(("lr=0.1 s0", {"lr": 0.1, "seed": 0}), named))
        assert list(labels.values()) == ["lr=0.1", named[0].removesuffix(" s0")]


def test_settings_omitted_in_names_because_they_are_off_are_not_appended() -> None:
    plain = {"batchnorm": False, "lr": 0.1, "seed": 0, "dropout": 0.0}
    runs = runs_of(
        ("lr=0.1 s0", plain), ("lr=0.1 bn drop=0.5 s1", plain | {"batchnorm": True, "seed": 1, "dropout": 0.5})
    )
    assert list(run_labels(runs).values()) == ["s0", "bn drop=0.5 s1"]


def test_runs_that_differ_only_in_their_seed_form_a_group_named_by_their_shared_words() -> None:
    runs = runs_of(
        *((f"{name} lr=0.1 s{seed}", {"optimizer": name, "seed": seed}) for name in ("adam", "sgd") for seed in (0, 1))
    )
    assert list(group_labels(runs, run_labels(runs)).values()) == ["adam", "adam", "sgd", "sgd"]


def test_different_groups_of_the_same_name_get_different_labels() -> None:
    runs = runs_of(("run", {"lr": 0.1}), ("run", {"lr": 0.2}))
    labels = group_labels(runs, {run.key: "run" for run in runs})
    assert len(set(labels.values())) == 2


def test_a_short_label_is_not_the_name_of_a_run_that_is_not_drawn() -> None:
    def run(key: str, name: str, **config: object) -> RunRecord:
        return replace(RUN, key=key, name=name, config=config)

    drawn = [
        run("a", "bn sgd lr=0.3 s2", optimizer="sgd", lr=0.3, bn=True, seed=2),
        run("b", "bn adam lr=0.03 s0", optimizer="adam", lr=0.03, bn=True, seed=0),
    ]
    plain = run("c", "sgd lr=0.3 s0", optimizer="sgd", lr=0.3, bn=False, seed=0)
    assert run_labels(drawn) == {"a": "sgd lr=0.3", "b": "adam lr=0.03"}
    assert run_labels(drawn, [*drawn, plain]) == {"a": "bn sgd lr=0.3", "b": "bn adam lr=0.03"}
