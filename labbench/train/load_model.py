"""`labbench.load_model`: load the model that a run kept."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from labbench.errors import InputError
from labbench.files import MODEL, default_database, expand_home, files_folder, run_folder
from labbench.params.param import all_params, with_defaults
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.train.checkpoints import read_safetensors
from labbench.train.tasks.builtin import TASKS
from labbench.train.tasks.import_context import imports_of
from labbench.train.tasks.task import load_task, make_model
from labbench.trusted_tasks import is_trusted


def load_model(run: str, *, task: str | None = None, db: Path | str | None = None, device: str = "cpu") -> nn.Module:
    """Return the model that a run kept, in eval mode.

    Args:
        run: The run's key, the beginning of its key, or its name.
        task: The task that the run was trained with, such as `my.py:Task`. The default is the task named in the
            database, if it is built in, or a file that this user has run with `labbench run` and that has not changed
            since. No other file is executed just because a database names it.
        db: Path of the database; by default LABBENCH_DB, else runs.db.
        device: torch device of the model.

    Raises:
        InputError: If no run matches, the run kept no model, `task` is needed, or the task's model does not fit the
            kept weights.
    """
    path = expand_home(db or default_database())
    with Reader(path) as reader:
        record = reader.find(run)
    file = run_folder(files_folder(path), record.key) / MODEL
    if not file.is_file():
        raise InputError(
            f"{record.name} ({record.key}) kept no model; to keep one, set "
            'keep = "last", "best" or "resume" under [runtime] in its grid file'
        )
    name = _require_trusted_task(record) if task is None else _with_absolute_path(task)
    with imports_of(name):
        task_object = load_task(name)
        model = make_model(task_object, with_defaults(record.config, all_params(task_object.params)))
    try:
        weights, _ = read_safetensors(file, torch.device(device))
        model.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(
            f"{file} does not fit the model of {name} ({reason}); pass the task that the run was trained with as task="
        ) from error
    return model.to(device).eval()


def _require_trusted_task(record: RunRecord) -> str:
    """Return the task named in the database; raise InputError unless it is built in or trusted."""
    if record.task in TASKS:
        return record.task
    if is_trusted(record.task):
        return _with_absolute_path(record.task)
    raise InputError(
        f"{record.name} ({record.key}) was trained with {record.task!r}, which is not trusted: a file named in a "
        "database is executed only if `labbench run` of this user and release has run it and it has not changed since. "
        f'Name the file to run: load_model("{record.key}", task="my.py:Task")'
    )


def _with_absolute_path(task: str) -> str:
    """Return the task with the absolute path of its file."""
    file, colon, name = task.rpartition(":")
    return f"{expand_home(file).resolve()}:{name}" if colon else task
