"""Starting, resuming and describing a run: what a script says of it stands in the database."""

from __future__ import annotations

import argparse
import contextlib
import enum
import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

import labbench
from helpers import scripts
from helpers.store_samples import queue
from labbench.errors import InputError, RunNotFound
from labbench.records import RunRecord
from labbench.store.writer import Writer
from labbench.tracking import system_metrics
from labbench.tracking.config import plain_config
from labbench.tracking.system_metrics import SystemSampler, cgroup_memory


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LABBENCH_DB", "LABBENCH_RUN", "LABBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def record(run: labbench.Run) -> RunRecord:
    with labbench.open(run.path) as db:
        return db.find(run.key)


def rows(query: str) -> list[tuple[Any, ...]]:
    with Writer("runs.db") as writer:
        return writer._connection.execute(query).fetchall()


def test_all_that_is_said_of_a_run_is_kept() -> None:
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
    kept = record(run)
    assert kept.config == {
        "lr": 0.1, "model.width": [8, 8], "seed": 3, "batch": 32, "model.depth": 2, "dropout": 0.5
    }  # fmt: skip
    assert (kept.name, kept.experiment, kept.tags, kept.note) == ("baseline", "mnist", ("a", "b", "c"), "better")
    with labbench.open() as db:
        assert db.goal("score") == "min"
        assert db.runs("experiment=mnist lr=0.1 tag=c status=finished") == [kept]


def test_a_run_without_a_name_is_called_after_its_script_and_numbered(tmp_path: Path) -> None:
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


def test_the_code_that_a_run_comes_from_is_kept(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", *command], check=True)
    scripts.run(tmp_path, "labbench.start().finish()")
    kept = scripts.only_run(tmp_path)
    assert kept.git_commit == subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert kept.git_dirty
    assert kept.versions["labbench"] == labbench.__version__
    with labbench.open() as db:
        sources = db.sources(kept.key)
    assert sources["script"] == (tmp_path / "train.py").read_text()
    assert "+labbench.start().finish()" in sources["diff"]


def test_the_database_is_where_labbench_db_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABBENCH_DB", str(tmp_path / "there.db"))
    with labbench.start() as run:
        assert run.path == tmp_path / "there.db"
    with labbench.start(db="here.db") as run:
        assert run.path == tmp_path / "here.db"


class Colour(enum.Enum):
    RED = 1


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
def test_a_config_is_flat_and_json(config: Any, plain: dict[str, Any]) -> None:
    assert plain_config(config) == plain


def test_what_json_cannot_say_is_kept_as_text_with_a_warning() -> None:
    circle: list[Any] = []
    circle.append(circle)
    config = {"colour": Colour.RED, "model": Model, "set": {1}, "array": np.arange(2), "circle": circle, "lr": 0.1}
    with pytest.warns(UserWarning, match=r"cannot say `colour` \(Colour\), `model` \(type\), `set` \(set\)") as warned:
        run = labbench.start(config=config, system_metrics=False)
    run.finish()
    assert warned[0].filename == __file__
    assert {key: value for key, value in record(run).config.items() if key != "circle"} == {
        "colour": "Colour.RED", "model": str(Model), "set": "{1}", "array": "[0 1]", "lr": 0.1
    }  # fmt: skip


def test_an_integer_that_python_cannot_print_does_not_cost_the_run_its_points() -> None:
    with labbench.start(system_metrics=False) as run:
        with pytest.warns(UserWarning, match=r"cannot say `n` \(int\): kept as text"):
            run.config.update({"n": 10**5000, "m": 10**1000})
        run.log({"loss": 1.0})
    assert record(run).config == {"n": hex(10**5000), "m": 10**1000}
    assert (record(run).status, record(run).summary["loss"].n) == ("finished", 1)


@pytest.mark.parametrize("config", [["lr", 0.1], "lr=0.1", 3])
def test_what_is_no_config_is_refused_and_nothing_is_made(tmp_path: Path, config: Any) -> None:
    with pytest.raises(InputError, match="a config is a dict, a namespace or a dataclass"):
        labbench.start(config=config)
    assert list(tmp_path.iterdir()) == []


def test_odd_names_are_kept() -> None:
    name = "x [/nope] \x1b]52;c;aGk=\x07 \ud800 " + "y" * 10_000
    with labbench.start(name, experiment="e\n", tags="one tag", note="\ud800") as run:
        pass
    kept = record(run)
    assert kept.name == name.replace("\ud800", "?")
    assert (kept.experiment, kept.tags, kept.note) == ("e\n", ("one tag",), "?")


def test_a_goal_is_min_or_max() -> None:
    with labbench.start() as run, pytest.raises(InputError, match="the goal of `loss` must be min or max, not 'less'"):
        run.define_metric("loss", goal="less")  # type: ignore[arg-type]


# Resuming.


def failed_run() -> labbench.Run:
    """A run that has failed behind step 9."""
    run = labbench.start("a run", config={"lr": 0.1})
    for step in range(10):
        run.log({"loss": float(step), "other": 1.0})
    run.finish(exit_code=1)
    return run


def test_a_resumed_run_goes_on_behind_its_last_step() -> None:
    run = failed_run()
    with labbench.start(resume=run.key[:4], config={"extra": 1}, tags=["again"]) as again:
        assert (again.key, again.name) == (run.key, "a run")
        assert again.config == {"lr": 0.1, "extra": 1}
        again.log({"loss": 100.0})
    kept = record(run)
    assert (kept.status, kept.attempt, kept.error, kept.tags) == ("finished", 2, None, ("again",))
    assert (kept.summary["loss"].n, kept.summary["loss"].last_step) == (11, 10)


def test_a_run_that_is_resumed_from_a_checkpoint_drops_what_came_after_it() -> None:
    run = failed_run()
    with labbench.start(resume="a run") as again:
        again.log({"loss": -1.0}, step=6)
        again.log({"loss": -2.0})
    with labbench.open() as db:
        steps, values = db.series(run.key, "loss")
        assert steps.tolist() == [*range(8)]
        assert values.tolist() == [0, 1, 2, 3, 4, 5, -1, -2]
        assert db.series(run.key, "other")[0].tolist() == [*range(6)]


def test_what_cannot_be_resumed_is_said() -> None:
    with labbench.start("live") as run:
        with pytest.raises(InputError, match=f"run {run.key} is still running, in process"):
            labbench.start(resume="live")
        with pytest.raises(RunNotFound, match="no run has the key or the name `nothing`"):
            labbench.start(resume="nothing")
    with Writer("runs.db") as writer:
        [queued] = queue(writer)
    with pytest.raises(InputError, match="only a script's run can be resumed"):
        labbench.start(resume=queued.key)


def resumed_as_if_its_machine_had_slept(name: str) -> labbench.Run:
    """The run taken up while its process lives. That beats every two seconds, which may undo the trick: tried again."""
    for _ in range(5):
        with Writer("runs.db") as writer:
            writer._connection.execute("UPDATE runs SET heartbeat = 0")
        with contextlib.suppress(InputError):
            return labbench.start(resume=name)
    raise AssertionError("its heart beat each time")


def test_a_run_that_was_resumed_elsewhere_takes_nothing_from_its_first_process(tmp_path: Path) -> None:
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
    with resumed_as_if_its_machine_had_slept("a run") as again:
        again.log({"loss": 10.0})
        (tmp_path / "resumed").touch()
        assert "resumed elsewhere" in scripts.end(process).stderr
    kept = record(again)
    assert (kept.status, kept.attempt, kept.summary["loss"].max) == ("finished", 2, 10.0)


# Files and output.


def test_an_artifact_is_recorded_by_size_and_hash_and_copied_if_asked(tmp_path: Path) -> None:
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
        with pytest.raises(InputError, match="Is a directory"):
            run.artifact("out")
    found = rows("SELECT name, path, size, sha256 FROM artifacts ORDER BY id")
    weights, table = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"1,2").hexdigest()
    assert found == [
        ("out/model.pt", "out/model.pt", 7, weights),
        ("data.csv", str(tmp_path / "data.csv"), 3, table),
    ]
    assert (tmp_path / "runs.db.files" / run.key / "out/model.pt").read_bytes() == b"weights"


def test_what_is_printed_is_kept_and_still_printed(tmp_path: Path) -> None:
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
        assert "\n".join(db.logs(db.runs()[0].key)) == "one\ntwo\nthree!\ncareful\n100 %\nno end"
    assert {stream for (stream,) in rows("SELECT stream FROM logs")} == {"stdout", "stderr"}


def test_output_can_be_watched_from_any_moment_and_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout.write
    with labbench.start() as run:
        print("unheard")
        run.watch_output()
        run.watch_output()
        print("heard")
    assert sys.stdout.write == before
    with labbench.open() as db:
        assert db.logs(run.key) == ["heard"]
    assert capsys.readouterr().out == "unheard\nheard\n"


# System metrics.


def test_system_metrics_are_percent_and_megabytes() -> None:
    sampler = SystemSampler()
    sum(range(2_000_000))
    sample = sampler.sample()
    assert sample["system/process_cpu_percent"] > 0
    assert 0 <= sample["system/cpu_percent"] <= 100
    assert 0 < sample["system/memory_percent"] < 100
    assert 5 < sample["system/process_memory_mb"] < 10_000


def test_memory_in_a_container_is_a_share_of_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_system_metrics_that_a_container_hides_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    sample = SystemSampler().sample()
    assert "system/memory_percent" not in sample
    assert sample["system/process_memory_mb"] > 0


@pytest.mark.parametrize("wanted", [True, False])
def test_system_metrics_are_sampled_beside_the_run_at_steps_of_its_own(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr("labbench.tracking.monitor.SYSTEM_SECONDS", 0.01)
    monkeypatch.setattr("labbench.tracking.monitor.LOAD_SECONDS", 0)
    with labbench.start(system_metrics=wanted) as run:
        for step in range(0, 50, 10):
            run.log({"loss": 1.0}, step=step)
            subprocess.run(["sleep", "0.03"], check=True)
    sampled = record(run).summary.get("system/process_cpu_percent")
    assert record(run).summary["loss"].n == 5
    if wanted:
        assert sampled is not None
        assert sampled.last_step >= 40
        assert sampled.n > 5
    else:
        assert sampled is None


class FakeNvml:
    """nvidia-ml-py on a machine with two GPUs, the second of which does not tell its use."""

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
def test_gpus_are_sampled_where_nvml_is_there(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: dict[str, float]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())  # type: ignore[arg-type]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sample = SystemSampler().sample()
    assert {name: value for name, value in sample.items() if name.startswith("system/gpu")} == expected


# The names of W&B.


def test_the_trio_of_wandb_does_what_it_did() -> None:
    run = labbench.init(project="mnist", name="first", config={"lr": 0.1}, tags=["a"], notes="n")
    labbench.log({"loss": 1.0})
    labbench.log({"loss": 0.5}, step=10)
    labbench.log({"a": 1.0}, commit=False)
    labbench.log({"b": 2.0})
    labbench.log({"c": 3.0}, commit=False)
    labbench.finish()
    kept = record(run)
    assert (kept.experiment, kept.name, kept.note, kept.status) == ("mnist", "first", "n", "finished")
    assert {name: summary.last_step for name, summary in kept.summary.items()} == {
        "loss": 10, "a": 11, "b": 11, "c": 12
    }  # fmt: skip


def test_init_names_what_it_ignores_and_finishes_the_run_before() -> None:
    first = labbench.init("mnist")
    with pytest.warns(UserWarning, match="labbench.init ignores entity, mode"):
        second = labbench.init("mnist", entity="me", mode="offline")
    labbench.finish(exit_code=1)
    assert (record(first).status, record(second).status) == ("finished", "failed")
    with pytest.raises(InputError, match=r"labbench.init knows no lr"):
        labbench.init("mnist", lr=0.1)


def test_without_an_open_run_there_is_nothing_to_finish_and_logging_says_what_to_do() -> None:
    labbench.finish()
    with pytest.raises(InputError, match=r"no run is open: call labbench.init\(\) or labbench.start\(\) first"):
        labbench.log({"loss": 1.0})


def test_what_waits_for_the_next_call_is_its_own_run_s_however_that_ends() -> None:
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


def test_files_of_one_name_are_two_artifacts(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path.parent / "elsewhere"
    for folder in (inside, inside / "deeper", outside):
        folder.mkdir(exist_ok=True)
        (folder / "model.pt").write_text(str(folder))
    with labbench.start() as run:
        for folder in (inside, inside / "deeper", outside, inside):
            run.artifact(folder / "model.pt", copy=True)
    with labbench.open(run.path) as db:
        kept = db.artifacts(run.key)
    assert {artifact.name for artifact in kept} == {
        "in/model.pt", "in/deeper/model.pt", "/".join((outside / "model.pt").parts[1:]),
    }  # fmt: skip
    copies = Path(f"{run.path}.files") / run.key
    assert {(copies / artifact.path).read_text() for artifact in kept} == set(
        map(str, (inside, inside / "deeper", outside))
    )


def test_a_resumed_run_goes_on_behind_its_own_steps_not_those_of_the_machine_s_figures(
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


def test_a_folder_whose_name_is_no_text_is_a_place_for_a_database(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    with labbench.start(db=folder / "runs.db") as run:
        run.log({"loss": 1.0})
    with labbench.open(folder / "runs.db") as db:
        assert db.find(run.key).summary["loss"].n == 1


def test_tags_that_are_none_are_named() -> None:
    with pytest.raises(InputError, match="tags are texts, not int"):
        labbench.start(tags=5)  # type: ignore[arg-type]


# What it costs to import.


def test_a_script_loads_the_standard_library_alone(tmp_path: Path) -> None:
    code = """
    with labbench.start(capture_output=True) as run:
        run.log({"loss": 1.0})
        time.sleep(0.3)
    loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__"}
    loaded -= {"sitecustomize", "usercustomize"}  # the installation's own
    print(sorted(name for name in loaded if not name.startswith("_")))
    """
    result = scripts.run(tmp_path, code)
    assert (result.stdout, result.stderr) == ("['labbench']\n", "")


def test_the_package_names_what_it_offers() -> None:
    assert labbench.Run.__name__ == "Run"
    with pytest.raises(AttributeError, match="module 'labbench' has no attribute 'nothing'"):
        _ = labbench.nothing
