"""Beginning with weights that were learnt before: what is taken over, what stays, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

torch = pytest.importorskip("torch")

from safetensors.torch import save_file
from torch import Tensor

from helpers.training import histories, run_of
from labbench import load_model
from labbench.errors import InputError
from labbench.files import MODEL
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Boundary, Event, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.runner.run_grid import load_grid
from labbench.store.reader import Reader
from labbench.train import checkpoints
from labbench.train.loop import train
from labbench.train.tasks.task import load_task, make_model

Labbench = Callable[..., Result]

SOURCE = {"hidden": [16, 16], "batchnorm": True, "dropout": 0.2}
KEPT = Runtime(keep="last")


def digits(**config: Any) -> dict[str, Any]:
    return with_defaults(config, {**TRAINING, **BUILTIN["digits"]})


def weights_of(**config: Any) -> dict[str, Tensor]:
    return make_model(load_task("digits"), digits(**config)).state_dict()


def events(files: Path, *configs: dict[str, Any], task: str = "digits") -> list[Event]:
    """What runs of these configs tell, as one stack whose models are kept."""
    runs = [run_of({"lr": 0.1, **config}, f"run{number}") for number, config in enumerate(configs)]
    stack = make_stack(runs, task=task, stop=None, runtime=KEPT, files=str(files))
    return list(train(stack, load_task(task), "cpu"))


def kept(files: Path, number: int = 0) -> dict[str, Tensor]:
    return checkpoints.read_safetensors(files / f"run{number}" / MODEL, torch.device("cpu"))[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Weights of a network that has learnt the first five digits for two epochs."""
    before = tmp_path / "before"
    events(before, {**SOURCE, "classes": [0, 1, 2, 3, 4], "epochs": 2})
    return (before / "run0" / MODEL).rename(tmp_path / "source.safetensors")


BODY = ["1.weight", "2.weight", "2.bias", "2.running_mean", "2.running_var", "5.weight", "6.weight", "6.running_var"]


def test_a_frozen_backbone_stays_as_it_began_its_statistics_too_and_the_new_head_learns(
    tmp_path: Path, source: Path
) -> None:
    given = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    config = {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "freeze": True, "epochs": 2}
    told = histories(events(tmp_path, config))["run0"]
    ended = kept(tmp_path)
    assert all(torch.equal(ended[name], given[name]) for name in BODY)
    assert ended["9.weight"].shape == (3, 16)
    assert told.last("train/loss") < told.curves["train/loss"][1]


def test_all_layers_learn_on_unless_they_are_frozen(tmp_path: Path, source: Path) -> None:
    given = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    events(tmp_path, {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "lr": 0.0, "epochs": 1})
    started = kept(tmp_path)
    assert all(torch.equal(started[name], given[name]) for name in ("1.weight", "2.bias", "5.weight", "6.weight"))
    assert not torch.equal(started["2.running_mean"], given["2.running_mean"])
    events(tmp_path, {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "epochs": 1})
    assert not torch.equal(kept(tmp_path)["1.weight"], given["1.weight"])


def test_a_head_is_taken_over_for_the_same_classes_alone(tmp_path: Path, source: Path) -> None:
    given = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    for classes, same in (([0, 1, 2, 3, 4], True), ([5, 6, 7, 8, 9], False)):
        events(tmp_path, {**SOURCE, "classes": classes, "init_from": str(source), "lr": 0.0, "epochs": 1})
        assert torch.equal(kept(tmp_path)["9.weight"], given["9.weight"]) == same


@pytest.mark.parametrize("network", [SOURCE, {"model": "cnn", "channels": [4], "batchnorm": True, "dropout": 0.2}])
@pytest.mark.parametrize("freeze", [False, True])
def test_runs_that_begin_with_learnt_weights_are_stacked_and_measure_what_they_do_alone(
    tmp_path: Path, network: dict[str, Any], freeze: bool
) -> None:
    for seed in (3, 4):
        save_file(weights_of(**network, seed=seed), tmp_path / f"{seed}.safetensors")
    configs = [
        {**network, "init_from": str(tmp_path / f"{file}.safetensors"), "freeze": freeze, "seed": seed, "epochs": 1}
        for file, seed in ((3, 0), (3, 1), (4, 0))
    ]
    together = histories(events(tmp_path, *configs))
    assert [together[f"run{i}"].started.way for i in range(3)] == ["stacked"] * 3  # type: ignore[union-attr]
    for number, config in enumerate(configs):
        alone = histories(events(tmp_path, config))["run0"]
        for metric in ("train/loss", "val/loss"):
            found, expected = together[f"run{number}"].curves[metric], alone.curves[metric]
            assert found == pytest.approx(expected, rel=2e-3)


def test_torch_files_are_read_as_weights_and_never_run(tmp_path: Path) -> None:
    weights = weights_of(hidden=[8], seed=5)
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "a.pt")
    events(tmp_path, {"hidden": [8], "init_from": str(tmp_path / "a.pt"), "freeze": True, "lr": 0.0, "epochs": 1})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept(tmp_path).items())
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")  # a pickled module, which is code
    with pytest.raises(InputError, match=r"cannot read weights from .* save the state_dict only, with torch.save"):
        events(tmp_path, {"init_from": str(tmp_path / "model.pt")})


def test_what_fits_is_taken_over_and_the_rest_is_told(tmp_path: Path) -> None:
    torch.save(weights_of(hidden=[16, 16], seed=5), tmp_path / "a.pt")
    config = {"hidden": [16, 8], "init_from": str(tmp_path / "a.pt"), "lr": 0.0, "epochs": 1}
    logs = [event.text for event in events(tmp_path, config) if isinstance(event, Log)]
    assert logs == [f"not loaded from {tmp_path}/a.pt (missing there or of another shape): 4.weight, 4.bias\n"]
    assert torch.equal(kept(tmp_path)["1.weight"], weights_of(hidden=[16, 16], seed=5)["1.weight"])


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"hidden": [8]}, "1.weight is 8x64 here and 16x64 there. Use the network that was trained with those weights"),
        ({"hidden": [16, 8], "freeze": True}, "4.weight is 8x16 here and 16x16 there"),
        ({"model": "cnn"}, "0.weight is 8x1x3x3 here and missing there (the file has 1.weight, 1.bias, "),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_what_to_do(
    tmp_path: Path, config: dict[str, Any], complaint: str
) -> None:
    torch.save(weights_of(hidden=[16, 16]), tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        events(tmp_path, {"init_from": str(tmp_path / "a.pt"), **config})
    assert complaint in str(caught.value)


def test_transfer_begins_with_a_file_in_place_of_its_own_pretraining(tmp_path: Path) -> None:
    weights = weights_of(hidden=[64, 64], classes=[0, 1, 2], seed=9)
    save_file(weights, tmp_path / "a.safetensors")
    config = {"init_from": str(tmp_path / "a.safetensors"), "start": "frozen", "epochs": 1}
    events(tmp_path, config, task="transfer")
    ended = kept(tmp_path)
    assert all(torch.equal(ended[name], weights[name]) for name in ("1.weight", "4.weight", "4.bias"))
    with pytest.raises(InputError, match="exclude each other"):
        events(tmp_path, {**config, "start": "scratch"}, task="transfer")


def write(path: str, text: str) -> str:
    Path(path).write_text(f'task = "digits"\n[params]\nhidden = [16]\nepochs = 1\n{text}')
    return path


def test_a_run_begins_with_what_another_one_kept_and_is_known_by_that(labbench: Labbench) -> None:
    first = write("first.toml", 'classes = [0, 1, 2]\n[runtime]\nkeep = "last"\n')
    assert labbench("run", first, "--workers", "0").exit_code == 0
    with Reader(Path("runs.db")) as reader:
        [source] = reader.runs()
    keep = '[runtime]\nkeep = "last"\n'
    second = write("second.toml", f'classes = [3, 4]\nfreeze = true\ninit_from = "run:{source.name}"\n{keep}')
    assert "1 finished" in labbench("run", second, "--workers", "1").stderr
    assert "nothing to do" in labbench("run", second).stderr
    with Reader(Path("runs.db")) as reader:
        run = next(run for run in reader.runs() if run.key != source.key)
    assert run.config["init_from"] == f"run:{source.key}"
    ours, theirs = load_model(run.key, db="runs.db"), load_model(source.key, db="runs.db")
    assert torch.equal(ours.state_dict()["1.weight"], theirs.state_dict()["1.weight"])

    copied = Path("copied.safetensors")
    copied.write_bytes(Path("runs.db.files", source.key, MODEL).read_bytes())
    third = write("third.toml", f'classes = [3, 4]\nfreeze = true\ninit_from = "{copied}"\n{keep}')
    known = {each.identity for each in load_grid(Path(second), db=Path("runs.db")).runs}
    assert {each.identity for each in load_grid(Path(third), db=Path("runs.db")).runs} == known
    save_file(weights_of(hidden=[16], classes=[0, 1, 2]), copied)
    assert {each.identity for each in load_grid(Path(third), db=Path("runs.db")).runs} != known


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("run:nobody", "no run has the key or the name `nobody`"),
        ("run:first", "that run kept no model: train it with [runtime] keep"),
        ("weights.bin", "give a file of weights (.safetensors, .pt, .pth), or run:KEY"),
        ("none.pt", "none.pt (paths are relative to the current folder)"),
    ],
)
def test_where_there_are_no_weights_nothing_is_queued(labbench: Labbench, word: str, complaint: str) -> None:
    assert labbench("run", write("first.toml", ""), "--workers", "0").exit_code == 0
    result = labbench("run", write("second.toml", f'init_from = "{word}"\n'))
    assert result.exit_code == 2
    assert complaint in result.stderr
    with Reader(Path("runs.db")) as reader:
        assert len(reader.runs()) == 1


def test_a_frozen_run_goes_on_from_its_snapshot_and_needs_the_file_no_more(tmp_path: Path, source: Path) -> None:
    config = {**SOURCE, "lr": 0.1, "classes": [5, 6, 7], "init_from": str(source), "freeze": True, "epochs": 2}
    events(tmp_path / "whole", config)
    parts, run, task = tmp_path / "parts", run_of(config, "run0"), load_task("digits")
    often = Runtime(keep="last", snapshot_every=0)
    stack = make_stack([run], task="digits", stop=None, runtime=often, files=str(parts))
    boundary = next(event for event in train(stack, task, "cpu") if isinstance(event, Boundary))
    source.unlink()
    again = replace(run, boundary=boundary.step, way="loop")
    list(train(make_stack([again], task="digits", stop=None, runtime=KEPT, files=str(parts)), task, "cpu"))
    whole, resumed = kept(tmp_path / "whole"), kept(parts)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
