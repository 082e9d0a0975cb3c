"""The recorded patch restores the working tree, and the flag for changes is right, under any git configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labbench.system import provenance
from labbench.system.provenance import read_git_state

HOSTILE_CONFIGS = {
    "plain": "",
    "colour": "[color]\nui = always\ndiff = always\n",
    "external diff": "[diff]\nexternal = /bin/true\n",
    "no prefix": "[diff]\nnoprefix = true\n",
    "mnemonic prefix": "[diff]\nmnemonicPrefix = true\n",
    "context": "[diff]\ncontext = 0\ninterHunkContext = 9\nsuppressBlankEmpty = true\n",
    "relative": "[diff]\nrelative = true\n",
    "renames": "[diff]\nrenames = copies\n",
    "order file": "[diff]\norderFile = /nonexistent\n",
    "text conversion": '[diff "upper"]\ntextconv = tr a-z A-Z <\n[core]\nattributesFile = ~/attributes\n',
    "diff command": '[diff "upper"]\ncommand = /bin/true\n[core]\nattributesFile = ~/attributes\n',
    "submodules": "[diff]\nsubmodule = log\nignoreSubmodules = all\n",
    "untracked": "[status]\nshowUntrackedFiles = all\n",
    "line ends": "[core]\nautocrlf = input\nsafecrlf = warn\n",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "attributes").write_text("*.py diff=upper\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return folder


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=b", "-c", "protocol.file.allow=always")
    result = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def make_repository(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    write_files(folder, files)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def assert_restores(repository: Path, patch: str, changed: dict[str, bytes]) -> None:
    """Apply the patch to the commit and compare the files."""
    git(repository, "stash", "-q")
    (repository.parent / "recorded.patch").write_bytes(patch.encode())
    git(repository, "apply", "--check", "../recorded.patch")
    git(repository, "apply", "../recorded.patch")
    assert {name: (repository / name).read_bytes() for name in changed} == changed


ORIGINAL = {
    "model.py": b"a = 1\nb = 2\n\nc = 3\n\n",
    "package/layer.py": b"x = 1\n" * 20,
    "dos.py": b"a = 1\r\nb = 2\r\n",
    "latin.txt": b"na\xefve\n",
    "weights.bin": b"\0\1\2" * 50,
}
CHANGED = {
    "model.py": b"a = 1\nb = 20\n\nc = 3\n\n",
    "package/layer.py": b"x = 1\n" * 10 + b"y = '\xe2\x82\xac'\n" + b"x = 1\n" * 10,
    "dos.py": b"a = 1\r\nb = 20\r\n",
    "latin.txt": b"na\xefvet\xe9\n",
    "weights.bin": b"\0\1\3" * 50,
}


@pytest.mark.parametrize("config", HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_patch_applies_under_any_git_configuration(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    repository = make_repository(tmp_path / "repository", ORIGINAL)
    write_files(repository, CHANGED)
    (home / ".gitconfig").write_text(config)
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    commit, is_dirty, patch = read_git_state(repository / "package")
    (home / ".gitconfig").unlink()
    assert (commit, is_dirty) == (git(repository, "rev-parse", "HEAD"), True)
    assert_restores(repository, patch, CHANGED)


@pytest.mark.parametrize("config", HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_untracked_and_touched_files_are_no_changes(tmp_path: Path, home: Path, config: str) -> None:
    repository = make_repository(tmp_path / "repository", {"model.py": b"a = 1\n"})
    write_files(repository, {"runs.db": b"1", "model.py": b"a = 1\n"})
    (home / ".gitconfig").write_text(config)
    _, is_dirty, patch = read_git_state(repository)
    assert (is_dirty, patch) == (False, "")


@pytest.mark.parametrize("config", ["", HOSTILE_CONFIGS["submodules"]], ids=["plain", "hostile"])
def test_changes_of_a_submodule_count(tmp_path: Path, home: Path, config: str) -> None:
    library = make_repository(tmp_path / "library", {"a.py": b"1\n"})
    repository = make_repository(tmp_path / "repository", {"model.py": b"a = 1\n"})
    git(repository, "submodule", "--quiet", "add", str(library), "library")
    git(repository, "commit", "-qm", "second")
    (home / ".gitconfig").write_text(config)
    write_files(repository, {"library/cache.pyc": b""})
    assert read_git_state(repository)[1:] == (False, "")
    write_files(repository, {"library/a.py": b"2\n"})
    _, is_dirty, patch = read_git_state(repository)
    assert is_dirty
    assert "-dirty" in patch
    git(repository / "library", "commit", "-qam", "second")
    _, is_dirty, patch = read_git_state(repository)
    (home / ".gitconfig").write_text("")
    assert is_dirty
    (tmp_path / "recorded.patch").write_text(patch)
    git(repository / "library", "checkout", "-q", "HEAD~")
    git(repository, "apply", "--check", "../recorded.patch")


def test_deleted_new_and_linked_files_are_in_the_patch(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository", {"old.py": b"1\n", "link.py": b"2\n", "a b.py": b"3\n"})
    (repository / "old.py").unlink()
    (repository / "link.py").unlink()
    (repository / "link.py").symlink_to("new.py")
    write_files(repository, {"new.py": b"4\n", "a b.py": b"no line end"})
    git(repository, "add", "new.py")
    _, _, patch = read_git_state(repository)
    git(repository, "reset", "-q", "--hard")
    (tmp_path / "recorded.patch").write_text(patch)
    git(repository, "apply", "../recorded.patch")
    assert not (repository / "old.py").exists()
    assert (repository / "link.py").is_symlink()
    assert (repository / "link.py").read_bytes() == b"4\n"
    assert (repository / "a b.py").read_bytes() == b"no line end"


def test_change_that_is_too_long_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MAX_PATCH_CHARACTERS", 1_000)
    repository = make_repository(tmp_path / "repository", {"a.py": b"1\n", "generated.json": b"1\n"})
    write_files(repository, {"a.py": b"2\n", "generated.json": b"1234567890\n" * 500})
    _, is_dirty, patch = read_git_state(repository)
    assert is_dirty
    assert patch.startswith("# left out, too long or not UTF-8: a/generated.json b/generated.json\n")
    assert_restores(repository, patch, {"a.py": b"2\n", "generated.json": b"1\n"})


def test_files_after_a_very_long_change_are_in_the_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_MAX_READ_BYTES", 2_000)
    repository = make_repository(tmp_path / "repository", {"a.json": b"1\n", "b.py": b"1\n"})
    changed = {"a.json": b"1234567890\n" * 500, "b.py": b"2\n"}
    write_files(repository, changed)
    _, is_dirty, patch = read_git_state(repository)
    assert is_dirty
    assert_restores(repository, patch, changed)


def test_folder_without_a_commit_has_no_state(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) == (None, None, "")
    git(tmp_path, "init", "-q")
    assert read_git_state(tmp_path) == (None, None, "")


def test_variables_of_git_hooks_do_not_change_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path / "repository", {"package/a.py": b"a = 1\n"})
    write_files(repository, {"package/a.py": b"a = 2\n"})
    state = read_git_state(repository / "package")
    for name, value in {"GIT_DIR": ".git", "GIT_INDEX_FILE": ".git/index.lock", "GIT_WORK_TREE": "/tmp"}.items():
        monkeypatch.setenv(name, value)
    assert read_git_state(repository / "package") == state
    assert state[1] is True


def test_commit_is_known_in_the_repository_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository(tmp_path / "repository", {"a.py": b"a = 1\n"})
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert read_git_state(repository) == (commit, None, "")
