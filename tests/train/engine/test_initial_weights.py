"""`init_from`: tensors that are loaded, tensors that keep random values, and errors."""

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

from helpers.training import histories, raise_failure, run_of
from labbench import load_model
from labbench.errors import InputError
from labbench.files import MODEL
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Boundary, Event, Log, Runtime
from labbench.runner.expanded_grid import load_grid
from labbench.runner.planner import make_stack
from labbench.store.reader import Reader
from labbench.train import checkpoints
from labbench.train.loop import train
from labbench.train.tasks.task import load_task, make_model

Labbench = Callable[..., Result]

SOURCE = {"hidden": [16, 16], "batchnorm": True, "dropout": 0.2}
KEEP_LAST = Runtime(keep="last")


def digits(**config: Any) -> dict[str, Any]:
    return with_defaults(config, {**TRAINING, **BUILTIN["digits"]})


def weights_of(**config: Any) -> dict[str, Tensor]:
    return make_model(load_task("digits"), digits(**config)).state_dict()


def train_events(files: Path, *configs: dict[str, Any], task: str = "digits") -> list[Event]:
    """Train runs with these configs as one stack that saves its last models; return the events."""
    runs = [run_of({"lr": 0.1, **config}, f"run{number}") for number, config in enumerate(configs)]
    stack = make_stack(runs, task=task, stop=None, runtime=KEEP_LAST, files=str(files))
    return raise_failure(list(train(stack, load_task(task), "cpu")))


def saved_weights(files: Path, number: int = 0) -> dict[str, Tensor]:
    return checkpoints.read_safetensors(files / f"run{number}" / MODEL, torch.device("cpu"))[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """File with the weights of a network trained on the first five digits for two epochs."""
    before = tmp_path / "before"
    train_events(before, {**SOURCE, "classes": [0, 1, 2, 3, 4], "epochs": 2})
    return (before / "run0" / MODEL).rename(tmp_path / "source.safetensors")


BACKBONE = [
    "1.weight",
    "2.weight",
    "2.bias",
    "2.running_mean",
    "2.running_var",
    "5.weight",
    "6.weight",
    "6.running_var",
]


def test_a_frozen_backbone_and_its_statistics_do_not_change_while_the_head_learns(tmp_path: Path, source: Path) -> None:
    loaded = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    config = {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "freeze": True, "epochs": 2}
    history = histories(train_events(tmp_path, config))["run0"]
    final = saved_weights(tmp_path)
    assert all(torch.equal(final[name], loaded[name]) for name in BACKBONE)
    assert final["9.weight"].shape == (3, 16)
    assert history.last("train/loss") < history.curves["train/loss"][1]


def test_all_layers_are_trained_unless_frozen(tmp_path: Path, source: Path) -> None:
    loaded = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    train_events(tmp_path, {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "lr": 0.0, "epochs": 1})
    started = saved_weights(tmp_path)
    assert all(torch.equal(started[name], loaded[name]) for name in ("1.weight", "2.bias", "5.weight", "6.weight"))
    assert not torch.equal(started["2.running_mean"], loaded["2.running_mean"])
    train_events(tmp_path, {**SOURCE, "classes": [5, 6, 7], "init_from": str(source), "epochs": 1})
    assert not torch.equal(saved_weights(tmp_path)["1.weight"], loaded["1.weight"])


def test_a_head_is_loaded_only_for_the_same_classes(tmp_path: Path, source: Path) -> None:
    loaded = checkpoints.read_safetensors(source, torch.device("cpu"))[0]
    for classes, same in (([0, 1, 2, 3, 4], True), ([5, 6, 7, 8, 9], False)):
        train_events(tmp_path, {**SOURCE, "classes": classes, "init_from": str(source), "lr": 0.0, "epochs": 1})
        assert torch.equal(saved_weights(tmp_path)["9.weight"], loaded["9.weight"]) == same


@pytest.mark.parametrize("network", [SOURCE, {"model": "cnn", "channels": [4], "batchnorm": True, "dropout": 0.2}])
@pytest.mark.parametrize("freeze", [False, True])
def test_runs_with_loaded_weights_are_stacked_and_equal_single_runs(
    tmp_path: Path, network: dict[str, Any], freeze: bool
) -> None:
    for seed in (3, 4):
        save_file(weights_of(**network, seed=seed), tmp_path / f"{seed}.safetensors")
    configs = [
        {**network, "init_from": str(tmp_path / f"{file}.safetensors"), "freeze": freeze, "seed": seed, "epochs": 1}
        for file, seed in ((3, 0), (3, 1), (4, 0))
    ]
    together = histories(train_events(tmp_path, *configs))
    assert [together[f"run{i}"].started.way for i in range(3)] == ["stacked"] * 3  # type: ignore[union-attr]
    for number, config in enumerate(configs):
        alone = histories(train_events(tmp_path, config))["run0"]
        for metric in ("train/loss", "val/loss"):
            curve, expected = together[f"run{number}"].curves[metric], alone.curves[metric]
            assert curve == pytest.approx(expected, rel=2e-3)


def test_torch_files_are_read_without_executing_code(tmp_path: Path) -> None:
    weights = weights_of(hidden=[8], seed=5)
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "a.pt")
    train_events(tmp_path, {"hidden": [8], "init_from": str(tmp_path / "a.pt"), "freeze": True, "lr": 0.0, "epochs": 1})
    assert all(torch.equal(tensor, weights[name]) for name, tensor in saved_weights(tmp_path).items())
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")  # a pickled module, which is code
    with pytest.raises(InputError, match=r"cannot read weights from .* save the state_dict only, with torch.save"):
        train_events(tmp_path, {"init_from": str(tmp_path / "model.pt")})


def test_matching_tensors_are_loaded_and_the_others_are_logged(tmp_path: Path) -> None:
    torch.save(weights_of(hidden=[16, 16], seed=5), tmp_path / "a.pt")
    config = {"hidden": [16, 8], "init_from": str(tmp_path / "a.pt"), "lr": 0.0, "epochs": 1}
    logs = [event.text for event in train_events(tmp_path, config) if isinstance(event, Log)]
    assert logs == [f"not loaded from {tmp_path}/a.pt (missing there or of another shape): 4.weight, 4.bias\n"]
    assert torch.equal(saved_weights(tmp_path)["1.weight"], weights_of(hidden=[16, 16], seed=5)["1.weight"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": [8]}, "1.weight is 8x64 here and 16x64 there. Use the network that was trained with those weights"),
        ({"hidden": [16, 8], "freeze": True}, "4.weight is 8x16 here and 16x16 there"),
        ({"model": "cnn"}, "0.weight is 8x1x3x3 here and missing there (the file has 1.weight, 1.bias, "),
    ],
)
def test_weights_of_another_network_are_an_error_that_says_what_to_do(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    torch.save(weights_of(hidden=[16, 16]), tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        train_events(tmp_path, {"init_from": str(tmp_path / "a.pt"), **config})
    assert message in str(caught.value)


def test_the_transfer_task_loads_a_file_instead_of_pretraining(tmp_path: Path) -> None:
    weights = weights_of(hidden=[64, 64], classes=[0, 1, 2], seed=9)
    save_file(weights, tmp_path / "a.safetensors")
    config = {"init_from": str(tmp_path / "a.safetensors"), "start": "frozen", "epochs": 1}
    train_events(tmp_path, config, task="transfer")
    final = saved_weights(tmp_path)
    assert all(torch.equal(final[name], weights[name]) for name in ("1.weight", "4.weight", "4.bias"))
    with pytest.raises(InputError, match="exclude each other"):
        train_events(tmp_path, {**config, "start": "scratch"}, task="transfer")


def write_grid(path: str, text: str) -> str:
    Path(path).write_text(f'task = "digits"\n[params]\nhidden = [16]\nepochs = 1\n{text}')
    return path


def test_a_run_starts_from_the_model_of_another_run_which_is_part_of_its_identity(labbench: Labbench) -> None:
    first = write_grid("first.toml", 'classes = [0, 1, 2]\n[runtime]\nkeep = "last"\n')
    assert labbench("run", first, "--workers", "0").exit_code == 0
    with Reader(Path("runs.db")) as reader:
        [source] = reader.runs()
    keep = '[runtime]\nkeep = "last"\n'
    second = write_grid("second.toml", f'classes = [3, 4]\nfreeze = true\ninit_from = "run:{source.name}"\n{keep}')
    assert "1 finished" in labbench("run", second, "--workers", "1").stderr
    assert "nothing to do" in labbench("run", second).stderr
    with Reader(Path("runs.db")) as reader:
        run = next(run for run in reader.runs() if run.key != source.key)
    assert run.config["init_from"] == f"run:{source.key}"
    ours, theirs = load_model(run.key, db="runs.db"), load_model(source.key, db="runs.db")
    assert torch.equal(ours.state_dict()["1.weight"], theirs.state_dict()["1.weight"])

    copied = Path("copied.safetensors")
    copied.write_bytes(Path("runs.db.files", source.key, MODEL).read_bytes())
    third = write_grid("third.toml", f'classes = [3, 4]\nfreeze = true\ninit_from = "{copied}"\n{keep}')
    identities = {run.identity for run in load_grid(Path(second), db=Path("runs.db")).runs}
    assert {run.identity for run in load_grid(Path(third), db=Path("runs.db")).runs} == identities
    save_file(weights_of(hidden=[16], classes=[0, 1, 2]), copied)
    assert {run.identity for run in load_grid(Path(third), db=Path("runs.db")).runs} != identities


@pytest.mark.parametrize(
    ("init_from", "message"),
    [
        ("run:nobody", "no run has the key or the name `nobody`"),
        ("run:first", "that run kept no model: train it with [runtime] keep"),
        ("weights.bin", "give a file of weights (.safetensors, .pt, .pth), or run:KEY"),
        ("none.pt", "none.pt (paths are relative to the grid file)"),
    ],
)
def test_nothing_is_queued_if_the_weights_do_not_exist(labbench: Labbench, init_from: str, message: str) -> None:
    assert labbench("run", write_grid("first.toml", ""), "--workers", "0").exit_code == 0
    result = labbench("run", write_grid("second.toml", f'init_from = "{init_from}"\n'))
    assert result.exit_code == 2
    assert message in result.stderr
    with Reader(Path("runs.db")) as reader:
        assert len(reader.runs()) == 1


def test_a_frozen_run_resumes_from_its_checkpoint_without_the_file(tmp_path: Path, source: Path) -> None:
    config = {**SOURCE, "lr": 0.1, "classes": [5, 6, 7], "init_from": str(source), "freeze": True, "epochs": 2}
    train_events(tmp_path / "whole", config)
    parts, run, task = tmp_path / "parts", run_of(config, "run0"), load_task("digits")
    runtime = Runtime(keep="last", snapshot_every=0)
    stack = make_stack([run], task="digits", stop=None, runtime=runtime, files=str(parts))
    boundary = next(event for event in train(stack, task, "cpu") if isinstance(event, Boundary))
    source.unlink()
    resumed_run = replace(run, boundary=boundary.step, way="loop")
    list(train(make_stack([resumed_run], task="digits", stop=None, runtime=KEEP_LAST, files=str(parts)), task, "cpu"))
    whole, resumed = saved_weights(tmp_path / "whole"), saved_weights(parts)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
