"""`labbench pull` through a local command in place of ssh: the mirror becomes equal to its source, whatever happens."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from helpers.store_samples import execute, new_run, points, queue, start
from labbench.errors import InputError, LabbenchError, StoreError
from labbench.records import Boundary, Failed, Finished, Log, Points, RunRecord
from labbench.sharing.frames import ConnectionCut, FrameConnection
from labbench.sharing.pull import follow, pull
from labbench.sharing.remote import Conversation, RemoteDatabase, connect_locally, parse_remote, ssh_command
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import PrintedText, new_script_run
from labbench.store.writer import Writer

LABBENCH = f"{sys.executable} -m labbench"
LOCAL_SHELL = """#!/bin/sh
# takes the words of ssh: -- HOST COMMAND
echo "Welcome to $2"; echo "banner on stderr" >&2
exec sh -c "$3"
"""


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteDatabase:
    """Return a database whose changes a thread of this process serves, in place of another process."""

    def connect(remote: RemoteDatabase, _: str) -> AbstractContextManager[Conversation]:
        return connect_locally(Path(remote.path))

    monkeypatch.setattr("labbench.sharing.pull.connect", connect)
    return RemoteDatabase("box", str(tmp_path / "remote.db"))


@pytest.fixture
def by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteDatabase:
    """Return a database that a local command in place of ssh reaches."""
    ssh = tmp_path / "local shell"
    ssh.write_text(LOCAL_SHELL)
    ssh.chmod(0o755)
    monkeypatch.setenv("LABBENCH_SSH", f"'{ssh}'")
    return RemoteDatabase("box", str(tmp_path / "remote's runs.db"))


@pytest.fixture
def source(remote: RemoteDatabase) -> Path:
    return Path(remote.path)


def content(path: Path) -> dict[str, Any]:
    """Return all that a mirror has of the runs of a database, by key."""
    with Reader(path) as reader:
        return {
            run.key: (
                repr(replace(run, id=0, source=None, pid=None)),
                [
                    (point.metric, point.step, point.time, repr(point.value))
                    for point in reader.points(f"key={run.key} archived=true,false")
                ],
                reader.logs(run.key),
            )
            for run in reader.runs("archived=true,false")
        }


def fill(path: Path) -> list[RunRecord]:
    """Write runs with numbers of every kind."""
    with Writer(path) as writer:
        first, second, third = start(writer, [new_run(0, lr=math.inf), new_run(1, name="ü \x1b[1m"), new_run(2)])
        writer.write([points(first, "loss", [1.0, math.nan, math.inf, -0.0]), points(first, "score", {2**40: 1e-300})])
        writer.write([points(second, "loss", {step: step / 7 for step in range(2000)}), Log(second.key, 1, "a\nb\n")])
        writer.write([Log(second.key, 1, "50 %")])
        writer.write([Failed(third.key, 1, "user", "it broke", "line 7"), Boundary(second.key, 1, 700)])
        writer.tag([first.key], add=["good"])
        writer.note(first.key, "look here")
        queue(writer, [new_run(8)], experiment="another")
        return [first, second, third]


def change(path: Path, runs: list[RunRecord]) -> None:
    """Change runs in every way."""
    first, second, third = runs
    with Writer(path) as writer:
        writer.write([points(first, "loss", {10: 0.5, 11: 0.25})])
        writer.write([points(first, "loss", {7: 0.75})])  # out of order
        writer.write([points(first, "score", {2**40: 2e-300})])  # same step, other value
        writer.write([Log(second.key, 1, "100 %\n", replaces_unfinished=True)])
        writer.write([Finished(first.key, 1, "finished", "all epochs")])
        writer.tag([first.key], add=["better"], remove=["good"])
        writer.note(first.key, "look again")
        writer.rename(first.key, "other name")
        writer.requeue([second.key])
        [second] = writer.claim([second.key])  # the next attempt, from step 700
        writer.write([points(second, "loss", dict.fromkeys(range(701, 800), -1.0))])
        writer.retry([third.key], from_start=True)
        writer.rename_experiment("another", "renamed")
        writer.archive([third.key])
        [removed] = queue(writer, [new_run(9)])
        writer.remove([removed.key])


def test_a_mirror_equals_its_source_after_every_pull(path: Path, remote: RemoteDatabase, source: Path) -> None:
    runs = fill(source)
    assert pull(path, remote, LABBENCH).n_runs == 4
    assert content(path) == content(source)
    assert pull(path, remote, LABBENCH).n_points == 0
    change(source, runs)
    pull(path, remote, LABBENCH)
    assert content(path) == content(source)
    with Writer(source) as writer:
        writer.remove([runs[0].key])
    assert pull(path, remote, LABBENCH).n_removed == 1
    assert content(path) == content(source)
    assert diagnose(path).is_sound
    with Reader(path) as reader:
        assert {run.source for run in reader.runs()} == {str(remote)}


def test_a_database_is_mirrored_by_a_command_in_place_of_ssh(
    labbench: Callable[..., Result], path: Path, by_ssh: RemoteDatabase
) -> None:
    source = Path(by_ssh.path)
    fill(source)
    words = ("pull", by_ssh, "--remote-labbench", LABBENCH, "--db", path)
    assert labbench(*map(str, words)).stdout == "4 new or changed runs, 2005 points\n"
    assert labbench(*map(str, words)).stdout == "0 new or changed runs, 0 points\n"
    assert content(path) == content(source)


def test_a_look_brings_only_the_points_behind_those_that_the_mirror_has(
    path: Path, remote: RemoteDatabase, source: Path
) -> None:
    [_, second, _] = fill(source)
    with closing(follow(path, remote, LABBENCH, every=0.0)) as reports:
        assert next(reports).n_points == 2005
        with Writer(source) as writer:
            writer.write([points(second, "loss", {3000: 1.0, 3001: 2.0})])
            report = next(reports)
            assert (report.n_runs, report.n_points) == (1, 2)
            assert next(reports).n_runs == 0
            writer.write([Points(second.key, 1, "loss", [5], [0], [1.0])])
            assert next(reports).n_points == 2002
            writer.remove([second.key])
            assert next(reports).n_removed == 1
        assert content(path) == content(source)


def test_output_of_scripts_is_mirrored_by_its_tail(path: Path, remote: RemoteDatabase, source: Path) -> None:
    with ScriptWriter(source) as writer, closing(follow(path, remote, LABBENCH, every=0.0)) as reports:
        run = writer.begin(new_script_run("script", "scripts", {}))
        for number, (text, replaces) in enumerate(
            [("a\n", False), ("1 %", False), ("2 %", True), ("done\n", True), ("b\nc", False), ("c\n", True)]
        ):
            writer.record(run, run, printed=[PrintedText(float(number), "stdout", text, replaces)])
            next(reports)
            assert content(path)[run.key][2] == content(source)[run.key][2], text
        assert "".join(content(path)[run.key][2]) == "a\ndone\nb\nc\n" or content(path) == content(source)


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_cut_at_any_frame_is_made_good_by_the_next_pull(
    tmp_path: Path, remote: RemoteDatabase, source: Path, monkeypatch: pytest.MonkeyPatch, is_changed: bool
) -> None:
    monkeypatch.setattr("labbench.sharing.pull.POINTS_PER_TRANSACTION", 500)
    runs = fill(source)
    first = tmp_path / "first.db"
    if is_changed:
        pull(first, remote, LABBENCH)
        change(source, runs)
    receive = FrameConnection.receive
    n_frames = 0

    def count(connection: FrameConnection) -> Any:
        nonlocal n_frames
        n_frames += 1
        return receive(connection)

    def mirror(path: Path) -> Path:
        if is_changed:
            path.write_bytes(first.read_bytes())
        return path

    monkeypatch.setattr(FrameConnection, "receive", count)
    pull(mirror(tmp_path / "counted.db"), remote, LABBENCH)
    assert n_frames > 15
    path = mirror(tmp_path / "cut.db")
    for cut in range(1, n_frames + 1):
        left = cut

        def cut_off(connection: FrameConnection) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise ConnectionCut("the connection was cut")
            return receive(connection)

        monkeypatch.setattr(FrameConnection, "receive", cut_off)
        with suppress(ConnectionCut):
            pull(path, remote, LABBENCH)  # it may need fewer frames than the last one
    monkeypatch.setattr(FrameConnection, "receive", receive)
    pull(path, remote, LABBENCH)
    assert content(path) == content(source)
    assert diagnose(path).is_sound


def test_local_tags_notes_and_names_survive_a_pull(path: Path, remote: RemoteDatabase, source: Path) -> None:
    [first, second, _] = fill(source)
    pull(path, remote, LABBENCH)
    with Writer(path) as writer:
        writer.tag([first.key], add=["mine"])
        writer.note(first.key, "my note")
        writer.rename(second.key, "my name")
    change(source, [*fill_keys(source)])
    pull(path, remote, LABBENCH)
    with Reader(path) as reader:
        ours = reader.find(first.key)
        assert (ours.name, ours.note, ours.tags) == ("other name", "my note", ("better", "mine"))
        assert reader.find(second.key).name == "my name"


def fill_keys(path: Path) -> list[RunRecord]:
    with Reader(path) as reader:
        return reader.runs("experiment=grid")[:3]


def test_a_run_whose_key_is_taken_here_gets_another_key(path: Path, remote: RemoteDatabase, source: Path) -> None:
    [first, *_] = fill(source)
    with Writer(path) as writer:
        [ours] = queue(writer, 1)
    execute(path, f"UPDATE runs SET key = '{first.key}'")
    pull(path, remote, LABBENCH)
    pull(path, remote, LABBENCH)
    with Reader(path) as reader:
        assert reader.find(first.key).name == ours.name
        assert len(reader.runs("archived=true,false")) == 5


def test_a_database_that_was_replaced_is_mirrored_anew(path: Path, remote: RemoteDatabase, source: Path) -> None:
    fill(source)
    with closing(follow(path, remote, LABBENCH, every=0.0)) as reports:
        next(reports)
        source.unlink()
        for suffix in ("-wal", "-shm"):
            Path(f"{source}{suffix}").unlink(missing_ok=True)
        fill(source)
        assert next(reports).n_removed == 4
    assert content(path) == content(source)


def test_an_older_database_is_mirrored(path: Path, remote: RemoteDatabase, source: Path) -> None:
    source.write_bytes((Path(__file__).parents[1] / "databases" / "initial.db").read_bytes())
    before = source.read_bytes()
    pull(path, remote, LABBENCH)
    assert content(path) == content(source)
    assert pull(path, remote, LABBENCH).n_points == 0
    assert source.read_bytes() == before


def test_a_cut_connection_is_made_again_while_following(
    path: Path, remote: RemoteDatabase, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labbench.sharing.pull.RECONNECT_SECONDS", 0.0)
    fill(source)
    with closing(follow(path, remote, LABBENCH, every=0.0)) as reports:
        next(reports)
        with monkeypatch.context() as patch:
            patch.setattr(FrameConnection, "receive", lambda self: self._buffer.clear() or self._cut())
            patch.setattr(
                FrameConnection, "_cut", lambda self: (_ for _ in ()).throw(ConnectionCut("cut")), raising=False
            )
            assert next(reports).problem == "cut"
        assert next(reports).problem is None
    assert content(path) == content(source)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 255", "cannot be reached by ssh"),
        ("exec sh -c 'no-such-labbench serve-changes'", "has no command"),
        ("echo 'Error: No such command'; exit 2", "upgrade it there"),
        ("head -c 2000000 /dev/zero", "does not answer"),
        (
            r"""printf '\0labbench-changes\0\0\0\0\045J{"labbench": "9.9", "protocols": [9]}'""",
            "another version of the protocol",
        ),
        (r"printf '\0labbench-changes\0\377\377\377\377J'", "not a frame"),
        (r"printf '\0labbench-changes\0\0\0\0\005Jnull'", "was cut"),
    ],
)
def test_what_is_wrong_at_the_other_end_is_said(
    path: Path, by_ssh: RemoteDatabase, tmp_path: Path, script: str, reason: str
) -> None:
    (tmp_path / "local shell").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(StoreError, match=reason):
        pull(path, by_ssh, "labbench")


def test_a_missing_remote_database_is_said(
    labbench: Callable[..., Result], by_ssh: RemoteDatabase, tmp_path: Path
) -> None:
    result = labbench("pull", f"box:{tmp_path}/nothing.db", "--remote-labbench", LABBENCH)
    assert (result.exit_code, "no such database" in result.stderr) == (1, True)


@pytest.mark.parametrize("text", ["box", "box:", ":path", "-oProxyCommand=x:path", "box:a\x1bb", ""])
def test_a_name_that_ssh_would_misread_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_remote(text)


def test_the_remote_shell_gets_the_path_as_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABBENCH_SSH", raising=False)
    assert parse_remote("me@[::1]:a:b") == RemoteDatabase("me@[::1]", "a:b")
    words = ssh_command(parse_remote("box:$(touch x); -a.db"), "conda run labbench")
    assert words == ["ssh", "--", "box", "conda run labbench serve-changes -- '$(touch x); -a.db'"]


@pytest.mark.parametrize(
    "answer",
    [
        {"revisions": {"../../etc": 1}},
        {"revisions": {"abc": "1"}},
        {"revisions": [1]},
        {"revisions": {"abc": 2**70}},
        "text",
        7,
    ],
    ids=repr,
)
def test_forged_answers_are_refused(
    path: Path, remote: RemoteDatabase, source: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    fill(source)
    receive = FrameConnection.receive

    def forge(connection: FrameConnection) -> Any:
        value = receive(connection)
        return answer if isinstance(value, dict) and "revisions" in value else value

    monkeypatch.setattr(FrameConnection, "receive", forge)
    with pytest.raises(LabbenchError):
        pull(path, remote, LABBENCH)
    with Reader(path) as reader:
        assert reader.runs() == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "unheard of"), ("config", "{"), ("config", "[1]"), ("name", 7), ("created", 1e300), ("stop", "x"),
        ("boundary", 2**70), ("versions", "1"), ("archived", True), ("note", b"x".hex),
    ],
)  # fmt: skip
def test_forged_runs_are_refused(
    path: Path, remote: RemoteDatabase, source: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: Any
) -> None:
    fill(source)
    receive = FrameConnection.receive

    def forge(connection: FrameConnection) -> Any:
        answer = receive(connection)
        if isinstance(answer, dict) and "columns" in answer:
            answer["columns"][column] = value
        return answer

    monkeypatch.setattr(FrameConnection, "receive", forge)
    with pytest.raises(LabbenchError):
        pull(path, remote, LABBENCH)
    with Reader(path) as reader:
        assert reader.runs() == []
