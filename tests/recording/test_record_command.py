"""`labbench run -- COMMAND`: one run of any command, recorded with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from helpers.scripts import only_run
from helpers.waiting import HANG_SECONDS, wait_for
from labbench.errors import LabbenchError
from labbench.store.reader import Reader

ROOT = Path(__file__).parents[2]


@contextmanager
def begin(folder: Path, code: str, *words: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start `labbench run OPTIONS -- python train.py WORDS`; what is left of it is killed after the block."""
    (folder / "train.py").write_text(textwrap.dedent(code))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABBENCH")}
    process = subprocess.Popen(
        [sys.executable, "-m", "labbench", "run", *options, "--", sys.executable, "train.py", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def record(folder: Path, code: str, *words: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run a command to its end; return exit status, output and messages."""
    with begin(folder, code, *words, options=options) as process:
        out, err = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, out, err


def read_series(folder: Path, metric: str) -> dict[int, float]:
    with Reader(folder / "runs.db") as reader:
        steps, values = reader.series(only_run(folder).key, metric)
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_options_output_metrics_and_exit_status_are_recorded_and_no_secret(tmp_path: Path) -> None:
    code = """
    import sys
    for epoch in range(3):
        print(f"epoch {epoch} loss {1 / (epoch + 1):.2f} val_acc=0.{epoch}")
    print("a warning", file=sys.stderr)
    sys.exit(3)
    """
    status, out, err = record(tmp_path, code, "--lr", "0.1", "--api-key", "abc123xyz", options=("--tag", "a"))
    assert status == 3
    assert out.splitlines()[:1] == ["epoch 0 loss 1.00 val_acc=0.0"]
    assert "2 metrics recognised in the output: loss, val_acc" in err
    run = only_run(tmp_path)
    assert (run.experiment, run.name, run.status, run.tags) == ("train", "train-1", "failed", ("a",))
    assert run.config == {"lr": 0.1, "api_key": "***"}
    assert "exit status 3" in (run.error or "")
    assert read_series(tmp_path, "loss") == {0: 1.0, 1: 0.5, 2: 0.33}
    with Reader(tmp_path / "runs.db") as reader:
        assert "a warning" in "".join(reader.logs(run.key))
        sources = reader.sources(run.key)
    assert "--lr 0.1 --api-key '***'" in sources["command"]
    assert "sys.exit(3)" in sources["script"]
    assert not any(b"abc123xyz" in path.read_bytes() for path in tmp_path.glob("runs.db*") if path.is_file())


def test_a_disabled_recording_runs_the_command_alone(tmp_path: Path) -> None:
    code = "import os, sys; print('LABBENCH_RUN' in os.environ, sys.argv[1:]); sys.exit(3)"
    command = [sys.executable, "-m", "labbench", "run", "--", sys.executable, "-c", code, "loss", "0.5"]
    environment = os.environ | {"LABBENCH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "False ['loss', '0.5']\n", "")
    assert [*tmp_path.iterdir()] == []


def test_metrics_by_pattern_and_without_metrics(tmp_path: Path) -> None:
    code = "print('it=4 NLL 0.5 loss 1.0')"
    status, _, _ = record(tmp_path, code, options=("--metrics", r"it=(?P<step>\d+) NLL (?P<nll>\S+)", "--name", "p"))
    assert (status, read_series(tmp_path, "nll")) == (0, {4: 0.5})
    record(tmp_path, code, options=("--no-metrics", "--name", "none"))
    with Reader(tmp_path / "runs.db") as reader:
        assert [(run.name, list(run.summary)) for run in reader.runs()] == [("p", ["nll"]), ("none", [])]


def test_event_files_are_followed_and_older_ones_left_alone(tmp_path: Path) -> None:
    code = """
    from pathlib import Path
    from helpers.event_files import write_event_file
    write_event_file(Path("logs/new"), [("train/loss", step, step / 2) for step in range(4)])
    write_event_file(Path("logs/other"), [("train/loss", step, 7.0) for step in range(2)])
    print("loss: 3.0")
    """
    from helpers.event_files import write_event_file

    write_event_file(tmp_path / "logs" / "old", [("old", 0, 1.0)])
    status, _, err = record(tmp_path, code)
    assert status == 0
    assert "2 metrics from event files: other/train/loss, train/loss" in err
    assert set(only_run(tmp_path).summary) == {"train/loss", "other/train/loss"}
    assert read_series(tmp_path, "train/loss") == {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5}


def test_a_growing_table_is_followed_while_the_command_runs(tmp_path: Path) -> None:
    code = """
    import pathlib, time
    folder = pathlib.Path("lightning_logs/version_0")
    folder.mkdir(parents=True)
    (folder / "hparams.yaml").write_text("lr: 0.5\\nhub_token: secret1\\n")
    with open(folder / "metrics.csv", "w") as file:
        print("epoch,step,train_loss", file=file)
        print("0,0,1.0", file=file, flush=True)
        while not pathlib.Path("seen").exists():
            time.sleep(0.05)
        print("0,1,0.5", file=file)
    """
    with begin(tmp_path, code) as process:

        def is_seen() -> bool:
            if not (tmp_path / "runs.db").exists():
                return False
            with suppress(LabbenchError), Reader(tmp_path / "runs.db") as reader:  # the database is being created
                return any("train_loss" in run.summary for run in reader.runs())
            return False

        wait_for(is_seen)
        (tmp_path / "seen").touch()
        process.communicate(timeout=HANG_SECONDS)
    assert read_series(tmp_path, "train_loss") == {0: 1.0, 1: 0.5}
    assert only_run(tmp_path).config == {"lr": 0.5, "hub_token": "***"}


@pytest.mark.parametrize(
    "call",
    [
        'run = labbench.start("other", experiment="x", config={"width": 8})',
        'run = labbench.wandb.init(project="x", name="other", config={"width": 8})',
        'from labbench.integrations import SummaryWriter; run = SummaryWriter("a").run; run.config.width = 8',
    ],
)
def test_a_script_that_uses_labbench_logs_to_the_same_run(tmp_path: Path, call: str) -> None:
    code = f"""
    import labbench, labbench.wandb
    {call}
    for step in range(3):
        run.log({{"mine": step}}, step=step)
        print("step", step, "loss", 5.0)
    """
    status, _, err = record(tmp_path, code, "--lr", "1")
    assert (status, "1 metric logged with labbench: mine" in err) == (0, True)
    run = only_run(tmp_path)
    assert (run.name, run.status, run.config) == ("train-1", "finished", {"lr": 1, "width": 8})
    assert set(run.summary) == {"mine"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_forwarded_and_helper_processes_ended(tmp_path: Path, number: signal.Signals) -> None:
    code = """
    import signal, subprocess, sys, time
    child = subprocess.Popen(["sleep", "600"])
    def stop(number, frame):
        print("saving")
        sys.exit(7)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print("pid", child.pid, flush=True)
    time.sleep(600)
    """
    with begin(tmp_path, code) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[1])
        process.send_signal(number)
        out, _ = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, "saving" in out) == (7, True)
    run = only_run(tmp_path)
    assert (run.status, run.reason) == ("stopped", f"{number.name}; exit status 7")
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_the_command_ends_with_a_killed_labbench(tmp_path: Path) -> None:
    with begin(tmp_path, 'import os, time; print("pid", os.getpid(), flush=True); time.sleep(600)') as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[1])
        process.kill()
        process.wait()
        wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_program_that_does_not_exist_leaves_no_run(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "labbench", "run", "--", "no-such-program", "--lr", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, "no-such-program cannot be started" in result.stderr) == (2, True)
    assert not (tmp_path / "runs.db").exists()


def test_a_killed_command_has_the_status_of_a_shell(tmp_path: Path) -> None:
    status, _, _ = record(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert status == 128 + signal.SIGKILL
    assert only_run(tmp_path).status == "failed"


def test_system_metrics_of_the_command_are_recorded_once(tmp_path: Path) -> None:
    """The script, which records with labbench itself, holds 100 MB; the recorder does not."""
    code = """
    import time, labbench
    memory = bytearray(100 << 20)
    with labbench.start() as run:
        run.log({"loss": 1.0}, step=0)
        while not run.summary.get("done"):
            time.sleep(0.05)
            with labbench.open(run.path) as db:
                samples = db.find(run.key).summary.get("system/process_memory_mb")
            if samples is not None and samples.n >= 3:
                run.log({"done": 1.0}, step=1)
    """
    sampling = """
    import sys
    from labbench.cli import main
    from labbench.tracking import monitor
    monitor.SYSTEM_SECONDS = monitor.LOAD_SECONDS = 0.05
    main()
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(code))
    (tmp_path / "sampling.py").write_text(textwrap.dedent(sampling))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABBENCH")}
    subprocess.run(
        [sys.executable, "sampling.py", "run", "--", sys.executable, "train.py"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, check=True, timeout=HANG_SECONDS,
    )  # fmt: skip
    memory = read_series(tmp_path, "system/process_memory_mb")
    assert len(memory) >= 3
    assert max(memory.values()) > 100
    assert {"system/cpu_percent", "system/process_cpu_percent"} <= only_run(tmp_path).summary.keys()


def test_the_record_of_wandb_itself_is_named_and_its_summary_is_no_metric(tmp_path: Path) -> None:
    code = """
    print("wandb: Run data is saved locally in /somewhere/wandb/offline-run-1")
    print("wandb: val/loss 0.3")
    """
    status, _, err = record(tmp_path, code)
    assert (status, "val/loss" in only_run(tmp_path).summary) == (0, False)
    assert "import wandb /somewhere/wandb/offline-run-1` reads it" in err


@pytest.mark.parametrize("tail", ["", "print('last words', flush=True)"])
def test_messages_of_labbench_are_not_the_last_words_of_a_command(tmp_path: Path, tail: str) -> None:
    code = f"""
    import os, signal
    {tail}
    print("labbench: wandb.watch does nothing in labbench", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    record(tmp_path, code)
    assert (only_run(tmp_path).traceback or "").strip() == ("last words" if tail else "")
