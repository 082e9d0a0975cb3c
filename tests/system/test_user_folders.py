"""Folders of cache and state files, by operating system, and files of earlier versions."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from labbench.system.user_folders import cache_path, state_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder, on Linux."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    return tmp_path


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)


def test_linux_uses_the_xdg_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "s"))
    assert cache_path("mnist") == home / "c" / "labbench" / "mnist"
    assert state_path("a.json") == home / "s" / "labbench" / "a.json"


@pytest.mark.parametrize(
    "value", [None, "", "relative/path"]
)  # the specification requires that a relative path is ignored
def test_linux_without_xdg_variables_uses_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME") if value is not None else ():
        monkeypatch.setenv(variable, value or "")
    assert cache_path("mnist") == home / ".cache" / "labbench" / "mnist"
    assert state_path("a.json") == home / ".local" / "state" / "labbench" / "a.json"


@pytest.mark.usefixtures("macos")
def test_macos_uses_the_library_folders(home: Path) -> None:
    assert cache_path("mnist") == home / "Library" / "Caches" / "labbench" / "mnist"
    assert state_path("a.json") == home / "Library" / "Application Support" / "labbench" / "a.json"


@pytest.mark.usefixtures("macos")
def test_macos_uses_files_of_an_earlier_version_unless_newer_ones_exist(home: Path) -> None:
    earlier = home / ".local" / "state" / "labbench" / "a.json"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    (home / ".cache" / "labbench" / "mnist").mkdir(parents=True)
    assert state_path("a.json") == earlier
    assert cache_path("mnist") == home / ".cache" / "labbench" / "mnist"
    newer = home / "Library" / "Application Support" / "labbench"
    assert state_path("b.json") == newer / "b.json"
    newer.mkdir(parents=True)
    (newer / "a.json").touch()
    assert state_path("a.json") == newer / "a.json"
