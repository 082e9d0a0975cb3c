"""Identities of runs: equal if and only if the runs have the same result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.configs import canonical_json
from labbench.errors import InputError
from labbench.grid import expand, grid_code, identity, new_runs, read_grid, task_identity
from labbench.grid.identity import find_script
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Param
from labbench.records import Stop

DIGITS = {**TRAINING, **BUILTIN["digits"]}

Identities = Callable[..., list[str]]


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    """Return a function from the text of a grid to the identities of its runs."""

    def identities(text: str, task: str = 'task = "digits"') -> list[str]:
        (tmp_path / "grid.toml").write_text(f"{task}\n{text}")
        grid = read_grid(tmp_path / "grid.toml")
        params = {} if grid.command else DIGITS
        return [run.identity for run in new_runs(grid, expand(grid, params).configs, params)]

    return identities


def test_an_identity_is_the_hash_of_task_config_and_stop(identities: Identities) -> None:
    """A release that hashed anything else would train existing grids again."""
    config = '{"hidden":[8],"lr":0.1}'
    stop = '{"goal":"min","metric":"val/loss","patience":3}'
    text = "[params]\nlr = 0.1\nhidden = [8.0]\nbeta1 = 0.9\n"
    assert identities(text) == [sha256(f"v1\ndigits@1\n{config}\nnull".encode()).hexdigest()]
    assert identities(f"{text}[stop]\nmetric = 'val/loss'\npatience = 3") == [
        sha256(f"v1\ndigits@1\n{config}\n{stop}".encode()).hexdigest()
    ]


def test_settings_without_effect_on_results_do_not_change_the_identity(identities: Identities) -> None:
    [same] = identities("[params]\nlr = 1\nmomentum = 0.5\nepochs = 3")
    for text in (
        "[params]\nepochs = 3\nmomentum = 0.5\nlr = 1.0",
        "[params]\nepochs = 3.0\nmomentum = 0.5\nlr = 1\nbeta1 = 0.9\nhidden = [128, 64]",
        "[params]\nepochs = 3\nmomentum = 0.5\n[grid]\nlr = [1]\n[repeat]\nseeds = [0]",
        "name = 'other'\n[metrics]\nx = 'min'\n[runtime]\nkeep = 'best'\nprecision = 'bf16'\n"
        "tf32 = true\ncompile = true\ndata = 'host'\n[resources]\nretries = 3\n"
        "[params]\nlr = 1\nmomentum = 0.5\nepochs = 3",
    ):
        assert identities(text) == [same]


def test_settings_that_change_results_change_the_identity(identities: Identities) -> None:
    stop = "[stop]\nmetric = 'val/loss'\n"
    texts = [
        "",
        "[params]\nlr = 0.1",
        "[params]\nhidden = [8, 4]",
        "[params]\nhidden = [4, 8]",
        "[params]\nseed = 1",
        stop + "patience = 3",
        stop + "patience = 4",
        stop + "target = 0",
        stop + "target = 0.1",
        stop + "patience = 3\nmin_delta = 0.1",
        stop + "patience = 3\ngoal = 'max'",
        "[stop]\nmetric = 'val/accuracy'\npatience = 3",
    ]
    assert len({identities(text)[0] for text in texts}) == len(texts)


def test_a_task_is_identified_by_the_code_in_its_file(identities: Identities, tmp_path: Path) -> None:
    def identity_of(name: str, content: str) -> str:
        (tmp_path / name.partition(":")[0]).write_text(content)
        (tmp_path / "grid.toml").write_text(f'task = "{name}"')
        grid = read_grid(tmp_path / "grid.toml")
        return task_identity(grid, grid_code(grid))

    first = identity_of("a.py:Task", "x = 1")
    assert identity_of("b.py:Task", "x = 1  # a comment") == first
    assert identity_of("a.py:Other", "x = 1") != first
    assert identity_of("a.py:Task", "x = 2") != first
    grid = read_grid(tmp_path / "grid.toml")
    (tmp_path / "a.py").unlink()
    with pytest.raises(InputError, match=r"a\.py cannot be read: No such file"):
        grid_code(grid)


def test_a_built_in_task_is_identified_by_its_version(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('task = "digits"')
    grid = read_grid(tmp_path / "grid.toml")
    assert task_identity(grid, grid_code(grid)) == "digits@1"


def test_a_command_is_identified_by_its_words_and_its_script(identities: Identities, tmp_path: Path) -> None:
    def identity_of(*words: str) -> str:
        return identities("[params]\nx = 1", f"command = {list(words)}")[0]

    (tmp_path / "train.py").write_text("1")
    first = identity_of("python", "train.py")
    assert identity_of("python", "train.py", "-v") != first
    (tmp_path / "data.csv").write_text("1")
    assert identity_of("python", "train.py") == first
    (tmp_path / "train.py").write_text("2")
    assert identity_of("python", "train.py") != first


def test_the_script_of_a_command_is_the_file_that_it_runs(tmp_path: Path) -> None:
    def script(*words: str) -> str | None:
        file = find_script(words, tmp_path)
        return file and file.name

    for name, content in {"train.py": b"", "data.csv": b"", "go.sh": b"#!/bin/sh", "program": b"\x7fELF"}.items():
        (tmp_path / name).write_bytes(content)
    assert script("python", "-u", "train.py", "data.csv") == "train.py"
    assert script("./go.sh", "data.csv") == "go.sh"
    assert script(str(tmp_path / "go.sh"), "data.csv") == "go.sh"
    assert script(str(tmp_path / "program"), "train.py") == "train.py"
    assert script("./program", "train.py") == "program"
    assert script("train.py") is None
    assert script("python", "-m", "package") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
typed_configs = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(0, 1),
        "epochs": st.integers(1, 99),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "batchnorm": st.booleans(),
        "hidden": st.lists(st.integers(1, 3), max_size=2),
    },
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.randoms())
def test_the_order_of_keys_never_matters(config: dict[str, Any], chance: Any) -> None:
    shuffled = list(config.items())
    chance.shuffle(shuffled)
    assert identity("t", dict(shuffled), {}, None) == identity("t", config, {}, None)


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15))
def test_an_integer_and_an_equal_float_have_the_same_identity(number: int) -> None:
    assert identity("t", {"x": [number]}, {}, None) == identity("t", {"x": [float(number)]}, {}, None)
    assert identity("t", {"x": True}, {}, None) != identity("t", {"x": 1}, {}, None)


@settings(deadline=None)
@given(typed_configs, typed_configs)
def test_new_parameters_of_a_release_keep_the_identities_of_existing_runs(
    config: dict[str, Any], other: dict[str, Any]
) -> None:
    stop = Stop("x", "min", target=0.0)
    defaults = {key: param.default for key, param in DIGITS.items()}
    config_identity = identity("digits@1", {**defaults, **config}, DIGITS, stop)
    later = {**DIGITS, "warmup": Param("int", 0), "widths": Param("ints", (4, 2))}
    assert identity("digits@1", {**defaults, **config, "warmup": 0, "widths": [4, 2]}, later, stop) == config_identity
    assert identity("digits@1", config, DIGITS, stop) == config_identity
    other_identity = identity("digits@1", {**defaults, **other}, DIGITS, stop)
    assert (other_identity == config_identity) == ({**defaults, **other} == {**defaults, **config})


@settings(deadline=None)
@given(json_values, json_values)
def test_canonical_json_is_equal_exactly_for_equal_values(left: Any, right: Any) -> None:
    assert (canonical_json(left) == canonical_json(right)) == same(left, right)


def same(left: Any, right: Any) -> bool:
    """Return True if two values are equal, also within lists; true does not equal 1."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and isinstance(left, bool) is isinstance(right, bool)


def test_fields_of_a_stop_at_their_default_do_not_change_the_identity() -> None:
    stop = Stop("x", "min", patience=3)
    assert identity("t", {}, {}, stop) == identity("t", {}, {}, replace(stop, min_delta=0.0))
    assert identity("t", {}, {}, stop) != identity("t", {}, {}, None)


def identity_of_data(folder: Path, path: str, **files: str) -> str:
    """Write files to the folder, and return the identity of a run on the user's data at a path in it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "grid.toml").write_text(f'task = "own"\n[params]\npath = "{folder / path}"\n')
    params = {**TRAINING, **BUILTIN["own"]}
    grid = read_grid(folder / "grid.toml")
    [run] = new_runs(grid, expand(grid, params).configs, params)
    assert run.config["path"] == str(folder / path)
    return run.identity


def test_user_data_are_identified_by_their_content(tmp_path: Path) -> None:
    first = identity_of_data(tmp_path, "a.csv", **{"a.csv": "x,y\n1,2\n"})
    assert identity_of_data(tmp_path, "a.csv") == first
    assert identity_of_data(tmp_path, "moved/b.csv", **{"moved/b.csv": "x,y\n1,2\n"}) == first
    assert identity_of_data(tmp_path, "a.tsv", **{"a.tsv": "x,y\n1,2\n"}) != first  # read in a different way
    assert identity_of_data(tmp_path, "a.csv", **{"a.csv": "x,y\n1,3\n"}) != first


def test_a_folder_of_images_is_identified_by_names_and_contents(tmp_path: Path) -> None:
    first = identity_of_data(
        tmp_path, "all", **{"all/cat/1.pgm": "P2 1", "all/dog/1.pgm": "P2 2", "all/.DS_Store": "x"}
    )
    assert identity_of_data(tmp_path, "all", **{"all/cat/.hidden": "x", "all/.DS_Store": "y"}) == first
    assert identity_of_data(tmp_path, "copy", **{"copy/cat/1.pgm": "P2 1", "copy/dog/1.pgm": "P2 2"}) == first
    assert identity_of_data(tmp_path, "swapped", **{"swapped/dog/1.pgm": "P2 1", "swapped/cat/1.pgm": "P2 2"}) != first
    assert identity_of_data(tmp_path, "all", **{"all/dog/2.pgm": "P2 3"}) != first


def test_missing_user_data_are_reported_before_anything_is_queued(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder: .*/none.csv \(paths are relative"):
        identity_of_data(tmp_path, "none.csv")


def test_each_file_is_read_once_for_all_runs_of_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "grid.toml").write_text(f'task = "own"\n[params]\npath = "{tmp_path}/a.csv"\n[grid]\nlr = [1, 2, 3]\n')
    reads: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    params = {**TRAINING, **BUILTIN["own"]}
    grid = read_grid(tmp_path / "grid.toml")
    assert len(new_runs(grid, expand(grid, params).configs, params)) == 3
    assert reads.count(tmp_path / "a.csv") == 1
