"""`labbench pack`, and import of the files that it writes and of files that others forged."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import execute, new_run, queue, read_tables
from labbench.errors import InputError
from labbench.files import files_folder
from labbench.importing.labbench_db import import_labbench
from labbench.records import Artifact, Failed, Log
from labbench.sharing.pack import write_pack
from labbench.sharing.unpack import import_pack
from labbench.store.maintenance.health import diagnose
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.reader import Reader
from labbench.store.sharing.packed_database import PackedTexts
from labbench.store.writer import Writer
from labbench.tracking.start import start as start_run

GB = 10**9


@pytest.fixture
def source(other: Path) -> Path:
    """Return a database whose runs have output, a traceback, a source text, artifacts and a checkpoint."""
    with Writer(other) as writer, Reader(other) as reader:
        c = reader.find("c")
        writer.claim([c.key])
        writer.write([Log(c.key, 1, "printed secret\n"), Failed(c.key, 1, "user", "it broke", "secret line of code")])
        queue(writer, [new_run(9, name="apart")], experiment="secret experiment")
        a = reader.find("a")
    execute(other, "INSERT INTO sources (sha256, text) VALUES ('0', 'secret of another run')")
    folder = files_folder(other) / a.key
    (folder / "images").mkdir()
    (folder / "images" / "1.png").write_bytes(b"picture")
    (folder / "snapshot-7.safetensors").write_bytes(b"checkpoint")
    (folder / "notes.txt").write_bytes(b"no artifact")
    (folder / "planted").symlink_to("/etc/passwd")
    with MaintenanceWriter(other) as writer, writer.importing() as importer:
        for name in ("images/1.png", "planted", "/etc/hostname"):
            importer.add_artifact(a.id, Artifact(name, name, 7, "0", 0.0))
    execute(other, "UPDATE runs SET boundary = 7")
    return other


def test_a_pack_is_imported_with_points_files_and_edits(
    labbench: Callable[..., Result], path: Path, source: Path
) -> None:
    result = labbench("pack", "a", "b", "-o", "two.labbench", "--db", source)
    assert result.exit_code == 0, result.stderr
    assert (
        labbench("import", "two.labbench", "--db", path).stdout == "imported 2 new runs, updated 0, 0 already present\n"
    )
    with Reader(path) as ours, Reader(source) as theirs:
        assert sorted(run.name for run in ours.runs()) == ["a", "b"]
        assert [point.value for point in ours.points("name=a", ["score"])] == [
            point.value for point in theirs.points("name=a", ["score"])
        ]
        a = ours.find("a")
        assert (a.tags, a.note, a.status, a.boundary) == (("good",), "look here", "finished", 0)
        assert [artifact.name for artifact in ours.artifacts(a.key)] == ["images/1.png", "planted"]
        assert ours.experiments() == ["grid"]
    files = {str(file.relative_to(files_folder(path) / a.key)) for file in files_folder(path).rglob("*.*")}
    assert files == {"model.safetensors", "images/1.png"}
    assert diagnose(path).is_sound
    before = read_tables(path)
    assert labbench("import", "auto", ".", "--db", path).stdout.endswith(
        "imported 0 new runs, updated 0, 2 already present\n"
    )
    assert read_tables(path) == before


def test_what_leaves_the_machine_is_listed_with_sizes(labbench: Callable[..., Result], source: Path) -> None:
    result = labbench("pack", "--filter", "name=a", "-o", "a.labbench", "--db", source)
    with zipfile.ZipFile("a.labbench") as archive:
        listed = [line.split() for line in result.stdout.splitlines()[:-1]]
        names = [name.rpartition("/")[2] for name in archive.namelist()]
        assert names == ["runs.db", "model.safetensors", "1.png"]
        assert [words[2:] for words in listed[1:]] == [["models", "(1", "file)"], ["images", "(1", "file)"]]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    assert [words[:2] for words in listed[1:]] == [["7", "B"], ["7", "B"]]
    assert result.stdout.splitlines()[0].endswith("runs.db  (1 run)")
    assert "planted" in result.stderr
    assert "/etc/hostname" in result.stderr


def test_files_of_several_runs_are_counted_by_kind_and_artifacts_are_named(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("12345")
    for name in "ab":
        with start_run(name, db=tmp_path / "many.db", system_metrics=False) as run:
            run.artifact(tmp_path / "notes.txt", copy=True)
        folder = files_folder(tmp_path / "many.db") / run.key
        (folder / "model.safetensors").write_bytes(b"x" * 10)
    lines = labbench("pack", "--filter", "name=a,b", "-o", "m.labbench", "--db", "many.db").stdout.splitlines()
    assert ["20", "B", "models", "(2", "files)"] in [line.split() for line in lines]
    assert len([line for line in lines if line.endswith("notes.txt")]) == 2


@pytest.mark.parametrize("texts", [PackedTexts(), PackedTexts(source=True), PackedTexts(output=True)], ids=repr)
def test_source_and_output_leave_the_machine_only_on_request(tmp_path: Path, source: Path, texts: PackedTexts) -> None:
    with Reader(source) as reader:
        write_pack(source, reader.keys("name=a,c"), tmp_path / "some.labbench", texts)
    with zipfile.ZipFile(tmp_path / "some.labbench") as archive:
        content = archive.read("runs.db")
    for part, is_allowed in {
        b"text of the grid": texts.source,
        b"printed secret": texts.output,
        b"secret line of code": texts.output,
        b"secret of another run": False,
        b"secret experiment": False,
        b"/etc/hostname": False,
        b"it broke": True,
    }.items():
        assert (part in content) == is_allowed, part


def test_a_pack_of_a_database_gives_back_the_runs_that_were_removed(tmp_path: Path, source: Path) -> None:
    with Reader(source) as reader:
        keys = reader.keys()
        write_pack(source, keys, tmp_path / "all.labbench", PackedTexts(source=True, output=True))
    with Writer(source) as writer:
        writer.remove(keys[:1])
    assert list(import_pack(source, tmp_path / "all.labbench", max_bytes=GB).new) == keys[:1]
    assert not import_labbench(tmp_path / "copy.db", source).skipped


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("/tmp/planted", stat.S_IFREG, "absolute path"),
        ("C:/planted", stat.S_IFREG, "absolute path"),
        ("files\\a\\planted", stat.S_IFREG, "absolute path"),
        ("files/abc/../../planted", stat.S_IFREG, "plain path"),
        ("../planted", stat.S_IFREG, "plain path"),
        ("files/abc//planted", stat.S_IFREG, "plain path"),
        ("files/abc/a\x1bb", stat.S_IFREG, "plain path"),
        ("files/abc/link", stat.S_IFLNK, "regular file"),
        ("files/abc/pipe", stat.S_IFIFO, "regular file"),
        ("files/abc/", stat.S_IFDIR, "regular file"),
        ("files/a-key/x", stat.S_IFREG, "file of a run"),
        ("planted", stat.S_IFREG, "file of a run"),
        ("RUNS.DB", stat.S_IFREG, "file of a run"),
        ("files/abc/MODEL", stat.S_IFREG, "occurs twice"),
        ("files/abc/model/x", stat.S_IFREG, "folder that is a file"),
    ],
)
def test_a_forged_pack_is_refused_before_anything_is_written(
    path: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: int, reason: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with zipfile.ZipFile(tmp_path / "forged.labbench", "w") as archive:
        archive.writestr(entry("runs.db"), source.read_bytes())
        archive.writestr(entry("files/abc/model"), b"weights")
        archive.writestr(entry(name, mode), b"planted")
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=reason):
        import_pack(path, tmp_path / "forged.labbench", max_bytes=GB)
    assert sorted(tmp_path.rglob("*")) == files


def test_a_pack_that_unpacks_to_more_than_the_limit_is_refused(
    labbench: Callable[..., Result], path: Path, source: Path
) -> None:
    with zipfile.ZipFile("large.labbench", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source, "runs.db")
        archive.writestr("files/abc/model", bytes(3_000_000))
    result = labbench("import", "large.labbench", "--max-size", "0.002", "--db", path)
    assert (result.exit_code, "--max-size raises the limit" in result.stderr) == (2, True)
    assert not path.exists()
    assert labbench("import", "pack", "large.labbench", "--max-size", "1", "--db", path).exit_code == 0


def test_a_damaged_pack_is_refused(path: Path, tmp_path: Path, source: Path) -> None:
    pack = tmp_path / "a.labbench"
    with Reader(source) as reader:
        write_pack(source, reader.keys(), pack, PackedTexts())
    content = pack.read_bytes()
    for damaged in (b"", b"text", content[:-100], content[:200] + os.urandom(300) + content[500:]):
        pack.write_bytes(damaged)
        with pytest.raises(InputError, match="not a complete pack"):
            import_pack(path, pack, max_bytes=GB)
    assert not path.exists()


def test_pack_says_what_is_missing(labbench: Callable[..., Result], source: Path) -> None:
    for words, reason in (
        ([], "name the runs"),
        (["a", "--filter", "name=a"], "name the runs"),
        (["--filter", "name=nobody"], "no runs match"),
        (["nobody"], "no run has"),
        (["nobody", "name=a"], "no run has"),
        (["name=nobody"], "no runs match"),
    ):
        result = labbench("pack", *words, "-o", "x.labbench", "--db", source)
        assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr
    assert labbench("pack", "a", "--db", source).stderr == "labbench: name the file to write: -o FILE.labbench\n"
    assert labbench("pack", "a", "-o", source, "--db", source).exit_code == 2
    assert not Path("x.labbench").exists()
