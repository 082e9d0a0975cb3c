"""Scripts that use up their file descriptors, memory or threads: nothing is lost, and no training is disturbed."""

from __future__ import annotations

import errno
import subprocess
import traceback
from pathlib import Path
from typing import Any

import pytest

import labbench
from helpers import scripts
from labbench.integrations import summary_writer
from labbench.integrations.summary_writer import SummaryWriter
from labbench.store.reader import Reader
from labbench.store.script_writer import Outcome, ScriptWriter
from labbench.tracking import monitor

USE_UP = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    files = []
    def use_up_descriptors():
        try:
            while True:
                files.append(open("/dev/null"))
        except OSError:
            pass
    def wait_until(condition):
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
    def wait_for_code_state(run):
        wait_until(lambda: run._writer_thread.run.sources)
        run.flush()
"""


def test_run_goes_on_without_a_free_descriptor(tmp_path: Path) -> None:
    code = f"""{USE_UP}
    with labbench.start("run", capture_output=True, system_metrics=False) as run:
        wait_for_code_state(run)
        use_up_descriptors()
        for step in range(5000):  # enough for rollups
            run.log({{"loss": float(step)}})
        print("printed")
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stdout) == (0, "printed\n")
    assert "lost" not in result.stderr
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n) == ("finished", 5000)
    with Reader(tmp_path / "runs.db") as reader:
        assert list(reader.logs(record.key)) == ["printed\n"]


def test_what_needs_a_descriptor_is_recorded_once_there_is_one(tmp_path: Path) -> None:
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    code = f"""{USE_UP}
    from labbench.tracking import monitor
    monitor.SYSTEM_SECONDS = monitor.LOAD_SECONDS = 0.2
    import subprocess  # git alone lacks descriptors
    labbench.start  # is loaded on first use
    started, monitor.RunMonitor._work = monitor.RunMonitor._work, lambda self: (use_up_descriptors(), started(self))
    with labbench.start("run") as run:
        for step in range(100):
            run.log({{"loss": float(step)}})
        time.sleep(0.5)  # further tries fail
        files.clear()
        wait_for_code_state(run)
        wait_until(lambda: "system/process_memory_mb" in run.summary)
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "code state could not be recorded: Too many open files" in result.stderr.replace("[Errno 24] ", "")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n) == ("finished", 100)
    assert record.summary["system/process_memory_mb"].n >= 1
    assert record.git_commit is not None
    assert record.versions["cores"]


def test_script_that_fails_for_lack_of_descriptors_is_recorded_as_failed(tmp_path: Path) -> None:
    code = f"""{USE_UP}
    with labbench.start("run") as run:
        run.log({{"loss": 1.0}})
        wait_for_code_state(run)
        sys.modules.pop("traceback", None)
        use_up_descriptors()
        open("/dev/zero")
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        1,
        "OSError: [Errno 24] Too many open files: '/dev/zero'",
    )
    record = scripts.only_run(tmp_path)
    assert record.status == "failed"
    assert record.error == "OSError: [Errno 24] Too many open files: '/dev/zero'"


def test_database_that_cannot_be_opened_for_lack_of_descriptors_says_so(tmp_path: Path) -> None:
    code = f"""{USE_UP}
    labbench.start("first").finish()
    use_up_descriptors()
    try:
        labbench.start("second")
    except labbench.errors.InputError as error:
        print(error)
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    reason = "the database cannot be opened: Too many open files; close files, or raise the limit with `ulimit -n`"
    assert result.stdout == f"{tmp_path / 'runs.db'}: {reason}\n"


def test_large_note_and_config_are_recorded_without_a_free_descriptor(tmp_path: Path) -> None:
    code = f"""{USE_UP}
    with labbench.start("run") as run:
        wait_for_code_state(run)
        use_up_descriptors()
        run.note("n" * 300_000)
        run.config.update({{f"key_{{i}}": "x" * 1000 for i in range(200)}})
        run.log({{"loss": 1.0}})
        run.log({{"long" * 100: 1.0}})
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "lost" not in result.stderr
    assert scripts.spill_files(tmp_path) == []
    record = scripts.only_run(tmp_path)
    assert (record.status, len(record.config), len(record.note or "")) == ("finished", 200, 300_000)
    assert record.summary["loss"].n == 1
    assert any(name.startswith("longlong") for name in record.summary)


def test_script_that_fails_for_lack_of_memory_is_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(error: BaseException) -> list[str]:
        raise MemoryError

    monkeypatch.setattr(traceback, "format_exception", fail)
    with pytest.raises(ValueError, match="too large"), labbench.start("run", quiet=True):
        raise ValueError("too large")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error) == ("failed", "ValueError: too large")


def test_batch_that_memory_does_not_suffice_for_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record, failures = ScriptWriter.record, [MemoryError(), MemoryError()]

    def fail_twice(writer: ScriptWriter, *arguments: Any, **options: Any) -> Outcome:
        if failures:
            raise failures.pop()
        return record(writer, *arguments, **options)

    monkeypatch.setattr(ScriptWriter, "record", fail_twice)
    with labbench.start("run", quiet=True) as run:
        run.log({"loss": 1.0})
    assert not failures
    assert scripts.only_run(tmp_path).summary["loss"].n == 1
    assert capsys.readouterr().err.startswith("labbench: MemoryError; the run continues")


def test_run_without_a_thread_is_recorded_at_its_end(tmp_path: Path) -> None:
    code = """
    import threading
    def fail(self):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = fail
    with labbench.start("run", tags=["a"], capture_output=True) as run:
        for step in range(100):
            run.log({"loss": float(step)})
        print("printed")
        assert not run.flush()
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert "what is logged waits in memory: can't start new thread" in result.stderr
    record = scripts.only_run(tmp_path)
    assert (record.status, record.tags, record.summary["loss"].n) == ("finished", ("a",), 100)
    assert record.versions["python"]
    with Reader(tmp_path / "runs.db") as reader:
        assert list(reader.logs(record.key))[-1] == "printed\n"


def test_thread_of_a_run_starts_once_the_process_may_have_another_one(tmp_path: Path) -> None:
    code = """
    import threading
    start = threading.Thread.start
    def fail(self):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = fail
    run = labbench.start("run", system_metrics=False)
    run.log({"loss": 0.0})
    assert not run.flush()
    threading.Thread.start = start
    run.log({"loss": 1.0})
    assert run.flush()
    print(labbench.open().runs()[0].summary["loss"].n)
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stdout) == (0, "2\n")
    assert scripts.only_run(tmp_path).status == "finished"


def test_image_without_a_free_descriptor_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(data: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(summary_writer, "Image", fail)
    with SummaryWriter(db=tmp_path / "runs.db", quiet=True) as writer:
        writer.add_image("samples", [[0.0]], 1, dataformats="HW")
    assert "the image `samples` is not recorded: [Errno 24] Too many open files" in capsys.readouterr().err


def test_code_state_is_recorded_though_the_hardware_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(monitor, "_git_state", lambda folder: ("0" * 40, False, ""))

    def fail() -> dict[str, str]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(monitor, "_versions", fail)
    with labbench.start("run", quiet=True) as run:
        run.log({"loss": 1.0})
    record = scripts.only_run(tmp_path)
    assert (record.status, record.git_commit) == ("finished", "0" * 40)
    expected = f"labbench: run {run.key}: versions and hardware could not be recorded: CUDA error"
    assert capsys.readouterr().err.startswith(expected)


def test_end_is_recorded_though_a_resource_of_the_run_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    class Resource:
        def close(self) -> None:
            raise OSError("gone")

    with labbench.start("run", quiet=True) as run:
        run._close_with_run(Resource())
        run.log({"loss": 1.0})
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n) == ("finished", 1)
    assert capsys.readouterr().err.startswith("labbench: internal error in labbench, please report it")
