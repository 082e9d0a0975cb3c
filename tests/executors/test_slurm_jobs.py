"""Driver's side of SLURM jobs: late, long and damaged event files, and answers of the scheduler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from labbench.errors import LabbenchError
from labbench.executors import watched_stack
from labbench.executors.event_codec import encode_event
from labbench.executors.slurm import executor as slurm_executor
from labbench.executors.slurm import job as slurm_job
from labbench.executors.slurm import scheduler as slurm_scheduler
from labbench.executors.slurm.event_log import EventFileWriter
from labbench.executors.slurm.executor import JobSettings, SlurmExecutor
from labbench.executors.slurm.job import SlurmJob
from labbench.executors.slurm.job_folder import JobFolder, Position
from labbench.executors.slurm.job_main import TrainingJob
from labbench.executors.slurm.parameters import find_setup_failure, log_file, setup_script, write_setup_script
from labbench.executors.slurm.scheduler import GONE, UNKNOWN_CLUSTER, JobState, LocalScheduler, SlurmScheduler
from labbench.executors.watched_stack import WatchedStack
from labbench.records import (
    Boundary,
    Event,
    Failed,
    Finished,
    Points,
    RunRecord,
    Runtime,
    SlurmOptions,
    Stack,
    Started,
    Submitted,
)
from labbench.runner.planner import make_stack
from labbench.store.liveness import HOST


class StubScheduler:
    """Scheduler that answers every question with one state."""

    cluster = "stub"

    def manages(self, cluster: str) -> bool:
        return True

    def __init__(self, state: str, on_question: Callable[[], None] = lambda: None) -> None:
        self.state, self.on_question = state, on_question
        self.cancelled: list[str] = []

    def states(self, jobs: Collection[str]) -> dict[str, JobState]:
        self.on_question()
        return {job: JobState(self.state) for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs
        self.state = "CANCELLED"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor, "QUERY_SECONDS", 0.0)
    monkeypatch.setattr(slurm_executor, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(slurm_job, "SETTLE_SECONDS", 0.0)


def training_events(stack: Stack, steps: Sequence[int]) -> list[Event]:
    """Return the events of a complete training with one event for each step."""
    events: list[Event] = []
    for run in stack.runs:
        events.append(Started(run.key, 1, "host", 1, "cpu", "loop"))
        events += [Points(run.key, 1, "train/loss", [step], [step], [0.5]) for step in steps]
        events.append(Finished(run.key, 1, "finished", "all epochs"))
    return events


def write_events(folder: JobFolder, events: Sequence[Event]) -> None:
    """Write a complete event file of the job's first start."""
    writer = EventFileWriter(folder.path / "events-0", json.dumps({"previous_end": 0}).encode())
    for event in events:
        writer.append(encode_event(event))
    writer.close()


def drive(monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack, scheduler: StubScheduler) -> list[Event]:
    """Return the events of an executor that is attached to the job."""
    monkeypatch.setattr(slurm_executor, "make_scheduler", lambda cluster: scheduler)
    job = SlurmJob(folder, "7", WatchedStack(stack, None))
    with closing(SlurmExecutor(JobSettings(SlurmOptions(), folder.path.parent), attached=[job])) as executor:
        return [event for event in executor.execute([]) if event is not None]


def reported(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Started | Points | Finished | Failed)]


def test_an_ended_job_is_read_to_its_end_however_much_it_has_reported(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    monkeypatch.setattr(slurm_job, "MAX_BATCH", 10)
    events = training_events(stack, range(25))
    write_events(folder, events)
    assert reported(drive(monkeypatch, folder, stack, StubScheduler("COMPLETED"))) == events


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "NODE_FAIL", "FAILED", GONE])
def test_events_that_arrive_after_the_scheduler_has_ended_the_job_count(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack, state: str
) -> None:
    monkeypatch.setattr(slurm_job, "MAX_BATCH", 10)
    events = training_events(stack, range(25))
    late = iter([events])
    scheduler = StubScheduler(state, on_question=lambda: [write_events(folder, each) for each in late] and None)
    assert reported(drive(monkeypatch, folder, stack, scheduler)) == events


def test_a_job_that_reports_again_after_the_answer_of_the_scheduler_is_asked_for_again(
    folder: JobFolder, stack: Stack
) -> None:
    job = SlurmJob(folder, "7", WatchedStack(stack, None))
    job.note_state(JobState("NODE_FAIL"))
    write_events(folder, training_events(stack, range(3))[:2])
    assert len(list(job.receive())) == 3
    assert job.final_state is None
    assert not job.is_settled


def test_a_job_that_ended_without_its_last_events_is_settled_only_after_an_empty_look(
    folder: JobFolder, stack: Stack
) -> None:
    job = SlurmJob(folder, "7", WatchedStack(stack, None))
    assert not job.is_settled
    list(job.receive())
    assert job.is_settled
    job.note_state(JobState("COMPLETED"))
    assert not job.is_settled


def test_a_damaged_event_file_fails_every_run_of_its_stack_and_cancels_the_job(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    writer = EventFileWriter(folder.path / "events-0", json.dumps({"previous_end": 0}).encode())
    writer.append(b"no event")
    writer.close()
    scheduler = StubScheduler("RUNNING")
    events = reported(drive(monkeypatch, folder, stack, scheduler))
    assert [event.run for event in events if isinstance(event, Failed)] == ["run0", "run1"]
    assert all("not an event" in event.message for event in events if isinstance(event, Failed))
    assert scheduler.cancelled == ["7"]


def test_the_folder_of_a_job_is_deleted_once_all_its_runs_have_ended(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    write_events(folder, training_events(stack, range(3)))
    drive(monkeypatch, folder, stack, StubScheduler("RUNNING"))
    assert not folder.path.exists()


def test_a_state_that_labbench_does_not_know_counts_as_training() -> None:
    assert JobState("POWERING_UP").is_active
    assert JobState("").is_active
    assert not JobState("COMPLETED").is_active


@pytest.mark.parametrize(
    ("squeue", "sacct", "state"),
    [
        ({}, {"7": "CANCELLED by 1000"}, "CANCELLED"),
        ({}, {"7": "RUNNING"}, GONE),
        ({}, {}, GONE),
        ({}, None, None),
        (None, {"7": "COMPLETED"}, None),
        ({"7": "PENDING"}, None, "PENDING"),
    ],
)
def test_only_an_answer_of_the_scheduler_ends_a_job(
    monkeypatch: pytest.MonkeyPatch, squeue: dict[str, str] | None, sacct: dict[str, str] | None, state: str | None
) -> None:
    answers = {"squeue": squeue, "sacct": sacct}
    monkeypatch.setattr(slurm_scheduler, "_run", lambda words: answers[words[0]])
    monkeypatch.setattr(slurm_scheduler.shutil, "which", lambda name: f"/usr/bin/{name}")
    states = SlurmScheduler("stub").states(["7"])
    assert states == ({} if state is None else {"7": JobState(state)})


def test_the_time_in_which_a_requeued_job_waits_does_not_count_for_the_timeout(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(watched_stack, "time", SimpleNamespace(monotonic=lambda: clock.now))
    job = SlurmJob(folder, "7", WatchedStack(stack, 60.0))
    clock.now += 1000  # in the queue
    assert job.overdue_runs() == {}
    write_events(folder, training_events(stack, range(3))[:3])
    list(job.receive())
    job.note_state(JobState("PENDING"))
    clock.now += 1000  # requeued after the failure of its node
    assert job.overdue_runs() == {}
    job.note_state(JobState("RUNNING"))
    folder.mark_preempted()
    clock.now += 1000  # it has requeued itself
    assert job.overdue_runs() == {}
    (folder.path / "preempted").unlink()
    clock.now += 50
    assert job.overdue_runs() == {}
    clock.now += 20
    assert job.overdue_runs().keys() == {"run0"}


@pytest.mark.parametrize("state", ["TIMEOUT", "NODE_FAIL", "PREEMPTED"])
def test_jobs_that_end_before_a_new_checkpoint_are_not_submitted_for_ever(
    folder: JobFolder, stack: Stack, state: str
) -> None:
    write_events(folder, training_events(stack, range(3))[:3])
    job = SlurmJob(folder, "7", WatchedStack(stack, None), fruitless=2)
    list(job.receive())
    ends, retries, _ = job.end(JobState(state))
    assert not retries
    assert [event.run for event in ends if isinstance(event, Failed)] == ["run0", "run1"]
    assert all("before a new checkpoint" in event.message for event in ends if isinstance(event, Failed))
    job.watched.update(Boundary("run0", 1, 8))
    ends, [retried], fruitless = job.end(JobState(state))
    assert not ends
    assert [run.boundary for run in retried.runs] == [8, 0]
    assert fruitless == 0


def run_setup(path: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run setup commands, then a program that prints a variable."""
    write_setup_script(path, commands)
    words = ["bash", str(path), "sh", "-c", "echo trained with $VERSION"]
    return subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def test_setup_commands_change_the_environment_of_the_job(tmp_path: Path) -> None:
    result = run_setup(tmp_path / "setup.sh", "export VERSION='3 . 11'", "false || true", "cd /")
    assert (result.returncode, result.stdout) == (0, "trained with 3 . 11\n")


@pytest.mark.parametrize("command", ["load python/3.11", "echo 'it is' full; (exit 3)", "if true; then"])
def test_the_first_setup_command_that_fails_ends_the_job_and_is_named(tmp_path: Path, command: str) -> None:
    result = run_setup(tmp_path / "setup.sh", "export VERSION=3", command, "echo later")
    lines = result.stdout.splitlines()
    assert find_setup_failure(lines) == f"status {result.returncode}: {command}"
    assert result.returncode
    assert len(lines) > 1 or command.endswith("3)")
    assert not {"later", "trained with 3"}.intersection(lines)


@pytest.mark.parametrize("has_started", [False, True])
def test_the_runs_of_a_job_whose_setup_failed_fail_with_the_command_and_its_output(
    folder: JobFolder, stack: Stack, has_started: bool
) -> None:
    if has_started:  # it was requeued
        write_events(folder, training_events(stack, range(3))[:3])
    result = run_setup(setup_script(folder.path.parent), "module load python/3.11")
    log_file(folder.path.parent, "7_0").write_text(f"submitit INFO - Starting\n{result.stdout}")
    ends, retries, _ = SlurmJob(folder, "7_0", WatchedStack(stack, None)).end(JobState("FAILED"))
    assert not retries
    assert [end.run for end in ends if isinstance(end, Failed)] == ["run0", "run1"]
    for end in ends:
        assert isinstance(end, Failed)
        assert "[resources.slurm] setup failed with status 127: module load python/3.11" in end.message
        assert "shares with" not in end.message
        assert "module: command not found" in end.traceback


def test_a_job_that_ends_before_it_trains_shows_its_output(folder: JobFolder, stack: Stack) -> None:
    job = SlurmJob(folder, "7", WatchedStack(stack, None))
    [end, _], _, _ = job.end(JobState("FAILED"))
    assert isinstance(end, Failed)
    assert "on a disk that it shares" in end.message
    log = log_file(folder.path.parent, "7")
    log.parent.mkdir()
    log.write_text("slurmstepd: error: execve(): /opt/python: No such file or directory\n")
    [end, _], _, _ = job.end(JobState(GONE))
    assert isinstance(end, Failed)
    assert end.message == f"the job 7 has ended before it began to train; the job's output is in {log}"
    assert "No such file" in end.traceback


def test_an_interruption_cancels_a_job_that_waits_for_its_next_start(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    write_events(folder, training_events(stack, range(3))[:3])
    folder.mark_preempted()
    scheduler = StubScheduler("PENDING")
    monkeypatch.setattr(slurm_executor, "make_scheduler", lambda cluster: scheduler)
    job, events = SlurmJob(folder, "7", WatchedStack(stack, None)), []
    with closing(SlurmExecutor(JobSettings(SlurmOptions(), folder.path.parent), attached=[job])) as executor:
        for event in executor.execute([]):
            events += [event] if event is not None else []
            if isinstance(event, Points):
                executor.interrupt()
    assert scheduler.cancelled[:1] == ["7"]
    assert [event.status for event in events if isinstance(event, Finished)] == ["queued", "queued"]


class StubSubmitter:
    """Submitter whose scheduler refuses the first submissions."""

    refusals = 2

    def __init__(self, options: SlurmOptions, folder: Path) -> None:
        self.left = self.refusals

    def submit(self, folders: Sequence[JobFolder]) -> list[str]:
        self.left -= 1
        if self.left >= 0:
            raise LabbenchError("the jobs could not be submitted: Socket timed out")
        for folder in folders:
            stack, _ = folder.read_stack()
            write_events(folder, training_events(stack, range(3)))
        return [str(8 + index) for index in range(len(folders))]

    def run_debug_jobs(self) -> None: ...

    def close(self) -> None: ...


def test_stacks_that_the_scheduler_refuses_are_submitted_again_while_other_jobs_train(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm_executor, "make_scheduler", lambda cluster: StubScheduler("RUNNING"))
    monkeypatch.setattr(slurm_executor, "Submitter", StubSubmitter)
    others = make_stack([RunRecord(2, "run2", "", "e", "running", {})], task="digits", stop=None, runtime=Runtime())
    job, events = SlurmJob(folder, "7", WatchedStack(stack, None)), []
    with closing(SlurmExecutor(JobSettings(SlurmOptions(), folder.path.parent), attached=[job])) as executor:
        for event in executor.execute([others]):
            events += [event] if event is not None else []
            if isinstance(event, Finished):
                write_events(folder, training_events(stack, range(3)))
    assert {event.run for event in events if isinstance(event, Finished)} == {"run0", "run1", "run2"}
    assert [event.job_id for event in events if isinstance(event, Submitted)] == ["8"]
    assert capsys.readouterr().err.count("Socket timed out; trying again") == 1


def test_stacks_that_the_scheduler_refuses_return_to_the_queue_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    scheduler = StubScheduler("RUNNING")
    monkeypatch.setattr(slurm_executor, "make_scheduler", lambda cluster: scheduler)
    monkeypatch.setattr(slurm_executor, "Submitter", StubSubmitter)
    monkeypatch.setattr(StubSubmitter, "refusals", 10**9)
    others = make_stack([RunRecord(2, "run2", "", "e", "running", {})], task="digits", stop=None, runtime=Runtime())
    job, events = SlurmJob(folder, "7", WatchedStack(stack, None)), []
    with closing(SlurmExecutor(JobSettings(SlurmOptions(), folder.path.parent), attached=[job])) as executor:
        for event in executor.execute([others]):
            events += [event] if event is not None else []
            executor.interrupt()
    assert {event.run: event.status for event in events if isinstance(event, Finished)} == {
        "run0": "queued",
        "run1": "queued",
        "run2": "queued",
    }


def test_a_job_that_is_requeued_after_its_runs_have_left_it_trains_nothing(folder: JobFolder, stack: Stack) -> None:
    pytest.importorskip("torch")
    folder.mark_recorded()
    folder.request_stop(run.key for run in stack.runs)
    TrainingJob(str(folder.path), redirect=False)()
    events = [event for event, _ in folder.read_events(Position())]
    assert [(type(event), event.run) for event in events] == [(Finished, "run0"), (Finished, "run1")]


def test_a_run_is_stopped_also_while_its_stack_waits_to_be_submitted_again(
    monkeypatch: pytest.MonkeyPatch, folder: JobFolder, stack: Stack
) -> None:
    monkeypatch.setattr(slurm_executor, "make_scheduler", lambda cluster: StubScheduler("RUNNING"))
    with closing(SlurmExecutor(JobSettings(SlurmOptions(), folder.path.parent))) as executor:
        executor.stop("run1")
        assert executor._make_folder(stack).stop_requests() == ["run1"]


def test_a_scheduler_does_not_judge_the_jobs_of_another_cluster() -> None:
    assert SlurmScheduler("one").manages("one")
    assert not SlurmScheduler("one").manages("two")
    assert SlurmScheduler(UNKNOWN_CLUSTER).manages("two")
    assert LocalScheduler().manages(HOST)
    assert not LocalScheduler().manages("another-host")
