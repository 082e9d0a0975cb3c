"""Reading calls of W&B: `use_artifact` and `restore`, from the same database; the others raise an error."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

from labbench.errors import InputError
from labbench.files import database_command, files_folder, run_folder
from labbench.tracking.artifacts import relative_name
from labbench.tracking.run import Run
from labbench.wandb.artifact_versions import LATEST, Version, VersionList, read_versions
from labbench.wandb.ignored import Error, refuse_reading


class NotRecorded(Error, InputError, ValueError):
    """A file or artifact is not in the database; W&B raises a ValueError or a CommError."""


class UsedArtifact:
    """Version of an artifact in this database, as `run.use_artifact("model:best")` returns it."""

    def __init__(self, name: str, number: int, versions: VersionList, folder: Path) -> None:
        version = versions.versions[number]
        self.name, self.version = f"{name}:v{number}", f"v{number}"
        self.type, self.description, self.metadata = version.type, version.description, version.metadata
        self.aliases = [alias for alias, named in versions.aliases.items() if named == number]
        self._files = {  # names and paths of a pack of others may not leave the folders
            relative_name(file_name): Path(file.path)
            if Path(file.path).is_absolute()
            else folder / relative_name(file.path)
            for file_name, file in version.files.items()
        }

    def download(self, root: str | None = None, **ignored: Any) -> str:
        """Copy the files to a folder, `artifacts/NAME:vN` by default, and return its path.

        Raises:
            NotRecorded: If a file is no longer there.
        """
        folder = Path(root or Path("artifacts", self.name))
        for name, path in self._files.items():
            if not path.is_file():
                raise NotRecorded(f"artifact {self.name}: the file {path} does not exist")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        return str(folder)

    def file(self, root: str | None = None) -> str:
        """Copy the only file to a folder and return its path.

        Raises:
            NotRecorded: If the artifact has several files, or the file is no longer there.
        """
        if len(self._files) != 1:
            raise NotRecorded(f"artifact {self.name} has {len(self._files)} files; download() copies all of them")
        return str(Path(self.download(root), *self._files))

    def wait(self, timeout: int | None = None) -> UsedArtifact:
        """Return the artifact."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return refuse_reading(f"wandb.Artifact.{name}")()


def find_artifact(run: Run, word: str) -> UsedArtifact:
    """Return the newest version of an artifact with a name such as `model:best` or `my-team/mnist/model:v1`.

    It may be recorded by any run of the database; the project, by default the experiment of `run`, takes precedence.

    Raises:
        NotRecorded: If no run has recorded it.
    """
    from labbench.store.reader import Reader  # imported on first use

    *places, name = word.split("/")
    name, _, label = name.partition(":")
    experiment = places[-1] if places else run.experiment
    candidates: list[tuple[bool, float, UsedArtifact]] = []
    run.flush()
    with Reader(run.path) as reader:
        runs = [] if run._writer_thread.discards else reader.runs(summaries=False)
    for record in runs:
        folder = run_folder(files_folder(run.path), record.key)
        versions = read_versions(folder, name)
        number = versions.find(label or LATEST)
        if number is not None:
            created = max(_times(versions.versions[number]), default=0.0)
            artifact = UsedArtifact(name, number, versions, folder)
            candidates.append((record.experiment == experiment, created, artifact))
    if not candidates:
        raise NotRecorded(
            f"no run in {run.path} has recorded the artifact {name}:{label or LATEST}; "
            "`run.log_artifact` records one; imported runs have none"
        )
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def _times(version: Version) -> list[float]:
    return [file.created for file in version.files.values()]


def restore_file(run: Run, name: str, run_path: str | None) -> IO[str]:
    """Open a file that a run has recorded: the run with the id, key or name at the end of `run_path`, else `run`.

    Raises:
        NotRecorded: If the run or the file does not exist.
    """
    from labbench.store.reader import Reader  # imported on first use

    word = run_path.split("/")[-1] if run_path else run.key
    if run._writer_thread.discards:
        raise NotRecorded(f"wandb.restore: the run records nothing, so it has no file {name}")
    run.flush()
    with Reader(run.path) as reader:
        key = reader.find(word).key
        paths = {artifact.name: artifact.path for artifact in reader.artifacts(key)}
    path = run_folder(files_folder(run.path), key) / paths.get(name, name)
    if name not in paths or not path.is_file():
        raise NotRecorded(
            f"wandb.restore: run {key} has no file {name}; `{database_command(run.path)} show {key}` lists them"
        )
    return path.open()
