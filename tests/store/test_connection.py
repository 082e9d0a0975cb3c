"""Opening a database: creation, upgrade, and rejection of invalid files without changing them."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from helpers.store_samples import files_beside, new_run, points, queue, start
from labbench.errors import InputError, StoreError
from labbench.store import connection as connection_module
from labbench.store import file_systems, schema
from labbench.store.maintenance.health import diagnose
from labbench.store.maintenance.merge import back_up
from labbench.store.reader import Reader
from labbench.store.writer import Writer

SCHEMA = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"


def open_memory_database() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    return mode


def write_sqlite_database(path: Path, script: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path.read_bytes()


def test_new_file_equals_the_result_of_all_migrations() -> None:
    """The DDL of a new file and the migrations of an old one must not drift apart."""
    with closing(open_memory_database()) as by_ddl, closing(open_memory_database()) as by_migrations:
        schema.create_tables(by_ddl)
        schema.upgrade_tables(by_migrations)
        assert by_ddl.execute(SCHEMA).fetchall() == by_migrations.execute(SCHEMA).fetchall()
        assert schema.read_state(by_ddl) == schema.read_state(by_migrations) == "current"


def test_sqlite_utils_accepts_the_migration_record_of_a_new_file(tmp_path: Path) -> None:
    Writer(tmp_path / "runs.db").close()
    migrations = Migrations(schema.MIGRATION_SET)
    for name, function in schema.MIGRATIONS.items():
        migrations(name=name)(function)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        database = Database(connection)
        assert migrations.pending(database) == []
        assert [migration.name for migration in migrations.applied(database)] == list(schema.MIGRATIONS)
        migrations.apply(database)  # changes nothing, and does not rebuild the table of records
        record = connection.execute("SELECT sql FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()[0]
    with closing(open_memory_database()) as new_database:
        migrations.apply(Database(new_database))
        assert (
            new_database.execute("SELECT sql FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()[0]
            == record
        )


def test_writer_and_reader_import_neither_sqlite_utils_nor_numpy(tmp_path: Path) -> None:
    program = f"""
import sys
from labbench.store.reader import Reader
from labbench.store.writer import Writer
Writer({str(tmp_path / "runs.db")!r}).close()
Reader({str(tmp_path / "runs.db")!r}).runs("lr<1")
print([name for name in ("sqlite_utils", "numpy") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"[]\n"


def test_older_database_is_upgraded_only_when_opened_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run] = queue(writer)

    def add_mood(db: Database) -> None:
        db.execute("ALTER TABLE runs ADD COLUMN mood TEXT")

    monkeypatch.setitem(schema.MIGRATIONS, "mood", add_mood)
    before = path.read_bytes()
    with Reader(path) as reader:
        assert reader.find(run.key).name == run.name
    assert path.read_bytes() == before
    Writer(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT mood FROM runs").fetchall() == [(None,)]
        assert schema.read_state(connection) == "current"


def test_failed_migration_leaves_the_database_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    Writer(path).close()

    def add_half(db: Database) -> None:
        db.execute("ALTER TABLE runs ADD COLUMN half TEXT")
        db.execute("ALTER TABLE no_such_table ADD COLUMN other TEXT")

    monkeypatch.setitem(schema.MIGRATIONS, "half", add_half)
    with pytest.raises(InputError, match="no such table"):
        Writer(path)
    monkeypatch.delitem(schema.MIGRATIONS, "half")
    with closing(sqlite3.connect(path)) as connection:
        assert schema.read_state(connection) == "current"
        assert "half" not in [column[1] for column in connection.execute("PRAGMA table_info(runs)")]


@pytest.mark.parametrize("column", ["migration_set", "name", "applied_at"])
def test_a_changed_record_of_migrations_ends_the_upgrade_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    path = tmp_path / "runs.db"
    Writer(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE _sqlite_migrations RENAME COLUMN {column} TO renamed")
    monkeypatch.setitem(schema.MIGRATIONS, "mood", lambda db: None)
    with pytest.raises(InputError, match=f"another program has changed the tables .*{column}"):
        Writer(path)


@pytest.mark.parametrize("open_database", [Reader, Writer])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,lr\nadam,0.1\n" * 100, "not an SQLite database"),
        ("CREATE TABLE invoices (id INTEGER PRIMARY KEY)", "belongs to another program"),
        ("CREATE TABLE runs (id); CREATE TABLE points (id)", "belongs to another program"),
        ("newer", "newer version of labbench; upgrade"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "not an SQLite database|damaged"),
    ],
)
def test_foreign_file_is_rejected_and_unchanged(
    tmp_path: Path, open_database: type[Reader] | type[Writer], content: bytes | str, message: str
) -> None:
    path = tmp_path / "runs.db"
    if content == "newer":
        Writer(path).close()
        content = "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('labbench', 'from the future')"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content = write_sqlite_database(path, content)
    mode = journal_mode(path) if path.read_bytes()[:6] == b"SQLite" and content[100] < 0xFF else ""
    with pytest.raises(InputError, match=message):
        open_database(path)
    assert path.read_bytes() == content
    assert files_beside(path) == ["runs.db"]
    assert not mode or journal_mode(path) == mode


@pytest.mark.parametrize("open_database", [Reader, Writer])
def test_folder_and_missing_folder_are_rejected(tmp_path: Path, open_database: type[Reader] | type[Writer]) -> None:
    with pytest.raises(InputError, match=r"this is a folder|not a file"):
        open_database(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        open_database(tmp_path / "nowhere" / "runs.db")
    assert list(tmp_path.iterdir()) == []


def test_reader_does_not_create_a_database_and_explains_how_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such database; `labbench --db \S+ run GRID\.toml` creates one"):
        Reader(tmp_path / "runs.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="the database is empty"):
        Reader(tmp_path / "empty.db")
    Writer(tmp_path / "empty.db").close()
    assert Reader(tmp_path / "empty.db").runs() == []


@pytest.fixture
def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process take itself for another user, who owns none of its files."""
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)


def read_everything(path: Path) -> None:
    with Reader(path) as reader:
        assert len(reader.runs()) == len(list(reader.each_run())) == 1
        assert len(list(reader.points())) == len(list(reader.steps())) == 2
    assert diagnose(path).is_sound
    path.with_name("backup.db").unlink(missing_ok=True)
    back_up(path, path.with_name("backup.db"))


@pytest.mark.usefixtures("as_another_user")
def test_reading_creates_no_file_beside_the_database_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's side files would belong to the reader, and the owner could not write any more."""
    path = tmp_path / "runs.db"
    opened = []

    def connect(database: str, **options: Any) -> sqlite3.Connection:
        opened.append(database)
        return sqlite3_connect(database, **options)

    sqlite3_connect = sqlite3.connect
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0, 2.0])])
        monkeypatch.setattr(sqlite3, "connect", connect)
        read_everything(path)  # beside an owner who is writing
        assert {uri.partition("?")[2] for uri in opened if "runs.db?" in uri} == {"mode=ro&readonly_shm=1"}
    opened.clear()
    read_everything(path)
    assert {uri.partition("?")[2] for uri in opened if "runs.db?" in uri} == {"mode=ro&immutable=1"}
    assert files_beside(path) == ["runs.db"]


@pytest.mark.usefixtures("as_another_user")
def test_stream_from_the_database_of_another_user_fails_if_the_file_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0, 2.0])])
    with Reader(path) as reader:
        stream = reader.points()
        next(stream)
        with Writer(path) as writer:
            writer.note(run.key, "changed")
        with pytest.raises(StoreError, match="changed the database during the read; try again"):
            list(stream)


def test_database_locked_for_too_long_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    Writer(path).close()
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match=r"locked the database for more than 0\.05 s"):
            Writer(path)
        other.execute("COMMIT")
    Writer(path).close()
    assert files_beside(path) == ["runs.db"]


@pytest.fixture
def world_readable_folder() -> Iterator[Path]:
    """Create a folder that another user can read, unlike pytest's temporary folders."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run_as_nobody(function: str, path: Path) -> str:
    """Run a statement in a process that may not write the file or its folder, also if root runs the tests.

    Returns its output.
    """
    program = f"import os, sys\nfrom pathlib import Path\npath = Path({str(path)!r})\n{function}"
    become = "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
    imports = "from labbench.errors import LabbenchError\nfrom labbench.store.reader import Reader\n"
    imports += "from labbench.store.writer import Writer\nimport labbench.store.series.curves, numpy\n"
    words = [sys.executable, "-c", program.replace("path = ", imports + become + "path = ", 1)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_read_only_database_can_be_read_and_rejects_a_writer(world_readable_folder: Path, mode: str) -> None:
    path = world_readable_folder / "runs.db"
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0, 2.0])])
    write_sqlite_database(path, f"PRAGMA journal_mode = {mode}")
    path.chmod(0o444)
    world_readable_folder.chmod(0o555)
    try:
        read = "r = Reader(path); print(len(r.runs()), r.series(r.runs()[0].key, 'loss')[1], len([*r.points()]))"
        assert run_as_nobody(read, path) == "1 [1. 2.] 2\n"
        write = "try: Writer(path)\nexcept LabbenchError as error: print(type(error).__name__, error)"
        assert run_as_nobody(write, path) == (
            f"InputError {path}: the database or its folder is read-only; copy it to a writable folder, or pass "
            "another --db\n"
        )
        assert files_beside(path) == ["runs.db"]
    finally:
        world_readable_folder.chmod(0o755)


def test_eight_processes_can_create_the_same_database(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.store_samples import new_run, points, start
from labbench.store.writer import Writer
number = int(sys.argv[1])
with Writer({str(path)!r}) as writer:
    [run] = start(writer, [new_run(number)])
    for first in range(0, 200, 10):
        writer.write([points(run, "loss", {{step: 1.0 for step in range(first, first + 10)}})])
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(8)]
    assert [process.wait() for process in processes] == [0] * 8
    with Reader(path) as reader:
        assert sorted(run.summary["loss"].n for run in reader.runs()) == [200] * 8
    assert files_beside(path) == ["runs.db"]


def test_new_file_has_no_content_or_all_tables_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a process that reads the file while another one creates it sees a missing or a complete database."""
    path, connect = tmp_path / "runs.db", connection_module._connect
    states: list[str] = []

    def read_as_another_process(_: str) -> None:  # before each statement; must not raise
        if path.stat().st_size == 0:
            states.append("no content")
        else:
            with closing(sqlite3.connect(path)) as connection:
                states.append(schema.read_state(connection))

    def connect_traced(path: Path, options: str) -> sqlite3.Connection:
        connection = connect(path, options)
        connection.set_trace_callback(read_as_another_process)
        return connection

    monkeypatch.setattr(connection_module, "_connect", connect_traced)
    connection_module.open_for_writing(path).close()
    assert list(dict.fromkeys(states)) == ["no content", "current"]


def test_last_connection_to_close_leaves_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    writer = Writer(path)
    other = Writer(path)
    start(writer)
    reader = Reader(path)
    assert len(reader.runs()) == 1
    writer.close()
    other.close()
    assert len(reader.runs()) == 1
    reader.close()
    assert files_beside(path) == ["runs.db"]


def test_reader_through_a_link_sees_commits_in_the_wal(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "runs.db"
    link.symlink_to(tmp_path / "far" / "runs.db")
    (tmp_path / "far" / "runs.db").touch()
    with Writer(link) as writer:
        queue(writer, [new_run(1)])
        with Reader(link) as reader:
            assert len(reader.runs()) == 1


MOUNTS = """\
22 1 0:21 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:30 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
41 40 0:31 / /home/a\\040b rw,relatime - tmpfs tmpfs rw
42 22 0:32 / /scratch rw - fuse.sshfs user@host: rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/data/runs.db", "ext4"), ("/home/ann/runs.db", "nfs4"), ("/home/a b/runs.db", "tmpfs"), ("/homes/x", "ext4")],
)
def test_innermost_mount_determines_the_file_system(path: str, expected: str) -> None:
    assert file_systems.find_file_system(path, MOUNTS) == expected


def test_network_file_system_uses_a_rollback_journal_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 0:21 / {tmp_path} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", table)
    path = tmp_path / "runs.db"
    with pytest.warns(UserWarning, match=r"network file system \(nfs4\)"):
        writer = Writer(path)
    with writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0])])
        with Reader(path) as reader:
            version = reader.data_version()
            assert files_beside(path) == ["runs.db"]
            writer.write([points(run, "loss", {1: 2.0})])
            assert reader.data_version() != version
            assert reader.runs()[0].summary["loss"].n == 2
    assert journal_mode(path) == "delete"


@pytest.mark.parametrize(
    "file_system",
    [
        "fuse",
        "virtiofs",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.rclone",
        "vboxsf",
        "fuse.juicefs",
        "wekafs",
        "fuse.grpcfuse",
    ],
)
def test_shared_folders_and_mounted_buckets_are_network_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 0:21 / {tmp_path} rw - {file_system} remote: rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", table)
    assert file_systems.network_file_system(tmp_path / "runs.db") == file_system


def _fail(*_: object) -> None:
    raise OSError(errno.ENODEV, "No such device")


@pytest.fixture(params=["mmap.mmap", "fcntl.lockf"])
def no_shared_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request.param, _fail)


@pytest.mark.usefixtures("no_shared_memory")
def test_file_system_without_shared_memory_uses_a_rollback_journal_and_warns(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with pytest.warns(UserWarning, match="file system without shared memory or locks"):
        writer = Writer(path)
    with writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0])])
        with Reader(path) as reader:
            assert files_beside(path) == ["runs.db"]
            writer.write([points(run, "loss", {1: 2.0})])
            assert reader.runs()[0].summary["loss"].n == 2
    assert journal_mode(path) == "delete"
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]


def test_database_moved_to_a_file_system_without_shared_memory_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        queue(writer, [new_run(1)])
    assert journal_mode(path) == "wal"
    monkeypatch.setattr("mmap.mmap", _fail)
    with pytest.warns(UserWarning, match="without shared memory"), Writer(path) as writer:
        queue(writer, [new_run(2)])
    assert journal_mode(path) == "delete"
    monkeypatch.undo()
    with Writer(path), Reader(path) as reader:
        assert len(reader.runs()) == 2
    assert journal_mode(path) == "wal"


def test_local_folder_has_shared_memory_and_keeps_no_file(tmp_path: Path) -> None:
    assert file_systems.has_shared_memory(tmp_path)
    assert file_systems.has_shared_memory(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_probe_of_shared_memory_removes_the_file_of_a_killed_probe(tmp_path: Path) -> None:
    left = tmp_path / ".labbench-0123456789abcdef-shm"
    left.touch()
    os.utime(left, (0, 0))
    file_systems.has_shared_memory(tmp_path)
    assert not left.exists()


def test_views_can_be_queried_without_labbench(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        [run, lost] = start(writer, 2)
        writer.write([points(run, "loss", {0: 1.0, 7: float("nan")})])
        writer.tag([run.key], ["a", "b"])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE runs SET heartbeat = heartbeat - 60 WHERE key = ?", (lost.key,))
        rows = connection.execute("SELECT key, experiment, status, tags FROM runs_named").fetchall()
        assert rows == [(run.key, "grid", "running", "a, b"), (lost.key, "grid", "lost", None)]
        values = connection.execute("SELECT run, metric, step, time, value FROM points_named").fetchall()
        assert values == [(run.key, "loss", 0, 0.0, 1.0), (run.key, "loss", 7, 0.07, None)]
