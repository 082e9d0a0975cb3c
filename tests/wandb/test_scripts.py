"""Scripts written for Weights & Biases, run with one line changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.scripts import only_run
from helpers.wandb_scripts import run_script
from labbench.portraits.logged_images import images_by_name
from labbench.store.reader import Reader

PYTORCH_LOOP = """
import os

import torch
from labbench import wandb

os.environ["WANDB_SILENT"] = "true"
wandb.login(key=os.environ["KEY"])
wandb.init(
    project="regression",
    entity="my-team",
    name="baseline",
    group="ablation",
    config={"learning_rate": 0.1, "epochs": 3, "optimizer": {"name": "sgd", "momentum": 0.9}},
    settings=wandb.Settings(start_method="thread"),
)
config = wandb.config

model = torch.nn.Linear(4, 1)
wandb.watch(model, log="all", log_freq=10)
momentum = config.optimizer["momentum"]
optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=momentum)
best = float("inf")
for epoch in range(config["epochs"]):
    for _ in range(4):
        loss = model(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wandb.log({"train/loss": loss, "epoch": epoch}, commit=False)
        wandb.log({"lr": optimizer.param_groups[0]["lr"]})
    best = min(best, loss.item())
    torch.save(model.state_dict(), os.path.join(wandb.run.dir, "model.pt"))
wandb.run.summary["best_loss"] = best
wandb.save("*.txt")
wandb.finish()
assert wandb.run is None
"""

ARGPARSE_SCRIPT = """
import argparse

from labbench import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()

with wandb.init(project="cli", job_type="train", config=args, tags=["nightly"], id="run-7", resume="allow") as run:
    run.define_metric("epoch")
    run.define_metric("val/*", step_metric="epoch")
    run.define_metric("val/accuracy", summary="max")
    wandb.config.update({"epochs": args.epochs, "seed": 1}, allow_val_change=True)
    run.name = f"lr {run.config.lr}"
    for epoch in range(args.epochs):
        step = epoch * 10
        wandb.log({"train/loss": 1 / (epoch + 1)}, step=step)
        wandb.log({"val/accuracy": epoch / 10, "epoch": epoch})
    wandb.log({"late": 1.0}, step=5)
    wandb.config.update({"lr": 0.5}, allow_val_change=True)
    assert dict(wandb.config)["lr"] == 0.5 and wandb.config.get("missing", 3) == 3
"""

MEDIA_SCRIPT = """
import numpy as np
from labbench import wandb
from labbench.wandb import AlertLevel, Table

run = wandb.init(project="media", save_code=True, sync_tensorboard=True)
columns = ["id", "prediction", "image"]
table = wandb.Table(columns=columns)
for step in range(3):
    images = [wandb.Image(np.random.rand(8, 8, 3), caption=f"sample {i}") for i in range(2)]
    table.add_data(step, 0.5, images[0])
    wandb.log({"samples": images, "loss": 1.0 / (step + 1), "broken": wandb.Image(np.zeros(3))}, step=step)
    wandb.log({"weights": wandb.Histogram(np.random.randn(10)), "grey": wandb.Image(np.full((4, 4), 200.0))}, step=step)
wandb.log({"predictions": table})
wandb.log({"curve": wandb.plot.line(Table(data=[[1, 2]], columns=["x", "y"]), "x", "y", title="curve")})
for row in table.iterrows():
    raise AssertionError("an ignored table has no rows")
if run.summary["loss"] < 0.5:
    wandb.alert(title="low loss", text="below 0.5", level=AlertLevel.WARN)

with open("weights.bin", "wb") as file:
    file.write(b"weights")
artifact = wandb.Artifact("model", type="model", metadata={"loss": 0.3})
artifact.add_file("weights.bin")
with artifact.new_file("notes/readme.md") as file:
    file.write("about")
run.log_artifact(artifact, aliases=["latest"]).wait()
run.log_artifact("weights.bin", name="weights", type="model")
wandb.unwatch()
run.mark_preempting()
print(wandb.util.generate_id(), run.get_url())
wandb.finish(exit_code=0)
"""


def artifact_names(folder: Path) -> list[str]:
    with Reader(folder / "runs.db") as reader:
        return [artifact.name for artifact in reader.artifacts(only_run(folder).key)]


def test_a_pytorch_loop(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "notes.txt").write_text("note")
    result = run_script(tmp_path, PYTORCH_LOOP, environment={"KEY": "0123456789abcdef01234567"})
    assert (result.returncode, result.stderr) == (0, "labbench: wandb.watch does nothing in labbench\n")
    run = only_run(tmp_path)
    assert (run.name, run.experiment, run.status, run.tags) == (
        "baseline",
        "regression",
        "finished",
        (),
    )
    assert run.config == {
        "learning_rate": 0.1, "epochs": 3, "optimizer.name": "sgd", "optimizer.momentum": 0.9,
        "group": "ablation",
    }  # fmt: skip
    assert {name: (run.summary[name].n, run.summary[name].last_step) for name in ("train/loss", "lr", "best_loss")} == {
        "train/loss": (12, 11), "lr": (12, 11), "best_loss": (1, 11)
    }  # fmt: skip
    assert artifact_names(tmp_path) == ["files/model.pt", "notes.txt"]
    assert not any(
        b"0123456789abcdef01234567" in file.read_bytes() for file in tmp_path.glob("runs.db*") if file.is_file()
    )


def test_an_argparse_script_and_its_continuation(tmp_path: Path) -> None:
    result = run_script(tmp_path, ARGPARSE_SCRIPT, "--lr", "0.2")
    assert result.returncode == 0, result.stderr
    assert "the step 5 is before the last one, 21" in result.stderr
    run = only_run(tmp_path)
    assert (run.name, run.experiment, run.external_id) == ("lr 0.2", "cli", "run-7")
    assert set(run.tags) == {"nightly"}
    assert run.config == {"lr": 0.5, "epochs": 3, "seed": 1, "job_type": "train"}
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.series(run.key, "val/accuracy")[0].tolist() == [0, 10, 20]
        assert reader.metrics()["val/accuracy"] == "max"
    assert run.summary["late"].last_step == 5
    assert run_script(tmp_path, ARGPARSE_SCRIPT, "--lr", "0.2").returncode == 0
    assert only_run(tmp_path).attempt == 2


def test_a_script_with_images_tables_artifacts_and_alerts(tmp_path: Path) -> None:
    result = run_script(tmp_path, MEDIA_SCRIPT)
    assert result.returncode == 0, result.stderr
    warnings = result.stderr.splitlines()
    assert len(warnings) == len(set(warnings))
    for name in ("Table", "Histogram", "plot", "alert", "AlertLevel", "unwatch"):
        assert f"labbench: wandb.{name} does nothing in labbench" in warnings
    assert any("wandb.Image is not recorded" in warning for warning in warnings)
    assert any("sync_tensorboard have no effect" in warning for warning in warnings)
    assert any("captions are not recorded" in warning for warning in warnings)
    run = only_run(tmp_path)
    assert (run.status, list(run.summary)) == ("finished", ["loss"])
    with Reader(tmp_path / "runs.db") as reader:
        artifacts = reader.artifacts(run.key)
    images = images_by_name(artifacts)
    assert {name: list(steps) for name, steps in images.items()} == {
        name: [0, 1, 2] for name in ("grey", "samples/0", "samples/1")
    }
    files = {artifact.name: artifact.path for artifact in artifacts if not artifact.name.startswith("images/")}
    names = {"model/weights.bin", "model/notes/readme.md", "weights/weights.bin"}
    numbered = {name.replace("/", ":v0/", 1) for name in names}
    assert set(files) == names | numbered | {"model:versions.json", "weights:versions.json"}
    assert (tmp_path / "runs.db.files" / run.key / files["model/notes/readme.md"]).read_text() == "about"


@pytest.mark.parametrize(
    ("call", "environment"),
    [
        ('wandb.init(mode="disabled")', {}),
        ("wandb.init()", {"WANDB_MODE": "disabled"}),
        ("wandb.init()", {"LABBENCH_MODE": "disabled"}),
        ('wandb.init(settings=wandb.Settings(mode="disabled"))', {}),
    ],
)
def test_disabled_runs_write_nothing(tmp_path: Path, call: str, environment: dict[str, str]) -> None:
    code = f"""
    from labbench import wandb
    run = {call}
    wandb.config.lr = 0.1
    wandb.log({{"loss": 1.0}})
    open(wandb.run.dir + "/model.pt", "w").close()
    artifact = wandb.Artifact("a", type="model")
    artifact.add_file("train.py")
    run.log_artifact(artifact)
    assert wandb.summary["loss"] == 1.0
    wandb.finish()
    """
    result = run_script(tmp_path, code, environment=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("mode", ["offline", "online", "dryrun"])
def test_other_modes_record_and_unknown_ones_warn_once(tmp_path: Path, mode: str) -> None:
    code = """
    from labbench import wandb
    for name in "ab":
        with wandb.init(name=name):
            wandb.log({"loss": 1.0})
    """
    result = run_script(tmp_path, code, environment={"WANDB_MODE": mode, "WANDB_PROJECT": "p"})
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == (mode == "dryrun")
    with Reader(tmp_path / "runs.db") as reader:
        assert [(run.name, run.experiment, run.status) for run in reader.runs()] == [
            ("a", "p", "finished"),
            ("b", "p", "finished"),
        ]


def test_failures_are_recorded_and_log_before_init_says_what_to_do(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    assert wandb.run is None
    try:
        wandb.log({"loss": 1.0})
    except Exception as error:
        print(error)
    with wandb.init(project="p") as run:
        wandb.log({"loss": 1.0, "text": "a word", "nested": {"x": 2}})
        raise ValueError("diverged")
    """
    result = run_script(tmp_path, code)
    assert result.stdout == "no run is open: call wandb.init() first\n"
    run = only_run(tmp_path)
    assert (run.status, run.error, set(run.summary)) == ("failed", "ValueError: diverged", {"loss", "nested.x"})


STEPS_SCRIPT = """
import numpy as np
from labbench import wandb

try:
    run = wandb.init(config="config.yaml")
except (wandb.errors.CommError, wandb.Error):
    raise AssertionError("no server can fail")
assert (run.config.lr, run.config.wd) == (0.5, 1)
for value in range(5):
    wandb.log({"loss": value})
wandb.log({"late": 9.0}, step=2)
for value in range(5, 8):
    wandb.log({"loss": value})
assert run.step == 8
wandb.log({"a": 1}, step=np.int64(10))
wandb.log({"b": 1}, step=10)
wandb.log({"a": 2})
wandb.log({"table": wandb.Table()})
wandb.log({"c": 1}, step=20, commit=True)
wandb.log({"c": 2})
"""


def test_steps_are_counted_as_by_wandb_and_no_point_is_replaced(tmp_path: Path) -> None:
    """The steps are those that wandb 0.31 gives these calls, but that it drops the late value."""
    (tmp_path / "config.yaml").write_text("lr: {desc: rate, value: 0.5}\nwd: 1\n")
    result = run_script(tmp_path, STEPS_SCRIPT)
    assert result.returncode == 0, result.stderr
    assert "the step 2 is before the last one, 5" in result.stderr
    with Reader(tmp_path / "runs.db") as reader:
        key = only_run(tmp_path).key
        series = {metric: reader.series(key, metric) for metric in ("loss", "late", "a", "b", "c")}
    points = {metric: dict(zip(*map(list, pair), strict=True)) for metric, pair in series.items()}
    assert points["loss"] == {step: float(step) for step in range(8)}
    assert (points["late"], points["a"], points["b"]) == ({2: 9.0}, {10: 2.0}, {10: 1.0})
    assert points["c"] == {20: 1.0, 21: 2.0}


@pytest.mark.parametrize("call", ["sweep({'method': 'random'}, project='p')", "agent('id', function=print, count=5)"])
def test_a_sweep_that_would_train_nothing_is_refused(tmp_path: Path, call: str) -> None:
    result = run_script(tmp_path, f"from labbench import wandb\nwandb.{call}\n")
    assert result.returncode == 1
    for words in ("nothing would be trained", "labbench new --from train.py", "[grid]", "[random]", "[search]"):
        assert words in result.stderr


def test_group_and_job_type_are_keys_of_the_record_that_the_script_does_not_see(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    run = wandb.init(group="ablation", job_type="eval", config={"lr": 0.1, "group": "mine"})
    assert dict(wandb.config) == {"lr": 0.1, "group": "mine"}
    run.finish()
    """
    assert run_script(tmp_path, code).returncode == 0
    assert only_run(tmp_path).config == {"lr": 0.1, "group": "mine", "job_type": "eval"}


@pytest.mark.parametrize(
    ("arguments", "environment", "is_recorded"),
    [
        ("", {}, True),
        ("settings=wandb.Settings(console='off')", {}, False),
        ("", {"WANDB_CONSOLE": "off"}, False),
        ("mode='disabled'", {}, False),
    ],
)
def test_printed_lines_are_recorded_unless_the_console_is_off(
    tmp_path: Path, arguments: str, environment: dict[str, str], is_recorded: bool
) -> None:
    code = f"""
    from labbench import wandb
    with wandb.init({arguments}):
        print("epoch 1 done")
    """
    result = run_script(tmp_path, code, environment=environment)
    assert (result.returncode, result.stdout) == (0, "epoch 1 done\n")
    if (tmp_path / "runs.db").exists():
        with Reader(tmp_path / "runs.db") as reader:
            assert ("epoch 1 done" in "".join(reader.logs(only_run(tmp_path).key))) == is_recorded
    else:
        assert not is_recorded


def test_texts_of_the_summary_are_kept(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    wandb.init(config={"lr": 0.1})
    wandb.log({"loss": 1.0})
    wandb.summary["dataset"] = "shapes-v1"
    wandb.run.summary.update({"best": {"loss": 0.5, "model": "cnn"}})
    assert wandb.summary["dataset"] == "shapes-v1" and dict(wandb.config) == {"lr": 0.1}
    wandb.finish()
    """
    result = run_script(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    run = only_run(tmp_path)
    assert run.config == {"lr": 0.1, "summary/dataset": "shapes-v1", "summary/best.model": "cnn"}
    assert {name: values.last for name, values in run.summary.items()} == {"loss": 1.0, "best.loss": 0.5}


def test_logged_texts_and_figures_are_kept_and_what_is_dropped_is_named(tmp_path: Path) -> None:
    code = """
    import numpy as np
    from labbench import wandb
    from labbench.wandb.ignored import Ignored

    class Canvas:
        def draw(self): pass
        def buffer_rgba(self): return np.zeros((4, 4, 4), np.uint8)

    class Figure:
        canvas = Canvas()
        def savefig(self, path): pass

    class Broken:
        def savefig(self, path): pass

    with wandb.init() as run:
        for step in range(2):
            run.log({"note": f"text {step}", "plot": Figure(), "loss": 1.0, "long": "x" * 2000, "broken": Broken()})
        run.summary["histogram"] = Ignored("wandb.Histogram")
        run.log({"seg": wandb.Image(np.zeros((4, 4)), masks={"a": {}}, boxes={"b": {}})})
        run.define_metric("val/*", step_metric="epoch")
        run.define_metric("test/*", step_metric="epoch")
    """
    result = run_script(tmp_path, code)
    assert result.returncode == 0, result.stderr
    run = only_run(tmp_path)
    assert (run.config, list(run.summary)) == ({"summary/note": "text 1"}, ["loss"])
    assert artifact_names(tmp_path) == [f"images/{name}.png" for name in ("plot/0", "plot/1", "seg/2")]
    for words in ("masks are not recorded", "boxes are not recorded", "step_metric has no effect", "`long` is a text"):
        assert result.stderr.count(words) == 1
    assert "wandb.Image is not recorded: 'Broken' object has no attribute 'canvas'" in result.stderr
    assert len(result.stderr.splitlines()) == 5


def test_the_summary_has_the_declared_statistic_and_the_config_no_silent_change(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    with wandb.init(config={"lr": 0.1, "model": {"width": 8}}) as run:
        wandb.define_metric("acc", summary="max")
        wandb.define_metric("val/*", summary="min")
        for value in (0.3, 0.9, 0.5):
            wandb.log({"acc": value, "val/loss": value, "loss": value})
        assert (wandb.summary["acc"], wandb.summary["acc"]["max"], wandb.summary["loss"]) == (0.9, 0.9, 0.5)
        assert (run.summary["val/loss"], dict(run.summary)["acc"]) == (0.3, 0.9)
        wandb.config.lr = 0.1
        wandb.config.update({"new": 1})
        for change in ({"lr": 5}, {"model": {"width": 9}}):
            try:
                wandb.config.update(change)
            except wandb.errors.Error as error:
                print(error)
        wandb.config.update({"lr": 5}, allow_val_change=True)
    """
    result = run_script(tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert "`lr` is 0.1 and cannot become 5; to change it: wandb.config.update(" in result.stdout
    assert "`model.width` is 8" in result.stdout
    assert only_run(tmp_path).config == {"lr": 5, "model.width": 8, "new": 1}


def test_a_script_cannot_change_the_values_of_its_grid(labbench: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from labbench import wandb\n"
        "run = wandb.init()\n"
        "wandb.config.update({'lr': 0.5, 'epochs': 3})\n"
        "run.log({'loss': wandb.config.lr})\n"
    )
    (tmp_path / "grid.toml").write_text('command = ["python", "train.py"]\n[grid]\nlr = [0.1]\n')
    assert labbench("run", "grid.toml", "--workers", "1").exit_code == 0
    run = only_run(tmp_path)
    assert (run.config, run.summary["loss"].last) == ({"lr": 0.1, "epochs": 3}, 0.1)
    with Reader(tmp_path / "runs.db") as reader:
        assert "wandb.config: lr stay as the grid" in "".join(reader.logs(run.key))
