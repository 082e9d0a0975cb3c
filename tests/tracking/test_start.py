"""Start, resume and describe a run: everything that a script says about it is in the database."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

import labbench
from helpers import scripts
from helpers.store_samples import queue
from helpers.waiting import wait_for
from labbench import wandb
from labbench.errors import InputError, RunNotFound
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system import cgroups
from labbench.system.cgroups import control_groups
from labbench.tracking import monitor, system_metrics
from labbench.tracking.config import plain_config
from labbench.tracking.process_hooks import exit_info_of_status
from labbench.tracking.system_metrics import SystemSampler, cgroup_memory


@pytest.fixture(autouse=True)
def _run_in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LABBENCH_DB", "LABBENCH_RUN", "LABBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def record(run: labbench.Run) -> RunRecord:
    with labbench.open(run.path) as db:
        return db.find(run.key)


def query_database(query: str) -> list[tuple[Any, ...]]:
    with Writer("runs.db") as writer:
        return writer._connection.execute(query).fetchall()


def test_everything_set_on_a_run_is_stored() -> None:
    with labbench.start(
        "baseline", experiment="mnist", config={"lr": 0.1, "model": {"width": [8, 8]}}, tags=["a", "b"], note="first"
    ) as run:
        run.config.update({"seed": 3}, batch=32)
        run.config["model.depth"] = 2
        run.config.dropout = 0.5
        run.tag("c", "a")
        run.note("better")
        run.define_metric("score", goal="min")
        run.log({"score": 1.0})
        assert (run.config.lr, run.config["model.width"], run.name, run.experiment) == (
            0.1,
            [8, 8],
            "baseline",
            "mnist",
        )
        assert repr(run) == f"<Run {run.key} 'baseline' of 'mnist' in {Path('runs.db').resolve()}>"
    stored = record(run)
    assert stored.config == {
        "lr": 0.1, "model.width": [8, 8], "seed": 3, "batch": 32, "model.depth": 2, "dropout": 0.5
    }  # fmt: skip
    assert (stored.name, stored.experiment, stored.tags, stored.note) == (
        "baseline",
        "mnist",
        ("a", "b", "c"),
        "better",
    )
    with labbench.open() as db:
        assert db.goal("score") == "min"
        assert db.runs("experiment=mnist lr=0.1 tag=c status=finished") == [stored]


def test_default_names_are_the_script_and_a_number(tmp_path: Path) -> None:
    for _ in range(2):
        assert (
            scripts.run(tmp_path, "labbench.start().finish()\nlabbench.start(experiment='other').finish()").stderr == ""
        )
    with labbench.open() as db:
        assert [(run.experiment, run.name) for run in db.runs()] == [
            ("train", "train-1"),
            ("other", "other-1"),
            ("train", "train-2"),
            ("other", "other-2"),
        ]


def test_commit_diff_and_script_of_a_run_are_stored(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", *command], check=True)
    scripts.run(tmp_path, "labbench.start().finish()")
    stored = scripts.only_run(tmp_path)
    assert stored.git_commit == subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert stored.git_dirty
    assert stored.versions["labbench"] == labbench.__version__
    with labbench.open() as db:
        sources = db.sources(stored.key)
    assert sources["script"] == (tmp_path / "train.py").read_text()
    assert "+labbench.start().finish()" in sources["diff"]


def test_library_imported_after_the_start_is_recorded_though_git_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_done = threading.Event()
    monkeypatch.setattr(monitor, "_JOIN_SECONDS", 0.01)
    monkeypatch.setattr(monitor, "_git_state", lambda folder: (None, None, str(is_done.wait())))
    run = labbench.start()
    library = ModuleType("jax")
    library.__version__ = "0.1.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", library)
    run.finish()
    is_done.set()
    assert scripts.only_run(tmp_path).versions["jax"] == "0.1.2"


def test_labbench_db_sets_the_default_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABBENCH_DB", str(tmp_path / "there.db"))
    with labbench.start() as run:
        assert run.path == tmp_path / "there.db"
    with labbench.start(db="here.db") as run:
        assert run.path == tmp_path / "here.db"


def test_tilde_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "data.csv").write_text("1")
    monkeypatch.setenv("HOME", str(home))
    with labbench.start(db="~/runs.db") as run:
        run.artifact("~/data.csv")
    monkeypatch.setenv("LABBENCH_DB", "~/runs.db")
    with labbench.start() as second:
        pass
    with labbench.open("~/runs.db") as db:
        assert {run.key for run in db.runs()} == {run.key, second.key}
        assert db.artifacts(run.key)[0].path == str(home / "data.csv")
    with pytest.raises(InputError, match="does not exist"):
        labbench.start(db="~nobody-of-this-name/runs.db")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-m", "net"], "net"),
        (["-m", "net.train"], "net.train"),
        (["-m", "script"], "script"),
        (["script.py"], "script"),
        (["net"], "net"),
        (["net/train.py"], "train"),
        (["-c", "import labbench; labbench.start().finish()"], "interactive"),
    ],
)
def test_experiment_is_named_after_the_script_or_module(tmp_path: Path, words: list[str], name: str) -> None:
    (tmp_path / "net").mkdir()
    for file in ("script.py", "net/__init__.py", "net/__main__.py", "net/train.py"):
        (tmp_path / file).write_text("" if file == "net/__init__.py" else "import labbench; labbench.start().finish()")
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    stored = scripts.only_run(tmp_path)
    assert (stored.experiment, stored.name) == (name, f"{name}-1")


class Unknown:
    """Object that JSON cannot represent."""


@dataclass
class Model:
    width: int = 8
    act: str = "relu"


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (None, {}),
        ({"a": {"b": {"c": 1}}, "d": {}}, {"a.b.c": 1, "d": {}}),
        (argparse.Namespace(lr=0.1, model=Model()), {"lr": 0.1, "model.width": 8, "model.act": "relu"}),
        (SimpleNamespace(lr=0.1), {"lr": 0.1}),
        (Model(), {"width": 8, "act": "relu"}),
        ({"n": np.int64(3), "x": np.float32(0.5), "b": np.bool_(True)}, {"n": 3, "x": 0.5, "b": True}),
        ({"path": Path("a/b"), "t": (1, (2, 3)), 7: None}, {"path": "a/b", "t": [1, [2, 3]], "7": None}),
    ],
)
def test_config_is_flattened_to_json_values(config: Any, plain: dict[str, Any]) -> None:
    assert plain_config(config) == plain


def test_warning_about_config_values_names_the_line_of_the_script() -> None:
    circle: list[Any] = []
    circle.append(circle)
    config = {"object": Unknown(), "circle": circle, "lr": 0.1}
    with pytest.warns(UserWarning, match=r"`object` \(Unknown\) is stored as text") as caught:
        run = labbench.start(config=config, system_metrics=False)
    run.finish()
    assert caught[0].filename == __file__
    assert record(run).config == {
        "object": f"<{__name__}.Unknown object>", "circle": ["<list, which contains itself>"], "lr": 0.1
    }  # fmt: skip


def test_huge_integer_in_the_config_does_not_lose_points() -> None:
    with labbench.start(system_metrics=False) as run:
        with pytest.warns(UserWarning, match=r"`n` \(int\) is stored as text"):
            run.config.update({"n": 10**5000, "m": 10**1000})
        run.log({"loss": 1.0})
    assert record(run).config == {"n": hex(10**5000), "m": 10**1000}
    assert (record(run).status, record(run).summary["loss"].n) == ("finished", 1)


@pytest.mark.parametrize("config", [["lr", 0.1], "lr=0.1", 3, object(), print, dict, Path("config.yaml")])
def test_invalid_config_is_rejected_and_creates_nothing(tmp_path: Path, config: Any) -> None:
    with pytest.raises(
        InputError, match="the config must be a dict, a namespace, a dataclass or another object with named fields"
    ):
        labbench.start(config=config)
    assert list(tmp_path.iterdir()) == []


def test_unusual_names_are_stored() -> None:
    name = "x [/nope] \x1b]52;c;aGk=\x07 \ud800 " + "y" * 10_000
    with labbench.start(name, experiment="e\n", tags="one tag", note="\ud800") as run:
        pass
    stored = record(run)
    assert stored.name == name.replace("\ud800", "?")
    assert (stored.experiment, stored.tags, stored.note) == ("e\n", ("one tag",), "?")


def test_goal_must_be_min_max_or_none() -> None:
    with labbench.start() as run, pytest.raises(InputError, match="must be min, max or none"):
        run.define_metric("loss", goal="less")  # type: ignore[arg-type]


# Resuming.


def fail_after_step_9() -> labbench.Run:
    """Record a run that fails after step 9."""
    run = labbench.start("a run", config={"lr": 0.1})
    for step in range(10):
        run.log({"loss": float(step), "other": 1.0})
    run.finish(exit_code=1)
    return run


def test_resumed_run_continues_after_its_last_step() -> None:
    run = fail_after_step_9()
    with labbench.start(resume=run.key[:4], config={"extra": 1}, tags=["resumed"]) as resumed:
        assert (resumed.key, resumed.name) == (run.key, "a run")
        assert resumed.config == {"lr": 0.1, "extra": 1}
        resumed.log({"loss": 100.0})
    stored = record(run)
    assert (stored.status, stored.attempt, stored.error, stored.tags) == ("finished", 2, None, ("resumed",))
    assert (stored.summary["loss"].n, stored.summary["loss"].last_step) == (11, 10)


def test_run_resumed_from_a_checkpoint_drops_later_points() -> None:
    run = fail_after_step_9()
    with labbench.start(resume="a run") as resumed:
        resumed.log({"loss": -1.0}, step=6)
        resumed.log({"loss": -2.0})
    with labbench.open() as db:
        steps, values = db.series(run.key, "loss")
        assert steps.tolist() == [*range(8)]
        assert values.tolist() == [0, 1, 2, 3, 4, 5, -1, -2]
        assert db.series(run.key, "other")[0].tolist() == [*range(6)]


def test_system_metrics_of_before_stay_when_a_run_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed script repeats its steps, but what the machine did cannot be measured again."""
    monkeypatch.setattr(monitor, "LOAD_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "SYSTEM_SECONDS", 0.02)
    name = "system/process_memory_mb"

    def sample(run: labbench.Run, count: int) -> int:
        """Wait for `count` samples, end the run, and return the number of its samples."""
        wait_for(lambda: name in record(run).summary and record(run).summary[name].n >= count)
        run.finish()
        return record(run).summary[name].n

    run = labbench.start("a run", system_metrics=True)
    for step in range(10):
        run.log({"loss": float(step)})
    before = sample(run, 3)
    resumed = labbench.start(resume="a run", system_metrics=True)
    resumed.log({"loss": -1.0}, step=2)
    assert sample(resumed, before + 3) >= before + 3
    with labbench.open() as db:
        assert db.series(run.key, "loss")[0].tolist() == [0, 1, 2]


def test_one_command_begins_and_continues_the_run_that_it_resumes_by_its_name(tmp_path: Path) -> None:
    code = """
    with labbench.start("job-4711", resume="job-4711", system_metrics=False) as run:
        run.log({"loss": 1.0})
    """
    for attempt in (1, 2):
        assert scripts.run(tmp_path, code).stderr == ""
        stored = scripts.only_run(tmp_path)
        assert (stored.name, stored.attempt, stored.summary["loss"].n) == ("job-4711", attempt, attempt)


def test_id_allows_to_begin_and_continue_a_run() -> None:
    for attempt in (1, 2):
        with labbench.start(f"attempt {attempt}", experiment="e", id=4711, resume="allow", config={"lr": 0.1}) as run:
            run.log({"loss": 1.0})
            assert record(run).external_id == "4711"
            assert (record(run).name, record(run).attempt) == ("attempt 1", attempt)
    with labbench.start(experiment="another", id=4711) as other:
        assert other.key != run.key
    with labbench.start(experiment="e", id="4711", resume="must") as again:
        assert again.key == run.key
        with pytest.raises(InputError, match=f"run {run.key} is still running"):
            labbench.start(experiment="e", id="4711", resume="allow")
    for rule in (None, "never"):
        with pytest.raises(InputError, match=f"run {run.key} has the id `4711` .* resume='allow' continues it"):
            labbench.start(experiment="e", id="4711", resume=rule)
    with pytest.raises(RunNotFound, match="no run has the id `4712` in the experiment `e`; resume='allow' begins it"):
        labbench.start(experiment="e", id="4712", resume="must")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "x", "resume": "another run"}, "with id=, resume must be 'allow', 'must' or 'never'"),
        ({"resume": "allow"}, "resume='allow' takes id="),
    ],
)
def test_arguments_that_contradict_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        labbench.start(**arguments)


@pytest.mark.parametrize("start", ['labbench.start("a", mode="disabled")', 'labbench.init("p", mode="disabled")', None])
def test_disabled_run_leaves_nothing_and_behaves_like_another(tmp_path: Path, start: str | None) -> None:
    code = f"""
    import copy, pickle
    run = {start or 'labbench.start(config={"lr": 0.1}, capture_output=True)'}
    run.log({{"loss": 1.0}})
    run.log({{"loss": 0.5, "deep": {{"x": 1}}}}, step=5)
    run.summary["best"] = 1
    assert dict(run.summary) == {{"loss": 0.5, "deep/x": 1.0, "best": 1.0}}
    run.config.width = 8
    assert run.config["width"] == 8
    run.tag("t"); run.note("n"); run.define_metric("loss", goal="min"); run.artifact("nothing.pt", copy=True)
    assert run.flush()
    pickle.loads(pickle.dumps(run)).log({{"loss": 1.0}})
    if os.fork() == 0:
        run.log({{"loss": 2.0}})
        sys.exit()
    os.wait()
    labbench.log({{"loss": 3.0}})
    labbench.finish()
    """
    result = scripts.run(tmp_path, code, **({} if start else {"LABBENCH_MODE": "disabled"}))
    assert (result.returncode, result.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK"])
def test_rank_0_of_a_distributed_job_records_for_all(tmp_path: Path, variable: str) -> None:
    code = """
    with labbench.start("ddp", system_metrics=False) as run:
        run.log({"loss": 1.0})
    """
    errors = [scripts.run(tmp_path, code, **{variable: str(rank)}, WORLD_SIZE="3").stderr for rank in range(3)]
    assert [bool(text) for text in errors] == [False, True, False]
    assert f"{variable}=1: rank 0 of this distributed job records; the other ranks do not" in errors[1]
    assert scripts.only_run(tmp_path).summary["loss"].n == 1


def test_variable_that_is_perhaps_no_rank_is_named_and_one_that_cannot_be_a_rank_ignored(tmp_path: Path) -> None:
    """RANK may also be the rank of a low-rank adapter."""
    code = 'labbench.start("a run").finish()'
    assert "RANK=16: rank 0 of this distributed job records" in scripts.run(tmp_path, code, RANK="16").stderr
    assert scripts.run(tmp_path, code, RANK="16", WORLD_SIZE="1").stderr == ""
    assert scripts.only_run(tmp_path).name == "a run"


def test_script_of_a_grid_is_no_rank_of_the_job_that_trains_the_grid(tmp_path: Path) -> None:
    code = 'labbench.start("a run").finish()'
    environment = {"SLURM_PROCID": "3", "LABBENCH_DRIVER_RANKS": "SLURM_PROCID=3"}
    assert scripts.run(tmp_path, code, **environment).stderr == ""
    scripts.run(tmp_path, code, **environment, RANK="1")  # of a distributed job within the script
    assert scripts.only_run(tmp_path).name == "a run"


def test_every_rank_records_a_run_of_its_own_on_request(tmp_path: Path) -> None:
    for rank in range(2):
        assert scripts.run(tmp_path, "labbench.start(all_ranks=True).finish()", RANK=str(rank)).stderr == ""
    with labbench.open(tmp_path / "runs.db") as db:
        assert len(db.runs()) == 2


def test_ranks_of_a_process_group_without_variables_are_recognised(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = """
    import torch.distributed as dist
    rank = int(os.environ["OWN_RANK"])
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank, world_size=2)
    labbench.start(f"rank {rank}").finish()
    """
    processes = [scripts.begin(tmp_path, code, OWN_RANK=str(rank)) for rank in range(2)]
    assert [scripts.end(process).returncode for process in processes] == [0, 0]
    assert scripts.only_run(tmp_path).name == "rank 0"


def test_running_unknown_and_grid_runs_cannot_be_resumed() -> None:
    with labbench.start("live") as run:
        with pytest.raises(InputError, match=f"run {run.key} is still running, in process"):
            labbench.start(resume="live")
        with pytest.raises(RunNotFound, match="no run has the key or the name `nothing`"):
            labbench.start(resume="nothing")
    with Writer("runs.db") as writer:
        [queued] = queue(writer)
    with pytest.raises(InputError, match="only runs of scripts can be resumed"):
        labbench.start(resume=queued.key)


def resume_with_expired_heartbeat(name: str) -> labbench.Run:
    """Resume a run while its process lives, as after a pause of its machine.

    The process sends a heartbeat every two seconds, which may undo the reset of the heartbeat; then it is retried.
    """
    for _ in range(5):
        with Writer("runs.db") as writer:
            writer._connection.execute("UPDATE runs SET boot_id = 'another machine', heartbeat = 0")
        with contextlib.suppress(InputError):
            return labbench.start(resume=name)
    raise AssertionError("each attempt met a heartbeat")


def test_first_process_of_a_run_resumed_elsewhere_keeps_its_data_in_a_file(tmp_path: Path) -> None:
    code = """
    run = labbench.start("a run")
    run.log({"loss": 1.0})
    run.flush()
    print("ready", flush=True)
    while not os.path.exists("resumed"):
        time.sleep(0.01)
    run.log({"loss": 2.0})
    """
    process = scripts.begin(tmp_path, code)
    scripts.wait_for(process, "ready")
    with resume_with_expired_heartbeat("a run") as resumed:
        resumed.log({"loss": 10.0})
        (tmp_path / "resumed").touch()
        message = scripts.end(process).stderr
    assert "was resumed by another process; nothing more of this process is recorded in it" in message
    [kept] = tmp_path.glob("runs.db.superseded-*.jsonl")
    assert str(kept) in message
    assert '"values": [2.0]' in kept.read_text()
    Writer("runs.db").close()
    assert kept.exists()  # never merged
    stored = record(resumed)
    assert (stored.status, stored.attempt, stored.summary["loss"].max) == ("finished", 2, 10.0)


# Files and output.


def test_artifact_is_recorded_by_size_and_hash_and_copied_on_request(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.pt").write_bytes(b"weights")
    (tmp_path / "data.csv").write_bytes(b"1,2")
    with labbench.start() as run:
        run.artifact("out/model.pt", copy=True)
        run.artifact(tmp_path / "data.csv")
        run.artifact("data.csv")
        run.artifact("data.csv")
        with pytest.raises(InputError, match=r"run.artifact: nothing.pt cannot be read: No such file"):
            run.artifact("nothing.pt")
    artifacts = query_database("SELECT name, path, size, sha256 FROM artifacts ORDER BY id")
    weights, table = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"1,2").hexdigest()
    assert artifacts == [
        ("out/model.pt", "out/model.pt", 7, weights),
        ("data.csv", str(tmp_path / "data.csv"), 3, table),
    ]
    assert (tmp_path / "runs.db.files" / run.key / "out/model.pt").read_bytes() == b"weights"


def test_pipes_and_devices_are_no_artifacts(tmp_path: Path) -> None:
    """Reading them may never end."""
    os.mkfifo(tmp_path / "pipe")
    with labbench.start() as run:
        for path in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(InputError, match="is no file or folder"):
                run.artifact(path)


def test_each_file_of_a_folder_is_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "checkpoint"
    (checkpoint / "shards").mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "shards/1.safetensors").write_text("one")
    (tmp_path / "blob").write_text("two")
    (checkpoint / "shards/2.safetensors").symlink_to(tmp_path / "blob")
    (checkpoint / "shards/circle").symlink_to(checkpoint)
    (checkpoint / "dangling").symlink_to("nothing")
    os.mkfifo(checkpoint / "pipe")
    (tmp_path / "empty").mkdir()
    with labbench.start() as run:
        run.artifact("checkpoint", copy=True)
        run.artifact("empty")
    with labbench.open() as db:
        stored = {artifact.name: artifact.path for artifact in db.artifacts(run.key)}
    names = ["checkpoint/config.json", "checkpoint/shards/1.safetensors", "checkpoint/shards/2.safetensors"]
    assert stored == {name: name for name in names}
    copies = tmp_path / "runs.db.files" / run.key
    assert [(copies / name).read_text() for name in names] == ["{}", "one", "two"]
    assert not (copies / names[2]).is_symlink()
    assert capsys.readouterr().err == "labbench: run.artifact: no files in the folder empty; nothing is recorded\n"


def test_current_folder_as_artifact_holds_neither_the_database_nor_the_copies(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x = 1")
    with labbench.start() as run:
        run.artifact(".", copy=True)
        run.artifact(".", copy=True)
    with labbench.open() as db:
        assert [artifact.name for artifact in db.artifacts(run.key)] == ["train.py"]


def test_captured_output_is_stored_and_still_printed(tmp_path: Path) -> None:
    code = """
    import logging
    handler = logging.StreamHandler()
    with labbench.start(capture_output=True) as run:
        print("one")
        print("two\\nthree", end="")
        print("!")
        logging.getLogger().addHandler(handler)
        logging.warning("careful")
        for percent in range(0, 101, 10):
            print(f"\\r{percent} %", end="")
        print()
        print("no end", end="")
    print("after")
    """
    result = scripts.run(tmp_path, code)
    assert result.stdout.startswith("one\ntwo\nthree!\n")
    assert result.stdout.endswith("100 %\nno endafter\n")
    assert result.stderr == "careful\n"
    with labbench.open() as db:
        assert "".join(db.logs(db.runs()[0].key)) == "one\ntwo\nthree!\ncareful\n100 %\nno end"
    assert {stream for (stream,) in query_database("SELECT stream FROM logs")} == {"stdout", "stderr"}


def test_watch_output_starts_at_any_time_and_restores_the_streams(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout.write
    with labbench.start() as run:
        print("before")
        run.watch_output()
        run.watch_output()
        print("recorded")
    assert sys.stdout.write == before
    with labbench.open() as db:
        assert db.logs(run.key) == ["recorded\n"]
    assert capsys.readouterr().out == "before\nrecorded\n"


def test_output_of_every_cell_of_a_notebook_is_captured(tmp_path: Path) -> None:
    """IPython replaces `write` for the duration of each cell."""
    code = """
    import types
    callbacks = []
    events = types.SimpleNamespace(
        register=lambda event, call: event == "pre_run_cell" and callbacks.append(call),
        unregister=lambda event, call: event == "pre_run_cell" and callbacks.remove(call),
    )
    sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(events=events))

    def run_cell(cell):
        before = sys.stdout.write
        sys.stdout.write = lambda text: before(text)
        for call in callbacks:
            call(None)
        try:
            cell()
        finally:
            sys.stdout.write = before

    def begin():
        global run
        run = labbench.start("a", capture_output=True, system_metrics=False)
        print("one")
    run_cell(begin)
    run_cell(lambda: print("two"))
    run_cell(lambda: print("three"))
    run_cell(lambda: run.finish())
    run_cell(lambda: print("after the end"))
    assert callbacks == []
    """
    result = scripts.run(tmp_path, code)
    assert (result.stderr, result.stdout) == ("", "one\ntwo\nthree\nafter the end\n")
    with labbench.open(tmp_path / "runs.db") as db:
        assert "".join(db.logs(scripts.only_run(tmp_path).key)) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("stream", ["None", "open(os.devnull, 'w')"])
def test_missing_or_closed_stream_is_not_captured_and_stops_nothing(tmp_path: Path, stream: str) -> None:
    code = f"""
    sys.stdout = {stream}
    if sys.stdout:
        sys.stdout.close()
    with labbench.start(capture_output=True) as run:
        print("progress", file=sys.stderr)
        run.log({{"loss": 1.0}})
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "progress\n")
    with labbench.open() as db:
        assert db.logs(scripts.only_run(tmp_path).key) == ["progress\n"]


def test_long_output_is_cut_in_the_middle_and_the_script_is_told(tmp_path: Path) -> None:
    code = """
    with labbench.start(capture_output=True, system_metrics=False) as run:
        for i in range(200_000):
            sys.stdout.write(f"line {i}\\n")
    """
    result = scripts.run(tmp_path, code)
    with labbench.open() as db:
        lines = "".join(db.logs(scripts.only_run(tmp_path).key)).splitlines()
    assert (lines[0], lines[-1]) == ("line 0", "line 199999")
    assert f"{200_000 - len(lines) + 1:,} lines of its output were not kept" in result.stderr


# System metrics.


def test_system_metrics_have_plausible_values() -> None:
    sampler = SystemSampler()
    sum(range(2_000_000))
    sample = sampler.sample()
    assert sample["system/process_cpu_percent"] > 0
    assert 0 <= sample["system/cpu_percent"] <= 100
    assert 0 < sample["system/memory_percent"] < 100
    assert 5 < sample["system/process_memory_mb"] < 10_000


@pytest.mark.parametrize("statistics", ["", "inactive_anon 3\n", None])
def test_memory_limit_of_a_sandbox_without_statistics_counts(tmp_path: Path, statistics: str | None) -> None:
    files = {"memory.max": "1000\n", "memory.current": "250\n", "memory.stat": statistics}
    for name, text in files.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    assert cgroup_memory(tmp_path) == (250, 1000)


def test_memory_percent_in_a_container_refers_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_1 = {
        "memory/memory.limit_in_bytes": f"{2**20}\n",
        "memory/memory.usage_in_bytes": f"{2**19}\n",
        "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {2**18}\n",
    }
    version_2 = {
        "memory.max": f"{2**20}\n",
        "memory.current": f"{2**19}\n",
        "memory.stat": f"anon 5\ninactive_file {2**18}\n",
    }
    assert cgroup_memory(tmp_path / "no such folder") is None
    for number, files in enumerate((version_1, version_2)):
        root = tmp_path / str(number)
        (root / "memory").mkdir(parents=True)
        for name, text in files.items():
            (root / name).write_text(text)
        assert cgroup_memory(root) == (2**18, 2**20)
    (root / "memory.max").write_text("max\n")
    assert cgroup_memory(root) is None
    monkeypatch.setattr(system_metrics, "cgroup_memory", lambda: (2**18, 2**20))
    assert SystemSampler().sample()["system/memory_percent"] == 25
    monkeypatch.setattr(system_metrics, "cgroup_memory", lambda: (2**18, 2**62))  # version 1 without a limit
    assert SystemSampler().sample()["system/memory_percent"] > 0.001


@pytest.mark.parametrize(
    ("hierarchy", "line"), [("", "0::/jobs/job-7/step-0"), ("memory", "4:cpuset,memory:/jobs/job-7/step-0")]
)
def test_memory_limit_of_the_job_applies_also_outside_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hierarchy: str, line: str
) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if hierarchy else ("memory.max", "memory.current")
    for group, limit, used in (
        ("jobs", 2**40, 2**30),
        ("jobs/job-7", 2**21, 2**20),
        ("jobs/job-7/step-0", 2**30, 2**19),
    ):
        folder = tmp_path / hierarchy / group
        folder.mkdir(parents=True)
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text("inactive_file 0\ntotal_inactive_file 0\n")
    (tmp_path / "membership").write_text(f"1:name=systemd:/elsewhere\n{line}\n")
    groups = list(control_groups("memory", tmp_path, tmp_path / "membership"))
    monkeypatch.setattr(cgroups, "control_groups", lambda controller, root: groups)
    assert cgroup_memory(tmp_path) == (2**20, 2**21)
    (tmp_path / "membership").write_text("0::/../outside\n")
    assert list(control_groups("memory", tmp_path, tmp_path / "membership")) == [tmp_path, tmp_path / "memory"]


def test_system_metrics_hidden_by_a_container_are_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    sample = SystemSampler().sample()
    assert "system/memory_percent" not in sample
    assert sample["system/process_memory_mb"] > 0


def count_samples(run: labbench.Run) -> int:
    sampled = record(run).summary.get("system/process_cpu_percent")
    return sampled.n if sampled else 0


@pytest.mark.parametrize("enabled", [True, False])
def test_system_metrics_are_sampled_unless_disabled(monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    monkeypatch.setattr("labbench.tracking.monitor.SYSTEM_SECONDS", 0.01)
    monkeypatch.setattr("labbench.tracking.monitor.LOAD_SECONDS", 0)
    with labbench.start(system_metrics=enabled) as run:
        for step in range(0, 50, 10):
            run.log({"loss": 1.0}, step=step)
        deadline = time.monotonic() + 60 if enabled else 0
        while time.monotonic() < deadline and count_samples(run) <= 5:
            time.sleep(0.01)
    assert record(run).summary["loss"].n == 5
    assert (count_samples(run) > 5) == enabled
    if enabled:
        assert record(run).summary["system/process_cpu_percent"].last_step >= 40


class FakeNvml:
    """Stand-in for nvidia-ml-py with two GPUs; the second does not report its use."""

    class NVMLError(Exception):
        pass

    nvmlInit = staticmethod(lambda: None)  # noqa: N815
    nvmlDeviceGetCount = staticmethod(lambda: 2)  # noqa: N815
    nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)  # noqa: N815
    nvmlDeviceGetHandleByUUID = staticmethod(lambda name: 1)  # noqa: N815
    nvmlDeviceGetMemoryInfo = staticmethod(lambda gpu: SimpleNamespace(used=(gpu + 1) * 2**30))  # noqa: N815

    @classmethod
    def nvmlDeviceGetUtilizationRates(cls, gpu: int) -> SimpleNamespace:  # noqa: N802
        if gpu == 1:
            raise cls.NVMLError("not supported")
        return SimpleNamespace(gpu=90)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {"system/gpu0_percent": 90.0, "system/gpu0_memory_mb": 1024.0}),
        ("1,0", {"system/gpu0_percent": 90.0, "system/gpu0_memory_mb": 1024.0}),
        ("1", {}),
        ("GPU-abcd", {}),
        ("", {}),
    ],
)
def test_visible_gpus_are_sampled_with_nvml(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: dict[str, float]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())  # type: ignore[arg-type]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sample = SystemSampler().sample()
    assert {name: value for name, value in sample.items() if name.startswith("system/gpu")} == expected


def test_a_run_may_be_renamed_and_an_artifact_named(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("w")
    with labbench.start("before") as run:
        run.rename("after")
        run.artifact("weights.bin", copy=True, name="../model/best.bin")
        with pytest.raises(InputError, match="is not a name of a file"):
            run.artifact("weights.bin", name="..")
    assert record(run).name == run.name == "after"
    with labbench.open() as db:
        assert [(artifact.name, artifact.path) for artifact in db.artifacts(run.key)] == [
            ("model/best.bin", "model/best.bin")
        ]


# Functions of W&B.


def test_init_log_and_finish_work_as_in_wandb() -> None:
    run = labbench.init(project="mnist", name="first", config={"lr": 0.1}, tags=["a"], notes="n")
    labbench.log({"loss": 1.0})
    labbench.log({"loss": 0.5}, step=10)
    labbench.log({"a": 1.0}, commit=False)
    labbench.log({"b": 2.0})
    labbench.log({"c": 3.0}, commit=False)
    labbench.finish()
    stored = record(run)
    assert (stored.experiment, stored.name, stored.note, stored.status) == ("mnist", "first", "n", "finished")
    assert {name: summary.last_step for name, summary in stored.summary.items()} == {
        "loss": 10, "a": 11, "b": 11, "c": 12
    }  # fmt: skip


def test_init_warns_of_ignored_arguments_and_finishes_the_previous_run() -> None:
    first = labbench.init("mnist")
    with pytest.warns(UserWarning, match="labbench.init ignores entity, group"):
        second = labbench.init("mnist", entity="me", mode="offline", group="g")
    labbench.finish(exit_code=1)
    assert (record(first).status, record(second).status) == ("finished", "failed")
    with pytest.raises(InputError, match=r"labbench.init has no argument lr"):
        labbench.init("mnist", lr=0.1)


def test_before_the_first_run_finish_is_a_no_op_and_log_raises(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, 'labbench.finish()\nlabbench.log({"loss": 1.0})', LABBENCH_STRICT="0")
    assert "InputError: no run is open: call labbench.init() or labbench.start() first" in result.stderr


def test_log_after_the_last_run_has_ended_is_reported_once(tmp_path: Path) -> None:
    code = """
    run = labbench.init("mnist")
    labbench.finish()
    for commit in (True, False, True):
        labbench.log({"loss": 1.0}, commit=commit)
    """
    result = scripts.run(tmp_path, code, LABBENCH_STRICT="0")
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) == 1
    assert "has ended: nothing more can be logged to it" in result.stderr


def test_uncommitted_values_are_recorded_in_their_own_run() -> None:
    first = labbench.init("mnist")
    labbench.log({"waits": 1.0}, step=5, commit=False)
    first.finish()
    second = labbench.init("mnist")
    labbench.log({"a": 1.0}, step=7, commit=False)
    with pytest.raises(InputError, match="`text`"):
        labbench.log({"text": "no number"}, commit=False)
    labbench.log({"b": 2.0})
    labbench.finish()
    assert {name: summary.last_step for name, summary in record(first).summary.items()} == {"waits": 5}
    assert {name: summary.last_step for name, summary in record(second).summary.items()} == {"a": 7, "b": 7}


def test_files_of_the_same_name_in_different_folders_are_separate_artifacts(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path.parent / "elsewhere"
    for folder in (inside, inside / "deeper", outside):
        folder.mkdir(exist_ok=True)
        (folder / "model.pt").write_text(str(folder))
    with labbench.start() as run:
        for folder in (inside, inside / "deeper", outside, inside):
            run.artifact(folder / "model.pt", copy=True)
    with labbench.open(run.path) as db:
        stored = db.artifacts(run.key)
    assert {artifact.name for artifact in stored} == {
        "in/model.pt", "in/deeper/model.pt", "/".join((outside / "model.pt").parts[1:]),
    }  # fmt: skip
    copies = Path(f"{run.path}.files") / run.key
    assert {(copies / artifact.path).read_text() for artifact in stored} == set(
        map(str, (inside, inside / "deeper", outside))
    )


def test_steps_of_system_metrics_do_not_count_when_a_run_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labbench.tracking.monitor.SYSTEM_SECONDS", 0.02)
    monkeypatch.setattr("labbench.tracking.monitor.LOAD_SECONDS", 0)
    for attempt in range(2):
        with labbench.start("a run", resume="a run" if attempt else None) as run:
            time.sleep(0.5)
            for value in range(3):
                run.log({"loss": 10.0 * attempt + value})
    with labbench.open(run.path) as db:
        steps, values = db.series(run.key, "loss")
    assert dict(zip(steps.tolist(), values.tolist(), strict=True)) == {0: 0, 1: 1, 2: 2, 3: 10, 4: 11, 5: 12}


def test_folder_name_that_is_not_utf_8_can_hold_a_database(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    with labbench.start(db=folder / "runs.db") as run:
        run.log({"loss": 1.0})
    with labbench.open(folder / "runs.db") as db:
        assert db.find(run.key).summary["loss"].n == 1


def test_invalid_tags_are_rejected() -> None:
    with pytest.raises(InputError, match="tags must be a list of strings, not int"):
        labbench.start(tags=5)  # type: ignore[arg-type]


# Imports and public names.


def test_tracking_imports_only_the_standard_library(tmp_path: Path) -> None:
    code = """
    from labbench.tracking import monitor
    monitor.LOAD_SECONDS = 3600  # the sampler of system metrics needs psutil
    with labbench.start(capture_output=True) as run:
        run.log({"loss": 1.0})
        time.sleep(0.3)
    loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__"}
    loaded -= {"sitecustomize", "usercustomize"}  # belong to the Python installation
    print(sorted(name for name in loaded if not name.startswith("_")))
    """
    result = scripts.run(tmp_path, code)
    assert (result.stdout, result.stderr) == ("['labbench']\n", "")


PUBLIC_MEMBERS_OF_RUN = {
    "key", "name", "experiment", "path", "config", "summary", "log", "tag", "note", "rename", "define_metric",
    "artifact", "watch_output", "flush", "finish", "resumed",
}  # fmt: skip
"""As documented in docs/reference/python.md."""


def test_public_members_of_run_are_the_documented_ones() -> None:
    with labbench.start() as run:
        assert {name for name in dir(run) if not name.startswith("_")} == PUBLIC_MEMBERS_OF_RUN


def test_unknown_attribute_of_the_package_raises() -> None:
    assert labbench.Run.__name__ == "Run"
    with pytest.raises(AttributeError, match="module 'labbench' has no attribute 'nothing'"):
        _ = labbench.nothing


SCRIPT = """
import multiprocessing, labbench
def child():
    labbench.start("of a child", system_metrics=False).finish()
if __name__ == "__main__":
    run = labbench.start("mine\\x1b[31m", system_metrics=False)
    run.finish()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    labbench.start(resume=run.key, system_metrics=False).finish()
    labbench.start("quiet", system_metrics=False, quiet=True).finish()
"""


def test_one_line_names_run_key_and_database_in_the_main_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "grid.toml").write_text('command = ["python", "train.py"]\n[grid]\nlr = [0.1]\n')
    command = [sys.executable, "train.py"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=True)
    monkeypatch.delenv("LABBENCH_QUIET")
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (quiet.stdout, quiet.stderr, result.stdout) == ("", "", "")
    first, second = result.stderr.splitlines()
    key = first.partition("(")[2][:8]
    assert first == f"labbench: recording 'mine\\x1b[31m' ({key}) in {tmp_path / 'runs.db'}"
    assert second == f"labbench: resuming at step 0: 'mine\\x1b[31m' ({key}) in {tmp_path / 'runs.db'}"
    words = [sys.executable, "-m", "labbench", "--db", "recorded.db"]
    recorded = subprocess.run([*words, "run", "--", *command], capture_output=True, text=True)
    assert "labbench: recording" not in recorded.stdout + recorded.stderr


def test_secrets_in_the_command_line_are_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text('import labbench\nlabbench.start("a run", system_metrics=False).finish()\n')
    words = ["--lr", "0.1", "--api-key", "s3cret", "hub.token=s3cret"]
    subprocess.run([sys.executable, "train.py", *words], check=True)
    with labbench.open("runs.db") as db:
        [run] = db.runs()
        assert db.sources(run.key)["command"].endswith("python train.py --lr 0.1 --api-key '***' 'hub.token=***'")
    assert not any(b"s3cret" in file.read_bytes() for file in tmp_path.glob("runs.db*") if file.is_file())


def test_the_run_of_a_callback_is_joined_and_only_ended_by_it() -> None:
    callback_run = labbench.start("job", config={"lr": 0.1})
    callback_run._is_shared = True
    for start in (labbench.start, labbench.init, wandb.init):
        with start(config={"wd": 1}) as run:
            run.log({"loss": 1.0})
        run.finish()
        assert run.key == callback_run.key
    with labbench.start("other", db="other.db") as other:
        assert other.key != callback_run.key
    callback_run._end(exit_info_of_status(0))
    with Reader("runs.db") as reader:
        [record] = reader.runs()
    assert (record.status, record.config, record.summary["loss"].n) == ("finished", {"lr": 0.1, "wd": 1}, 3)
    with labbench.start() as next_run:
        assert next_run.key != callback_run.key
