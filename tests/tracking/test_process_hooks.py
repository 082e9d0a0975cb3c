"""However a script ends, its run has the right status and everything that it logged."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

import pytest

from helpers import scripts
from helpers.waiting import HANG_SECONDS, wait_for
from labbench.store.reader import Reader
from labbench.tracking.batching import MAX_BACKLOG, MAX_BATCH

HUNDRED = """
run = labbench.start("a run", db="runs.db")
for step in range(100):
    run.log({"loss": 1.0 / (step + 1)})
"""


def count_losses(folder: Path) -> int:
    return scripts.only_run(folder).summary["loss"].n


def test_end_of_the_script_finishes_the_run(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, HUNDRED)
    record = scripts.only_run(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (record.status, record.reason, count_losses(tmp_path)) == ("finished", "script ended", 100)
    assert record.finished is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.db", "train.py"]


def test_uncaught_exception_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, HUNDRED + "{}['nothing']\n")
    record = scripts.only_run(tmp_path)
    assert result.returncode == 1
    assert "KeyError: 'nothing'" in result.stderr
    assert (record.status, record.error_kind, record.error) == ("failed", "user", "KeyError: 'nothing'")
    assert record.traceback is not None
    assert "train.py" in record.traceback
    assert count_losses(tmp_path) == 100


def test_uncaught_exception_fails_the_run_of_a_script_that_replaces_the_hook(tmp_path: Path) -> None:
    """`rich.traceback.install()` does not call the previous hook."""
    scripts.run(tmp_path, HUNDRED + "sys.excepthook = lambda *exception: print('mine')\n{}['nothing']\n")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error) == ("failed", "KeyError: 'nothing'")


def test_forked_process_that_exits_without_cleanup_loses_nothing(tmp_path: Path) -> None:
    code = """
    if (child := os.fork()) == 0:
        run.log({"child": 1.0})
        os._exit(0)
    os.waitpid(child, 0)
    """
    scripts.run(tmp_path, HUNDRED + textwrap.dedent(code))
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["child"].n, record.summary["loss"].n) == ("finished", 1, 100)


def test_exception_caught_outside_the_with_block_fails_the_run(tmp_path: Path) -> None:
    code = """
    try:
        with labbench.start() as run:
            run.log({"loss": 1.0})
            raise MemoryError("too big")
    except MemoryError:
        pass
    """
    assert scripts.run(tmp_path, code).returncode == 0
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error_kind, record.error) == ("failed", "oom", "MemoryError: too big")


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        ("sys.exit()", "finished", None),
        ("sys.exit(0)", "finished", None),
        ("sys.exit(3)", "failed", "exit status 3"),
        ("sys.exit('no data')", "failed", "no data"),
        ("exit(3)", "failed", "exit status 3"),
        ("quit()", "finished", None),
        ("os._exit(0)", "finished", None),
        ("os._exit(3)", "failed", "exit status 3"),
    ],
)
def test_exit_status_without_with_block_sets_the_status_of_the_run(
    tmp_path: Path, ending: str, status: str, error: str | None
) -> None:
    scripts.run(tmp_path, HUNDRED + ending)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error, count_losses(tmp_path)) == (status, error, 100)


def test_exit_status_in_with_block_sets_the_status_of_the_run(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, "with labbench.start() as run:\n    run.log({'loss': 1.0})\n    raise SystemExit(4)")
    record = scripts.only_run(tmp_path)
    assert (result.returncode, record.status, record.error) == (4, "failed", "exit status 4")


def test_sys_exit_in_a_thread_does_not_end_the_run(tmp_path: Path) -> None:
    code = "import threading\nthread = threading.Thread(target=lambda: sys.exit(1))\nthread.start()\nthread.join()\n"
    scripts.run(tmp_path, HUNDRED + code)
    assert scripts.only_run(tmp_path).status == "finished"


READY = """
while not labbench.open("runs.db").runs()[0].versions:  # recorded in the background
    time.sleep(0.01)
print("ready", flush=True)
for _ in range(300):
    time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_without_loss(tmp_path: Path, number: signal.Signals) -> None:
    result = scripts.send_signal(scripts.begin(tmp_path, HUNDRED + READY), number)
    record = scripts.only_run(tmp_path)
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[number]
    assert (record.status, record.reason, count_losses(tmp_path)) == ("stopped", number.name, 100)


def test_ctrl_c_stops_the_run_without_loss(tmp_path: Path) -> None:
    result = scripts.send_signal(scripts.begin(tmp_path, HUNDRED + READY), signal.SIGINT)
    record = scripts.only_run(tmp_path)
    assert "KeyboardInterrupt" in result.stderr
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGINT]
    assert (record.status, record.reason, count_losses(tmp_path)) == ("stopped", "interrupted", 100)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_existing_signal_handler_is_called_and_may_log_more(tmp_path: Path, name: str) -> None:
    code = f"""
    def save(number, frame):
        run.log({{"saved": 1.0}})
        print("saved", flush=True)
        sys.exit(7)
    signal.signal(signal.{name}, save)
    """
    script = scripts.begin(tmp_path, textwrap.dedent(code) + HUNDRED + READY)
    result = scripts.send_signal(script, getattr(signal, name))
    record = scripts.only_run(tmp_path)
    assert (result.returncode, result.stdout) == (7, "saved\n")
    assert (record.status, record.reason, count_losses(tmp_path)) == ("stopped", name, 100)
    assert record.summary["saved"].n == 1


def test_data_is_flushed_before_an_existing_handler_is_called(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
    result = scripts.send_signal(scripts.begin(tmp_path, code + HUNDRED + READY), signal.SIGTERM)
    assert (result.returncode, count_losses(tmp_path)) == (5, 100)


def test_signal_does_not_end_the_run_of_the_first_process_of_a_container(tmp_path: Path, container: list[str]) -> None:
    code = """
    assert os.getpid() == 1
    run = labbench.start(system_metrics=False)
    run.log({"loss": 1.0})
    print("ready", flush=True)
    while not os.path.exists("over"):
        time.sleep(0.01)
    run.log({"loss": 0.5})
    """
    process = scripts.begin(tmp_path, code, prefix=container)
    scripts.wait_for(process, "ready")
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    (tmp_path / "over").touch()
    result = scripts.end(process)
    assert (result.returncode, result.stderr) == (0, "")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.reason, count_losses(tmp_path)) == ("finished", "script ended", 2)


def test_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HUNDRED
    ends = "print('ready', flush=True)\ntime.sleep(0.2)\nassert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    result = scripts.send_signal(scripts.begin(tmp_path, code + ends), signal.SIGHUP)
    assert (result.returncode, result.stderr) == (0, "")
    assert scripts.only_run(tmp_path).status == "finished"


def test_run_continues_if_the_script_survives_a_signal(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: None)\n" + HUNDRED
    ends = "print('ready', flush=True)\ntime.sleep(0.3)\nrun.log({'loss': 0.0})\n"
    scripts.send_signal(scripts.begin(tmp_path, code + ends), signal.SIGTERM)
    assert (scripts.only_run(tmp_path).status, count_losses(tmp_path)) == ("finished", 101)


def test_hooks_are_restored_after_the_last_run(tmp_path: Path) -> None:
    code = """
    from _sitebuiltins import Quitter
    exits = lambda: (sys.exit, os._exit, Quitter.__call__)
    hooks = lambda: (*exits(), sys.excepthook, *map(signal.getsignal, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)))
    before = hooks()
    first, second = labbench.start(), labbench.start()
    assert hooks()[0] is not before[0]
    first.finish()
    assert hooks() != before
    second.finish()
    assert hooks() == before
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")


COUNTED = """
import mmap
counter = mmap.mmap(os.open("calls", os.O_RDWR), 8)
run = labbench.start()
print("ready", flush=True)
step = 0
while True:
    run.log({"loss": 1.0, "accuracy": 0.5}, step=step)
    step += 1
    counter[:] = step.to_bytes(8, "little")
"""


def kill_after(folder: Path, code: str, calls: int) -> int:
    """Kill a script after `calls` log calls and return how many it had made by then."""
    counter = folder / "calls"
    counter.write_bytes(bytes(8))
    process = scripts.begin(folder, code)
    scripts.wait_for(process, "ready")
    wait_for(lambda: int.from_bytes(counter.read_bytes(), "little") >= calls)
    process.kill()
    assert scripts.end(process).returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGKILL]
    return int.from_bytes(counter.read_bytes(), "little")


def test_killed_script_is_lost_and_misses_a_fraction_of_a_second(tmp_path: Path) -> None:
    calls = kill_after(tmp_path, COUNTED + "    time.sleep(0.001)\n", 300)
    record = scripts.only_run(tmp_path)
    assert record.status == "lost"
    assert record.summary["loss"].n == record.summary["loss"].last_step + 1
    assert calls - record.summary["loss"].n <= 500  # 25 ms of calls, but on a machine that is busy with other things


def test_killed_script_that_never_pauses_loses_at_most_the_backlog(tmp_path: Path) -> None:
    calls = kill_after(tmp_path, COUNTED, 40_000)
    assert calls - count_losses(tmp_path) <= MAX_BACKLOG + MAX_BATCH + 1


def test_signal_ends_the_runs_of_all_threads(tmp_path: Path) -> None:
    code = """
    import threading
    started = []
    thread = threading.Thread(target=lambda: started.append(labbench.start("in a thread", system_metrics=False)))
    thread.start()
    thread.join()
    started.append(labbench.start("in the main thread", system_metrics=False))
    for step in range(1000):
        for run in started:
            run.log({"loss": 1.0})
    print("ready", flush=True)
    while True: time.sleep(0.1)
    """
    result = scripts.send_signal(scripts.begin(tmp_path, code), signal.SIGTERM)
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGTERM]
    with Reader(tmp_path / "runs.db") as reader:
        endings = {run.name: (run.status, run.reason, run.summary["loss"].n) for run in reader.runs()}
    assert endings == dict.fromkeys(("in a thread", "in the main thread"), ("stopped", "SIGTERM", 1000))


def test_run_terminated_while_the_database_is_locked_ends_in_time_without_loss(tmp_path: Path) -> None:
    with scripts.begin_while_locked(tmp_path, scripts.WAIT_FOR_SIGNAL) as process:
        process.terminate()
        process.wait(HANG_SECONDS)  # an earlier version waited for the lock
    scripts.end(process)
    scripts.merge_spill_files(tmp_path)
    assert (scripts.only_run(tmp_path).status, count_losses(tmp_path)) == ("stopped", 1000)


def test_signal_during_the_wait_for_a_full_backlog_is_handled(tmp_path: Path) -> None:
    code = """
    from labbench.tracking import batching, writer_thread
    writer_thread.MAX_BACKLOG = batching.MAX_BACKLOG = 100
    run = labbench.start("a run", system_metrics=False)
    wake, sent = run._writer_thread.wake, []
    def wake_after_signal():
        if sys._getframe(1).f_code.co_name == "make_room" and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))  # while make_room holds its lock
        return wake()
    run._writer_thread.wake = wake_after_signal
    for step in range(10_000_000):
        run.log({"loss": 1.0})
    """
    process = scripts.begin(tmp_path, code)
    assert scripts.end(process).returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGTERM]
    record = scripts.only_run(tmp_path)
    assert (record.status, record.reason) == ("stopped", "SIGTERM")
    assert record.summary["loss"].n > 100


NOTEBOOK = """
import labbench
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in {cells!r}:
    shell.run_cell(cell)
"""

START = "run = labbench.start('run', system_metrics=False)"


@pytest.mark.parametrize(
    ("cells", "status", "error"),
    [
        ([START, "run.log({'loss': 1.0})"], "finished", None),
        ([START + "; run.log({'loss': 1.0}); 1/0"], "failed", "ZeroDivisionError: division by zero"),
        ([START, "1/0"], "failed", "ZeroDivisionError: division by zero"),
        ([START, "run.log({'loss': 1.0}); 1/0", "2 + 2"], "failed", "ZeroDivisionError: division by zero"),
        ([START, "1/0", "run.log({'loss': 1.0})"], "finished", None),
        ([START + "; run.log({'loss': 1.0})", "1/0"], "finished", None),
        ([START + "; raise KeyboardInterrupt"], "stopped", None),
        ([START + "; 1/0", "run.finish()"], "finished", None),
        ([START + "; run.log({'loss': 1.0}); import sys; sys.exit(3)"], "failed", "exit status 3"),
        ([START + "; import sys; sys.exit(3)", "run.log({'loss': 1.0})"], "finished", None),
    ],
)
def test_cell_of_a_notebook_that_fails_fails_the_run_unless_another_cell_continues_it(
    tmp_path: Path, cells: list[str], status: str, error: str | None
) -> None:
    result = scripts.run(tmp_path, NOTEBOOK.format(cells=["import labbench", *cells]), HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    run = scripts.only_run(tmp_path)
    assert (run.status, run.error) == (status, error)


@pytest.mark.parametrize(
    ("statements", "status"), [(["1/0", "run.log({'loss': 1.0})"], "finished"), (["1/0", "2 + 2"], "failed")]
)
def test_statement_at_a_prompt_that_fails_fails_the_run_unless_another_statement_continues_it(
    tmp_path: Path, statements: list[str], status: str
) -> None:
    code = """
    import subprocess
    words = [sys.executable, "-i", "-c", "import labbench; run = labbench.start(system_metrics=False)"]
    subprocess.run(words, input=STATEMENTS, text=True, check=True, capture_output=True)
    """
    text = "".join(f"{statement}\n" for statement in statements)
    result = scripts.run(tmp_path, f"STATEMENTS = {text!r}\n" + textwrap.dedent(code))
    assert result.returncode == 0, result.stderr
    assert scripts.only_run(tmp_path).status == status
