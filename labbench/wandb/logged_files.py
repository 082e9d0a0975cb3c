"""`wandb.Image`, `wandb.Artifact` and the files of `wandb.save`."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from labbench.errors import InputError
from labbench.messages import warn_once
from labbench.tracking.images import Image as TrackedImage
from labbench.tracking.run import Run
from labbench.wandb.artifact_versions import Version, read_version_files, record_version
from labbench.wandb.ignored import ignore, refuse_reading


class Image(TrackedImage):
    """Image for `wandb.log`; data that is no image is left out with a warning."""

    def __init__(self, data_or_path: Any, *others: Any, caption: str | None = None, **ignored: Any) -> None:
        self.caption = caption
        self.is_valid = True
        for kind in ("masks", "boxes", "classes"):
            if ignored.get(kind):
                warn_once(f"wandb.Image: {kind} are not recorded by labbench, only the image")
        if caption:
            warn_once("wandb.Image: captions are not recorded by labbench, only the image")
        try:
            super().__init__(data_or_path.pixels if isinstance(data_or_path, TrackedImage) else data_or_path)
        except Exception as error:  # drawing a figure may raise anything, which must not end the training
            self.is_valid = False
            warn_once(f"wandb.Image is not recorded: {error}")


class Artifact:
    """Files that are recorded together by `run.log_artifact`, with copies beside the database."""

    def __init__(
        self,
        name: str,
        type: str,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **ignored: Any,
    ) -> None:
        self.name, self.type, self.description = name, type, description
        self.metadata: dict[str, Any] = dict(metadata or {})
        """Recorded in `NAME:versions.json`."""
        self.version: str | None = None
        """Number of the version, such as `v0`, once the artifact was logged."""
        self.paths: dict[str, Path] = {}
        """File or folder by its name in the artifact, empty for a folder that is the artifact."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add_file(self, local_path: Any, name: str | None = None, **ignored: Any) -> None:
        """Add a file."""
        path = Path(local_path)
        self.paths[name or path.name] = path

    def add_dir(self, local_path: Any, name: str | None = None, **ignored: Any) -> None:
        """Add the files of a folder."""
        self.paths[name or ""] = Path(local_path)

    @contextmanager
    def new_file(self, name: str, mode: str = "w", encoding: str | None = None) -> Iterator[IO[Any]]:
        """Open a new file of the artifact for writing."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="labbench-artifact-")
        path = Path(self._folder.name, *(part for part in name.split("/") if part not in ("", ".", "..")))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding=encoding) as file:
            yield file
        self.paths[name] = path

    def wait(self, timeout: int | None = None) -> Artifact:
        """Return the artifact, which is recorded already."""
        return self

    def __setitem__(self, name: str, value: Any) -> None:
        ignore("wandb.Artifact.__setitem__")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _READING:
            return refuse_reading(f"wandb.Artifact.{name}")
        return ignore(f"wandb.Artifact.{name}")


_READING = frozenset(["download", "checkout", "file", "files", "get", "get_entry", "get_path", "verify"])


def record_artifact(run: Run, artifact: Artifact, aliases: Iterable[str]) -> None:
    """Record a version of an artifact; a file that cannot be read is left out with a warning."""
    if run._writer_thread.discards:
        return
    version = Version(
        read_version_files(artifact.paths, run), artifact.type, artifact.description, dict(artifact.metadata)
    )
    try:
        number = record_version(run, artifact.name, version, aliases)
    except InputError as error:
        warn_once(str(error))
    else:
        artifact.version = None if number is None else f"v{number}"


def record_file(run: Run, path: Path, name: str) -> None:
    """Record a file or folder with a copy beside the database; a warning is printed if it cannot be read."""
    try:
        run.artifact(path, copy=True, name=name)
    except InputError as error:
        warn_once(str(error))


class SavedFiles:
    """Files of `wandb.save`, recorded at once and, if they have changed, again at the end of the run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._patterns: dict[str, Path | None] = {}
        self._recorded: set[tuple[Path, int, int]] = set()

    def add(self, pattern: str, base_path: str | None) -> list[str]:
        """Record the files that match a pattern, and return their paths; names are relative to `base_path`."""
        self._patterns[pattern] = Path(base_path).absolute() if base_path else None
        return self._record(pattern)

    def close(self) -> None:
        """Record the files that are new or have changed."""
        for pattern in self._patterns:
            self._record(pattern)

    def _record(self, pattern: str) -> list[str]:
        base = self._patterns[pattern]
        paths = [Path(path).absolute() for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
        for path in filter(Path.exists, paths):
            status = path.stat()
            state = (path, status.st_size, status.st_mtime_ns)
            if state not in self._recorded:
                self._recorded.add(state)
                is_beneath = base is not None and path.is_relative_to(base)
                record_file(self._run, path, str(path.relative_to(base)) if base and is_beneath else path.name)
        return [str(path) for path in paths]
