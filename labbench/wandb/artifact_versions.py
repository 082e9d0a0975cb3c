"""Versions of W&B's artifacts: files `model:v0/FILE`, `model:v1/FILE`, and `model:versions.json`, which lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.files import files_folder, run_folder, write_atomically
from labbench.messages import warn_once
from labbench.records import Artifact as RecordedFile
from labbench.tracking.artifacts import copy_file, record_files, relative_name
from labbench.tracking.run import Run

MAX_BYTES = 10 * 2**30
"""Total size of the versions of an artifact above which a version without an alias is replaced by the next one."""

LATEST = "latest"
"""Alias of the newest version, whose files are also recorded as `model/FILE`."""

_ROOT = "files"
_NUMBER = re.compile(r"v(\d+)")


@dataclass
class Version:
    """Content of one version of an artifact."""

    files: dict[str, RecordedFile]
    """Files by their names in the artifact."""
    type: str = ""
    description: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {name: file.sha256 for name, file in self.files.items()}


@dataclass
class VersionList:
    """Versions of one artifact of a run, oldest first, and the number of the version that each alias names."""

    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)

    def find(self, label: str) -> int | None:
        """Return the number of the version with an alias or a number, such as `v1`; None without one."""
        number = _NUMBER.fullmatch(label)
        if number is None:
            return self.aliases.get(label)
        return int(number[1]) if int(number[1]) < len(self.versions) else None

    def find_content(self, digests: dict[str, str]) -> int | None:
        """Return the number of the version with these files; None without one."""
        numbers = [number for number, version in enumerate(self.versions) if version.digests() == digests]
        return numbers[-1] if numbers else None

    def next_number(self) -> int:
        """Return the number of a new version: the newest one if that is to be replaced, see `MAX_BYTES`."""
        newest = len(self.versions) - 1
        sizes = {file.sha256: file.size for version in self.versions for file in version.files.values()}
        names = [alias for alias, number in self.aliases.items() if number == newest and alias != LATEST]
        return newest if sum(sizes.values()) > MAX_BYTES and not names else newest + 1


def record_version(run: Run, name: str, version: Version, aliases: Iterable[str]) -> int | None:
    """Record a version of an artifact in a run, and return its number; None without files.

    Equal content is one version, and a file with the content of an earlier one is stored once.

    Args:
        version: Version with the paths of the files to record.
        aliases: Names of this version, which no longer name an earlier one.
    """
    if not version.files:
        return None
    name = relative_name(name)
    folder = run_folder(files_folder(run.path), run.key)
    known = read_versions(folder, name)
    number = known.find_content(version.digests())
    if number is None:
        number = known.next_number()
        if number < len(known.versions):
            warn_once(
                f"the versions of the artifact {name} take more than {MAX_BYTES / 2**30:g} GiB: "
                "from now on a version without an alias of its own is replaced by the next one"
            )
        stored = {file.sha256: file for earlier in known.versions[:number] for file in earlier.files.values()}
        known.versions[number:] = [_store(version, f"{name}:v{number}", stored, folder)]
    else:
        version.files = known.versions[number].files
        known.versions[number] = version
    names = [alias for alias in aliases if not _NUMBER.fullmatch(alias)]
    known.aliases |= dict.fromkeys([*names, LATEST], number)
    records = [
        replace(file, name=f"{label}/{file_name}")
        for label in (f"{name}:v{number}", name)
        for file_name, file in known.versions[number].files.items()
    ]
    run._add_artifacts([*records, *_write_versions(run, folder, name, known)])
    return number


def read_version_files(paths: dict[str, Path], run: Run) -> dict[str, RecordedFile]:
    """Return the files at paths, which may be folders, by their names in the artifact; others cause a warning."""
    files: dict[str, RecordedFile] = {}
    for name, path in paths.items():
        try:
            records = record_files(path, run.path, run.key, copy=False, name=f"{_ROOT}/{name}")
        except InputError as error:
            warn_once(str(error))
        else:
            files |= {record.name.removeprefix(f"{_ROOT}/"): record for record in records}
    return files


def read_versions(folder: Path, name: str) -> VersionList:
    """Read the versions of an artifact from the folder of a run; none if there is no list that can be read."""
    try:
        content = json.loads(_list_file(folder, name).read_text(encoding="utf-8"))
        versions = [
            Version(**{**entry, "files": {key: RecordedFile(**file) for key, file in entry["files"].items()}})
            for entry in content["versions"]
        ]
        numbers = range(len(versions))
        return VersionList(
            versions, {alias: number for alias, number in content["aliases"].items() if number in numbers}
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return VersionList()


def _list_file(folder: Path, name: str) -> Path:
    return folder / f"{name}:versions.json"


def _store(version: Version, label: str, stored: dict[str, RecordedFile], folder: Path) -> Version:
    """Return a version with copies of its files in the folder of a run, which `stored` has for some contents."""
    files = {}
    for name, file in version.files.items():
        earlier = stored.get(file.sha256)
        files[name] = earlier or copy_file(replace(file, name=f"{label}/{name}"), folder)
    return replace(version, files=files)


def _write_versions(run: Run, folder: Path, name: str, known: VersionList) -> list[RecordedFile]:
    """Write the list of the versions of an artifact, and return its record."""
    path = _list_file(folder, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(json.dumps(asdict(known), default=str, indent=1).encode())
        [record] = record_files(path, run.path, run.key, copy=False, name=path.name)
    except (OSError, InputError) as error:
        warn_once(f"the versions of the artifact {name} could not be listed: {error}")
        return []
    return [replace(record, name=path.relative_to(folder).as_posix(), path=path.relative_to(folder).as_posix())]
