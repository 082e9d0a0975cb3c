"""`wandb.init`, `log`, `finish` and `login`."""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.messages import warn_once
from labbench.tracking.config import read_config
from labbench.tracking.run import Run, shared_run
from labbench.tracking.start import attached_run, start
from labbench.wandb.ignored import Ignored
from labbench.wandb.wandb_run import WandbRun, current_run, require_run, wrap

_WITHOUT_EFFECT = frozenset(
    [
        "allow_val_change", "anonymous", "config_exclude_keys", "config_include_keys", "dir", "entity", "force",
        "fork_from", "magic", "reinit", "resume_from", "save_code",
    ]
)  # fmt: skip
"""Keywords of `wandb.init` that are dropped silently: they concern the server, or what labbench always does."""

_ID_CHARACTERS = string.ascii_lowercase + string.digits


class Settings:
    """Settings of `wandb.init`.

    labbench uses `mode`, `project`, `console`, `run_name`, `run_id`, `run_notes`, `run_group` and `run_job_type`.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    config: Any = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    id: Any = None,
    resume: str | bool | None = None,
    mode: str | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **others: Any,
) -> WandbRun:
    """Start a run with the signature of `wandb.init`; a run that is still open is finished first.

    `config` may be the path of a YAML file. `project` becomes the experiment; `group` and `job_type` become keys of the
    recorded config, unless it has them. Printed lines are recorded, unless the console is "off". The variables
    WANDB_PROJECT, _NAME, _NOTES, _TAGS, _RUN_ID, _RUN_GROUP, _JOB_TYPE, _RESUME, _MODE and _CONSOLE are the defaults.

    Raises:
        InputError: If the database or the file of the configuration cannot be opened, or a run cannot be resumed.
    """
    defaults = settings if isinstance(settings, Mapping) else vars(settings) if isinstance(settings, Settings) else {}
    id = id or defaults.get("run_id") or _variable("RUN_ID")
    rule = resume_rule(id, resume or _variable("RESUME"))
    _warn_of_ignored(others)
    finish()
    is_joined = attached_run() is not None or shared_run() is not None
    run_id = str(id) if id is not None else None if is_joined else generate_id()
    run = start(
        name or defaults.get("run_name") or _variable("NAME"),
        experiment=project or defaults.get("project") or _variable("PROJECT"),
        config=_read_config(config) if isinstance(config, str | os.PathLike) else config,
        tags=_all_tags(tags),
        note=notes or defaults.get("run_notes") or _variable("NOTES"),
        id=run_id,
        resume=rule,
        mode=mode or defaults.get("mode") or _variable("MODE"),
        capture_output=(defaults.get("console") or _variable("CONSOLE")) != "off",
    )
    return _wrap(run, run_id, _group_keys(others, defaults), allows_changes=bool(others.get("allow_val_change")))


def _wrap(run: Run, id: str | None, group_keys: Mapping[str, str], *, allows_changes: bool) -> WandbRun:
    wandb_run = wrap(run, id)
    wandb_run.config._add_hidden(group_keys)
    wandb_run.config._restrict(_grid_keys(), allows_changes=allows_changes)
    return wandb_run


def _grid_keys() -> frozenset[str]:
    """Return the keys of the configuration that a grid gives this process."""
    config_file = os.environ.get("LABBENCH_CONFIG") if attached_run() else None
    return frozenset(read_config(config_file)) if config_file else frozenset()


def _read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the configuration in a YAML file of W&B: a value, or `value` beside `desc`, by key. Raises InputError."""
    from labbench.importing.file_types.yaml_file import read_yaml_mapping  # imports yaml

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file with a configuration")
    entries = read_yaml_mapping(Path(path)).items()
    return {key: entry["value"] if isinstance(entry, dict) and "value" in entry else entry for key, entry in entries}


def resume_rule(id: object, resume: str | bool | None) -> str | None:
    """Return `resume` of `labbench.start` for `id` and `resume` of `wandb.init`.

    True and "auto" are "allow". Without an id, they continue the run that `labbench run` started this process for, and
    have no effect in another process, which prints a warning.
    """
    is_automatic = resume is True or resume == "auto"
    if not resume:
        return None
    if id is not None:
        return "allow" if is_automatic else str(resume)
    if attached_run() is None:
        warn_once("wandb.init: resume has no effect without id")
    return attached_run() if is_automatic else None


def _all_tags(tags: Iterable[str] | None) -> list[str]:
    """Return the tags; default: WANDB_TAGS."""
    words = [tags] if isinstance(tags, str) else tags or (_variable("TAGS") or "").split(",")
    return [word for word in words if word]


def _group_keys(keywords: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `group` and `job_type`, as far as they are set."""
    values = {
        "group": keywords.get("group") or settings.get("run_group") or _variable("RUN_GROUP"),
        "job_type": keywords.get("job_type") or settings.get("run_job_type") or _variable("JOB_TYPE"),
    }
    return {key: str(value) for key, value in values.items() if value}


def _variable(name: str) -> str | None:
    return os.environ.get(f"WANDB_{name}") or None


def _warn_of_ignored(keywords: Mapping[str, Any]) -> None:
    names = [key for key, value in keywords.items() if key not in {*_WITHOUT_EFFECT, "group", "job_type"} and value]
    if names:
        warn_once(f"wandb.init: {', '.join(sorted(names))} have no effect in labbench")


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, **ignored: Any) -> None:
    """Log to the newest open run, see `WandbRun.log`.

    Raises:
        InputError: If no run was started.
    """
    require_run().log(data, step, commit)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """End the newest open run, if any; an exit code other than 0 records a failure."""
    run = current_run()
    if run is not None:
        run.finish(exit_code)


def login(*args: Any, **kwargs: Any) -> bool:
    """Return True: there is no server; a key is neither used nor stored."""
    return True


def setup(*args: Any, **kwargs: Any) -> Ignored:
    """Do nothing: labbench needs no setup."""
    return Ignored("wandb.setup")


def generate_id(length: int = 8) -> str:
    """Return a random id for a run."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(length))
