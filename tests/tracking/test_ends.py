"""However a script ends, its run says how, and nothing that it logged is lost."""

from __future__ import annotations

import signal
import sqlite3
import textwrap
from pathlib import Path

import pytest

from helpers import scripts
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tracking.writer_thread import MAX_BACKLOG, MAX_BATCH

HUNDRED = """
run = labbench.start("a run", db="runs.db")
for step in range(100):
    run.log({"loss": 1.0 / (step + 1)})
"""


def logged(folder: Path) -> int:
    return scripts.only_run(folder).summary["loss"].n


def test_a_script_that_just_ends_has_finished_its_run(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, HUNDRED)
    record = scripts.only_run(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (record.status, record.reason, logged(tmp_path)) == ("finished", "script ended", 100)
    assert record.finished is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.db", "train.py"]


def test_an_uncaught_exception_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, HUNDRED + "{}['nothing']\n")
    record = scripts.only_run(tmp_path)
    assert result.returncode == 1
    assert "KeyError: 'nothing'" in result.stderr
    assert (record.status, record.error_kind, record.error) == ("failed", "user", "KeyError: 'nothing'")
    assert record.traceback is not None
    assert "train.py" in record.traceback
    assert logged(tmp_path) == 100


def test_an_exception_that_leaves_the_with_fails_the_run_though_it_is_caught_outside(tmp_path: Path) -> None:
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
    ],
)
def test_the_exit_status_is_honoured_without_with(tmp_path: Path, ending: str, status: str, error: str | None) -> None:
    scripts.run(tmp_path, HUNDRED + ending)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error, logged(tmp_path)) == (status, error, 100)


def test_the_exit_status_is_honoured_with_with(tmp_path: Path) -> None:
    result = scripts.run(tmp_path, "with labbench.start() as run:\n    run.log({'loss': 1.0})\n    raise SystemExit(4)")
    record = scripts.only_run(tmp_path)
    assert (result.returncode, record.status, record.error) == (4, "failed", "exit status 4")


def test_sys_exit_in_a_thread_ends_that_thread_alone(tmp_path: Path) -> None:
    code = "import threading\nthread = threading.Thread(target=lambda: sys.exit(1))\nthread.start()\nthread.join()\n"
    scripts.run(tmp_path, HUNDRED + code)
    assert scripts.only_run(tmp_path).status == "finished"


READY = """
while not labbench.open("runs.db").runs()[0].versions:  # what is looked up in the background
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_process_as_before_and_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    result = scripts.send_signal(scripts.begin(tmp_path, HUNDRED + READY), number)
    record = scripts.only_run(tmp_path)
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[number]
    assert (record.status, record.reason, logged(tmp_path)) == ("stopped", number.name, 100)


def test_ctrl_c_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    result = scripts.send_signal(scripts.begin(tmp_path, HUNDRED + READY), signal.SIGINT)
    record = scripts.only_run(tmp_path)
    assert "KeyboardInterrupt" in result.stderr
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGINT]
    assert (record.status, record.reason, logged(tmp_path)) == ("stopped", "interrupted", 100)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_handler_that_was_there_is_called_and_may_log_more(tmp_path: Path, name: str) -> None:
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
    assert (record.status, record.reason, logged(tmp_path)) == ("stopped", name, 100)
    assert record.summary["saved"].n == 1


def test_what_a_handler_that_leaves_at_once_could_lose_is_written_before_it_is_called(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
    result = scripts.send_signal(scripts.begin(tmp_path, code + HUNDRED + READY), signal.SIGTERM)
    assert (result.returncode, logged(tmp_path)) == (5, 100)


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HUNDRED
    ends = "print('ready', flush=True)\ntime.sleep(0.2)\nassert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    result = scripts.send_signal(scripts.begin(tmp_path, code + ends), signal.SIGHUP)
    assert (result.returncode, result.stderr) == (0, "")
    assert scripts.only_run(tmp_path).status == "finished"


def test_a_signal_that_the_script_survives_does_not_stop_its_run(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: None)\n" + HUNDRED
    ends = "print('ready', flush=True)\ntime.sleep(0.3)\nrun.log({'loss': 0.0})\n"
    scripts.send_signal(scripts.begin(tmp_path, code + ends), signal.SIGTERM)
    assert (scripts.only_run(tmp_path).status, logged(tmp_path)) == ("finished", 101)


def test_the_hooks_are_taken_back_with_the_last_run(tmp_path: Path) -> None:
    code = """
    hooks = lambda: (sys.exit, sys.excepthook, *map(signal.getsignal, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)))
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
said = mmap.mmap(os.open("said", os.O_RDWR), 8)
run = labbench.start()
print("ready", flush=True)
step = 0
while True:
    run.log({"loss": 1.0, "accuracy": 0.5}, step=step)
    step += 1
    said[:] = step.to_bytes(8, "little")
"""


def killed_after(folder: Path, code: str, calls: int) -> int:
    """Kill a script that counts its log calls, once it has made some; how many it had made."""
    said = folder / "said"
    said.write_bytes(bytes(8))
    process = scripts.begin(folder, code)
    scripts.wait_for(process, "ready")
    scripts.wait_until(lambda: int.from_bytes(said.read_bytes(), "little") >= calls, seconds=30)
    process.kill()
    assert scripts.end(process).returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGKILL]
    return int.from_bytes(said.read_bytes(), "little")


def test_a_killed_script_loses_a_fraction_of_a_second_and_shows_as_lost(tmp_path: Path) -> None:
    calls = killed_after(tmp_path, COUNTED + "    time.sleep(0.001)\n", 300)
    record = scripts.only_run(tmp_path)
    assert record.status == "lost"
    assert record.summary["loss"].n == record.summary["loss"].last_step + 1
    assert calls - record.summary["loss"].n <= 500  # 25 ms of calls, but on a machine that is busy with other things


def test_a_killed_script_that_never_pauses_loses_no_more_than_the_backlog(tmp_path: Path) -> None:
    calls = killed_after(tmp_path, COUNTED, 40_000)
    assert calls - logged(tmp_path) <= MAX_BACKLOG + MAX_BATCH + 1


def test_a_signal_ends_the_runs_of_all_threads_whichever_began_first(tmp_path: Path) -> None:
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
    time.sleep(60)
    """
    result = scripts.send_signal(scripts.begin(tmp_path, code), signal.SIGTERM)
    assert result.returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGTERM]
    with Reader(tmp_path / "runs.db") as reader:
        found = {run.name: (run.status, run.reason, run.summary["loss"].n) for run in reader.runs()}
    assert found == dict.fromkeys(("in a thread", "in the main thread"), ("stopped", "SIGTERM", 1000))


def test_a_run_that_is_told_to_end_beside_a_lock_keeps_its_points_within_a_scheduler_s_patience(tmp_path: Path) -> None:
    code = """
    run = labbench.start("a run", system_metrics=False)
    run.flush()
    print("begun", flush=True)
    while not os.path.exists("locked"):
        time.sleep(0.01)
    for step in range(1000):
        run.log({"loss": 1.0})
    print("ready", flush=True)
    time.sleep(60)
    """
    process = scripts.begin(tmp_path, code)
    scripts.wait_for(process, "begun")
    connection = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    (tmp_path / "locked").touch()
    scripts.wait_for(process, "ready")
    process.terminate()
    try:
        process.wait(20)  # it took as long as the lock
    finally:
        connection.execute("ROLLBACK")
        connection.close()
        scripts.end(process)
    with Writer(tmp_path / "runs.db"):  # takes in what was spilled
        pass
    assert (scripts.only_run(tmp_path).status, logged(tmp_path)) == ("stopped", 1000)


def test_a_signal_to_who_waits_for_room_is_answered_at_once(tmp_path: Path) -> None:
    code = """
    from labbench.tracking import writer_thread as recorder
    recorder.LIMIT = 100
    run = labbench.start("a run", system_metrics=False)
    wake, sent = run._recorder.wake, []
    def told():
        if sys._getframe(1).f_code.co_name == "make_room" and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))  # while the lock of the room is held
        wake()
    run._recorder.wake = told
    for step in range(10_000_000):
        run.log({"loss": 1.0})
    """
    process = scripts.begin(tmp_path, code)
    assert scripts.end(process, seconds=20).returncode == scripts.SIGNAL_EXIT_STATUS[signal.SIGTERM]
    record = scripts.only_run(tmp_path)
    assert (record.status, record.reason) == ("stopped", "SIGTERM")
    assert record.summary["loss"].n > 100
