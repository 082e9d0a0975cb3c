"""A run in several processes and several processes on one file: no deadlock, no loss, nothing written twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import labbench
from helpers import scripts
from helpers.store_samples import start
from labbench.store.writer import Writer


def count_points(folder: Path) -> dict[str, int]:
    """Return the number of points of the only run, by metric, after an integrity check of the database."""
    with sqlite3.connect(folder / "runs.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return {name: summary.n for name, summary in scripts.only_run(folder).summary.items()}


def test_forked_child_logs_to_the_run_and_only_the_parent_ends_it(tmp_path: Path) -> None:
    code = """
    run = labbench.start()
    for step in range(500):
        run.log({"parent": float(step)})
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            for step in range(200):
                run.log({f"child {child}": float(step)}, step=step)
            sys.exit(child)
        children.append(pid)
    for step in range(500, 1000):
        run.log({"parent": float(step)})
    for pid in children:
        os.waitpid(pid, 0)
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert count_points(tmp_path) == {"parent": 1000, "child 0": 200, "child 1": 200, "child 2": 200}
    assert scripts.only_run(tmp_path).status == "finished"


def test_fork_while_another_thread_logs_neither_hangs_nor_damages_the_file(tmp_path: Path) -> None:
    code = """
    import threading
    run = labbench.start(capture_output=True)
    over = threading.Event()
    def log_on():
        while not over.is_set():
            run.log({"thread": 1.0})
            time.sleep(0)
    thread = threading.Thread(target=log_on)
    thread.start()
    for fork in range(40):
        run.log({"parent": float(fork)}, step=fork)
        pid = os.fork()
        if pid == 0:
            if fork % 4 == 0:
                run.log({"child": float(fork)}, step=fork)
                run.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    over.set()
    thread.join()
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    n_points = count_points(tmp_path)
    assert (n_points["parent"], n_points["child"]) == (40, 10)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_log_to_the_run_passed_to_them(tmp_path: Path, method: str) -> None:
    code = f"""
    import multiprocessing
    def work(run, number):
        for step in range(100):
            run.log({{f"worker {{number}}": float(step)}}, step=step)
    if __name__ == "__main__":
        context = multiprocessing.get_context("{method}")
        with labbench.start() as run:
            workers = [context.Process(target=work, args=(run, number)) for number in range(2)]
            for worker in workers:
                worker.start()
            run.log({{"parent": 1.0}})
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert count_points(tmp_path) == {"parent": 1, "worker 0": 100, "worker 1": 100}
    assert scripts.only_run(tmp_path).status == "finished"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_run_started_in_a_worker_ends_with_the_worker(tmp_path: Path, method: str) -> None:
    code = f"""
    import multiprocessing
    def work():
        run = labbench.start("in a worker")
        run.log({{"loss": 1.0}})
        raise ValueError("in the worker")
    if __name__ == "__main__":
        worker = multiprocessing.get_context("{method}").Process(target=work)
        worker.start()
        worker.join()
    """
    scripts.run(tmp_path, code)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.error) == ("failed", "ValueError: in the worker")
    assert record.summary["loss"].n == 1


def test_worker_that_imports_an_unguarded_script_begins_no_run(tmp_path: Path) -> None:
    code = """
    import multiprocessing
    run = labbench.start("the only one", system_metrics=False)
    def work(number):
        run.log({"lost": 1.0})
        open(f"task {number}", "w").close()
        while not (os.path.exists("task 0") and os.path.exists("task 1")):  # each worker gets a task
            time.sleep(0.01)
    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(work, range(2))
        run.log({"loss": 1.0})
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0
    assert result.stderr.count("a worker process that imports the script records nothing") == 1
    assert count_points(tmp_path) == {"loss": 1}
    assert scripts.only_run(tmp_path).status == "finished"


def test_data_loader_workers_do_not_disturb_the_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = """
    import torch
    data = torch.utils.data.TensorDataset(torch.arange(64.0))
    with labbench.start() as run:
        for epoch in range(2):
            for batch, in torch.utils.data.DataLoader(data, batch_size=8, num_workers=2):
                run.log({"loss": batch.mean()})
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert count_points(tmp_path) == {"loss": 16}


def test_eight_processes_that_create_one_database_lose_nothing(tmp_path: Path) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    for step in range(500):
        run.log({"loss": float(step), "accuracy": 0.5})
    """
    processes = [scripts.begin(tmp_path, code) for _ in range(8)]
    results = [scripts.end(process) for process in processes]
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 8
    with labbench.open(tmp_path / "runs.db") as db:
        runs = db.runs()
    assert [run.summary["loss"].n for run in runs] == [500] * 8
    assert {run.name for run in runs} == {f"train-{number}" for number in range(1, 9)}


def test_process_started_by_labbench_run_logs_to_its_run_with_its_config(tmp_path: Path) -> None:
    code = """
    config = {"lr": 0.5, "width": 8}
    run = labbench.start("another name", experiment="another", config=config, db="elsewhere.db", tags=["t"])
    assert run.config.lr == 0.1 and run.config.width == 8
    run.log({"loss": 1.0})
    print(run.key)
    raise ValueError("the driver sees the exit status")
    """
    (tmp_path / "config.json").write_text('{"lr": 0.1, "seed": 0}')
    with Writer(tmp_path / "queue.db") as writer:
        [queued] = start(writer)
        environment = {"LABBENCH_DB": "queue.db", "LABBENCH_RUN": queued.key, "LABBENCH_CONFIG": "config.json"}
        result = scripts.run(tmp_path, code, **environment)
    record = scripts.only_run(tmp_path, "queue.db")
    assert result.stdout == f"{queued.key}\n"
    assert not (tmp_path / "elsewhere.db").exists()
    assert (record.name, record.experiment, record.status) == ("run 0", "grid", "running")
    assert (record.summary["loss"].n, record.tags) == (1, ("t",))
    assert record.config == {"lr": 0.1, "seed": 0, "width": 8}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LABBENCH_RUN": "nobody22"}, "no run has the key or the name `nobody22`"),
        ({"LABBENCH_CONFIG": "nothing.json"}, "nothing.json: the config file named by LABBENCH_CONFIG cannot be read"),
    ],
)
def test_process_that_cannot_attach_reports_the_reason(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [queued] = start(writer)
        result = scripts.run(tmp_path, "labbench.start()", **{"LABBENCH_RUN": queued.key} | environment)
    assert result.returncode == 1
    assert message in result.stderr


def test_removed_run_is_reported_and_not_recreated(tmp_path: Path) -> None:
    code = """
    run = labbench.start()
    run.log({"loss": 1.0})
    run.flush()
    print("ready", flush=True)
    while not os.path.exists("removed"):
        time.sleep(0.01)
    run.log({"loss": 2.0})
    """
    process = scripts.begin(tmp_path, code)
    scripts.wait_for(process, "ready")
    with Writer(tmp_path / "runs.db") as writer:
        writer.remove([scripts.only_run(tmp_path).key])
    (tmp_path / "removed").touch()
    result = scripts.end(process)
    assert result.returncode == 0
    assert "was removed; nothing more of this process is recorded in it" in result.stderr
    with labbench.open(tmp_path / "runs.db") as db:
        assert db.runs() == []


def test_daemon_drives_a_run_whose_first_process_exits_between_its_checks(tmp_path: Path) -> None:
    code = """
    run = labbench.start(db=os.path.abspath("runs.db"), system_metrics=False)
    if os.fork():
        sys.exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    first_process, thread, checks = run._writer_thread.run.process, run._writer_thread, []
    adopt_if_daemon = thread.adopt_if_daemon
    def check_before_the_exit():
        if checks:
            adopt_if_daemon()
        elif first_process.has_ended():
            checks.append("the process ended just after this check")
    thread.adopt_if_daemon = check_before_the_exit
    deadline = time.monotonic() + 300
    while not first_process.has_ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    run.log({"loss": 0.5})
    run.flush()
    run.finish()
    """
    result = scripts.run(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n, record.summary["loss"].last) == ("finished", 1, 0.5)


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
@pytest.mark.parametrize("in_container", [False, True])
def test_daemon_drives_the_run_that_its_first_process_started(
    request: pytest.FixtureRequest, tmp_path: Path, ending: str, in_container: bool
) -> None:
    """In the container the first process belongs to a session that began outside, whose id there is 0."""
    first_process = ["sh", "-c", '"$@"; while [ ! -e over ]; do sleep 0.05; done', "sh"]
    prefix = [*request.getfixturevalue("container"), *first_process] if in_container else []
    code = f"""
    run = labbench.start(db=os.path.abspath("runs.db"), system_metrics=False)
    run.log({{"loss": 1.0}})
    if os.fork():
        {ending}
    os.setsid()
    if os.fork():
        os._exit(0)
    for step in range(20):
        run.log({{"loss": 1.0}})
        time.sleep(0.01)
    deadline = time.monotonic() + 30
    while labbench.open("runs.db").runs()[0].pid != os.getpid() and time.monotonic() < deadline:
        time.sleep(0.01)
    run.log({{"loss": 0.5}})
    run.finish()
    open("over", "w").close()
    """
    result = scripts.end(scripts.begin(tmp_path, code, prefix=prefix))
    assert (result.returncode, result.stderr) == (0, "")
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n, record.summary["loss"].last) == ("finished", 22, 0.5)


def test_nothing_is_written_into_the_files_of_a_script_that_closes_all_file_descriptors(tmp_path: Path) -> None:
    """The script's files get the numbers of the files that SQLite had open."""
    code = """
    import threading
    run = labbench.start(capture_output=True, system_metrics=False)
    run.log({"loss": 0.0})
    run.flush()
    while any(thread.name == "labbench background" for thread in threading.enumerate()):
        time.sleep(0.01)  # a thread that closes a file then would close the script's file with its number
    os.closerange(3, 4096)
    first_files = [open(f"user{n}.bin", "w+b") for n in range(20)]
    for step in range(1, 2000):
        run.log({"loss": float(step)})
    assert not run.flush()
    os.closerange(3, 4096)  # also the file that now receives the data
    files = [open(f"user{n}.bin", "r+b") for n in range(20)]
    run.log({"loss": 2000.0})
    try:
        labbench.start("second")
    except labbench.LabbenchError as error:
        print(error, flush=True)
    run.finish()
    assert [file.write(b"mine") for file in files] == [4] * 20
    [file.flush() for file in files]
    os._exit(0)
    """
    result = scripts.run(tmp_path, code)
    assert result.returncode == 0, result.stderr
    assert "the program has closed the file descriptors of the database" in result.stdout
    assert "what it logs from now on is written to another file" in result.stderr
    assert {(tmp_path / f"user{n}.bin").read_bytes() for n in range(20)} == {b"mine"}
    Writer(tmp_path / "runs.db").close()  # merges the file
    assert count_points(tmp_path)["loss"] == 2001
    assert scripts.only_run(tmp_path).status == "finished"


def test_helper_process_does_not_end_the_run_of_a_killed_script(tmp_path: Path) -> None:
    code = """
    run = labbench.start(system_metrics=False)
    run.log({"loss": 1.0})
    parent = os.getpid()
    if os.fork():
        os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.01)
    run.log({"helper": 1.0})
    sys.exit(0)
    """
    scripts.run(tmp_path, code)
    record = scripts.only_run(tmp_path)
    assert (record.status, record.summary["loss"].n, record.summary["helper"].n) == ("lost", 1, 1)


def test_stop_request_interrupts_the_script(tmp_path: Path) -> None:
    code = """
    with labbench.start() as run:
        print("ready", flush=True)
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            run.log({"saved": 1.0})
    """
    process = scripts.begin(tmp_path, code)
    scripts.wait_for(process, "ready")
    with Writer(tmp_path / "runs.db") as writer:
        writer.request(scripts.only_run(tmp_path).key, "stop")
    assert scripts.end(process).returncode == 0
    record = scripts.only_run(tmp_path)
    assert (record.status, record.reason) == ("stopped", "stopped by the user")
    assert record.summary["saved"].n == 1


def test_config_changes_of_a_forked_child_are_merged_with_the_parent_s(tmp_path: Path) -> None:
    code = """
    run = labbench.start("a run", config={"a": 1, "b": 1}, system_metrics=False)
    pid = os.fork()
    if pid == 0:
        run.config.update(child=1, b=2)
        sys.exit(0)
    os.waitpid(pid, 0)
    run.config.update(parent=1)
    """
    assert scripts.run(tmp_path, code).returncode == 0
    assert scripts.only_run(tmp_path).config == {"a": 1, "b": 2, "child": 1, "parent": 1}
