"""`labbench.load_model`: the model that a run was asked to keep, ready to use."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from labbench.errors import InputError
from labbench.files import MODEL, default_database, files_folder, run_folder
from labbench.params.param import all_params, with_defaults
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.train.checkpoints import read_safetensors
from labbench.train.tasks.builtin import TASKS
from labbench.train.tasks.import_context import imports_of
from labbench.train.tasks.task import load_task, make_model
from labbench.trusted_tasks import is_trusted


def load_model(run: str, *, task: str | None = None, db: Path | str | None = None, device: str = "cpu") -> nn.Module:
    """The kept model of a run (a key, the beginning of one, or a name), in eval mode.

    `task` is the task that the run was trained with, `my.py:Task`. Without it the task is the one that the database
    names, if that is a built-in one or a file that `labbench run` of this user has run as it is now: no other file is
    run because a database says so. `db` is the database, else LABBENCH_DB, else runs.db.

    Raises:
        InputError: If the run kept no model, `task` is needed, or its model does not fit what the run kept.
    """
    path = Path(db or default_database())
    with Reader(path) as reader:
        record = reader.find(run)
    file = run_folder(files_folder(path), record.key) / MODEL
    if not file.is_file():
        raise InputError(f'{record.name} ({record.key}) kept no model: [runtime] keep = "last" or "best" in its grid')
    name = _recorded_task(record) if task is None else _absolute(task)
    with imports_of(name):
        its_task = load_task(name)
        model = make_model(its_task, with_defaults(record.config, all_params(its_task.params)))
    try:
        weights, _ = read_safetensors(file, torch.device(device))
        model.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(f"{file} does not fit the model of {name} ({reason}): give the task of the run") from error
    return model.to(device).eval()


def _recorded_task(record: RunRecord) -> str:
    """Return the task that the database names. Raises InputError unless it may be used on the database's word."""
    if record.task in TASKS:
        return record.task
    if is_trusted(record.task):
        return _absolute(record.task)
    raise InputError(
        f"{record.name} ({record.key}) was trained with {record.task!r}. No file is run because a database names it, "
        "unless `labbench run` of this user and release has run it from there as it is now. Say which file to run: "
        f'load_model("{record.key}", task="my.py:Task")'
    )


def _absolute(task: str) -> str:
    """Return the task with the whole path of its file."""
    file, colon, name = task.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{name}" if colon else task
