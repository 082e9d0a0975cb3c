"""`wandb.run`: a run with the attributes and methods of W&B's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from labbench.configs import flatten
from labbench.errors import InputError
from labbench.files import files_folder, run_folder
from labbench.messages import warn_once
from labbench.tracking import process_hooks
from labbench.tracking.run import Run
from labbench.tracking.values import to_step
from labbench.wandb.ignored import Ignored, ignore, refuse_reading
from labbench.wandb.logged_files import Artifact, Image, SavedFiles, record_artifact
from labbench.wandb.reading import find_artifact, restore_file
from labbench.wandb.wandb_config import WandbConfig
from labbench.wandb.wandb_summary import WandbSummary

_GOALS = {"min": "min", "minimize": "min", "max": "max", "maximize": "max"}


class WandbRun:
    """Run that records with labbench.

    It has the attributes of `labbench.Run`, and of W&B's runs those that labbench records; any other one does nothing,
    with one warning.
    """

    def __init__(self, run: Run, id: str | None = None) -> None:
        self.labbench_run = run
        self.id = id or run._writer_thread.run.external_id or run.key
        self.config = WandbConfig(run.config)
        self.summary = WandbSummary(run)
        self.project, self.entity, self.url = run.experiment, "", ""
        self._step = max(run._first_step, run._writer_thread.last_step + 1)
        self._saved_files: SavedFiles | None = None
        self._dir: str | None = None

    @property
    def name(self) -> str:
        """Name of the run, which may be changed."""
        return self.labbench_run.name

    @name.setter
    def name(self, name: str) -> None:
        self.labbench_run.rename(name)

    @property
    def notes(self) -> str | None:
        """Note of the run."""
        return self.labbench_run._writer_thread.run.note

    @notes.setter
    def notes(self, text: str) -> None:
        self.labbench_run.note(text)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the run; an assignment adds tags and removes none."""
        return self.labbench_run._writer_thread.run.tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        self.labbench_run.tag(*(tag for tag in tags if tag not in self.tags))

    @property
    def step(self) -> int:
        """Step at which `log` records without a step: the number of such calls, or the largest step of a call."""
        return self._step

    @property
    def resumed(self) -> bool:
        """True if the run is continued, with the points of its earlier attempts."""
        return self.labbench_run.resumed

    @property
    def dir(self) -> str:
        """Folder whose files become artifacts at the end of the run."""
        if self._dir is None:
            run = self.labbench_run
            if run._writer_thread.discards:
                self._dir = tempfile.mkdtemp(prefix="labbench-disabled-")
            else:
                folder = run_folder(files_folder(run.path), run.key) / "files"
                folder.mkdir(parents=True, exist_ok=True)
                self._dir = str(folder)
                run._close_with_run(_FilesOfFolder(run, folder))
        return self._dir

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, **ignored: Any) -> None:
        """Record numbers and images by name; the keys of nested dicts are joined with `.`, as W&B shows them.

        A figure of matplotlib is recorded as an image, the last text of a key as the key `summary/KEY` of the config.

        Steps are counted as by W&B: a call without a step is recorded at `self.step`, which then rises by 1 unless
        `commit` is False. A larger step becomes `self.step`, which then rises by 1 if `commit` is True. A smaller one
        is recorded with a warning.

        Raises:
            InputError: In a strict run, if a value cannot be recorded or the run has ended.
        """
        explicit_step = None if step is None else to_step(step, self.labbench_run._writer_thread.problems)
        at = self._step if explicit_step is None else explicit_step
        if at < self._step:
            warn_once(
                f"wandb.log: the step {at} is before the last one, {self._step}; "
                "W&B drops such values, labbench records them"
            )
        values = {key: value for key, item in flatten(data) if not _is_unrecorded(value := _to_image(item))}
        if texts := {key: value for key, value in values.items() if isinstance(value, str)}:
            self.summary._log_texts(texts)
            values = {key: value for key, value in values.items() if key not in texts}
        if values:
            self.labbench_run.log(values, at)
        is_complete = step is None if commit is None else commit
        self._step = max(at, self._step) + is_complete

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run; an exit code other than 0 records a failure."""
        self.labbench_run.finish(exit_code or 0)

    join = finish

    def define_metric(
        self, name: str, step_metric: Any = None, *, summary: str | None = None, goal: str | None = None, **ignored: Any
    ) -> Ignored:
        """Declare the goal of a metric by `goal`, or by the summary "min" or "max".

        With such a summary, `summary[name]` is this value, also for a pattern such as `val/*`; goals have no effect on
        patterns, and other arguments none at all.
        """
        if step_metric is not None and str(getattr(step_metric, "name", step_metric)) != name:
            warn_once(
                "wandb.define_metric: step_metric has no effect in labbench: metrics are recorded over the steps of log"
            )
        if statistic := next((word for word in (summary or "").split(",") if word in ("min", "max")), None):
            self.summary._statistics[name] = statistic
        words = [*(summary or "").split(","), goal or ""]
        direction = next((_GOALS[word] for word in reversed(words) if word in _GOALS), None)
        if direction is not None and "*" in name:
            warn_once(f"wandb.define_metric: goals of patterns such as {name} have no effect in labbench")
        elif direction is not None:
            self.labbench_run.define_metric(name, "min" if direction == "min" else "max")
        return Ignored("wandb.define_metric")

    def log_artifact(
        self,
        artifact_or_path: Any,
        name: str | None = None,
        type: str | None = None,
        aliases: Iterable[str] | None = None,
        **ignored: Any,
    ) -> Artifact:
        """Record a version of an artifact, a file or a folder, with copies of its files beside the database."""
        artifact = artifact_or_path
        if not isinstance(artifact, Artifact):
            path = Path(artifact_or_path)
            artifact = Artifact(name or path.name, type or "unspecified")
            artifact.paths["" if path.is_dir() else path.name] = path
        record_artifact(self.labbench_run, artifact, [aliases] if isinstance(aliases, str) else aliases or ())
        return artifact

    def use_artifact(self, artifact_or_name: Any, *others: Any, **ignored: Any) -> Any:
        """Return an artifact that a run of this database has recorded: `run.use_artifact("model:best").download()`.

        An artifact that the script has made is recorded.

        Raises:
            NotRecorded: If no run has recorded it.
        """
        if isinstance(artifact_or_name, Artifact):
            return self.log_artifact(artifact_or_name)
        return find_artifact(self.labbench_run, str(artifact_or_name))

    def restore(self, name: str, run_path: str | None = None, *others: Any, **ignored: Any) -> IO[str]:
        """Open a file that this run, or the run with the id at the end of `run_path`, has recorded.

        Raises:
            NotRecorded: If the run or the file does not exist.
        """
        return restore_file(self.labbench_run, name, run_path)

    use_model = staticmethod(refuse_reading("wandb.run.use_model"))

    def save(self, glob_str: Any = None, base_path: Any = None, policy: str = "live") -> list[str]:
        """Record the files that match a pattern, now and, if they change, at the end; return their paths."""
        if glob_str is None:
            return []
        if self._saved_files is None:
            self._saved_files = SavedFiles(self.labbench_run)
            self.labbench_run._close_with_run(self._saved_files)
        return self._saved_files.add(str(glob_str), None if base_path is None else str(base_path))

    def __enter__(self) -> WandbRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.labbench_run.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "labbench_run":
            raise AttributeError(name)
        return getattr(self.labbench_run, name) if hasattr(self.labbench_run, name) else ignore(f"wandb.run.{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return WandbRun, (self.labbench_run, self.id)

    def __repr__(self) -> str:
        return repr(self.labbench_run)


class _FilesOfFolder:
    """Folder whose files are recorded when the run ends."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run, self._folder = run, folder

    def close(self) -> None:
        if any(self._folder.iterdir()):
            self._run.artifact(self._folder, name="files")


def _to_image(value: Any) -> Any:
    """Return a figure of matplotlib, or the module `pyplot`, as an image; any other value unchanged."""
    is_figure = not isinstance(value, Ignored) and callable(getattr(value, "savefig", None))
    return Image(value) if is_figure else value


def _is_unrecorded(value: Any) -> bool:
    """Return True for values that are not recorded, as a warning has said already."""
    if isinstance(value, list | tuple) and value:
        return all(_is_unrecorded(each) for each in value)
    return isinstance(value, Ignored) or (isinstance(value, Image) and not value.is_valid)


_newest: WandbRun | None = None


def wrap(run: Run, id: str | None = None) -> WandbRun:
    """Return the `WandbRun` of a run, the same one for the run of the last call."""
    global _newest
    if _newest is None or _newest.labbench_run is not run:
        _newest = WandbRun(run, id)
    return _newest


def current_run() -> WandbRun | None:
    """Return the newest open run; None without one."""
    run = process_hooks.newest_run()
    return wrap(run) if isinstance(run, Run) else None


def require_run() -> WandbRun:
    """Return the newest open run, or the one that ended last.

    Raises:
        InputError: If no run was started.
    """
    run = process_hooks.newest_run() or process_hooks.last_ended_run()
    if not isinstance(run, Run):
        raise InputError("no run is open: call wandb.init() first")
    return wrap(run)
