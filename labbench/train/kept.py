"""`labbench.load_model`: the model that a run was asked to keep, ready to use."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from labbench.errors import InputError
from labbench.files import MODEL, files_folder, run_folder
from labbench.params import all_params, with_defaults
from labbench.store.reader import Reader
from labbench.train.imports import imports_of
from labbench.train.snapshots import read
from labbench.train.tasks import load_task, make_model


def load_model(run: str, *, db: Path | str | None = None, device: str = "cpu") -> nn.Module:
    """The kept model of a run (a key, the beginning of one, or a name), in eval mode.

    `db` is the database, else LABBENCH_DB, else runs.db. Raises InputError where the run kept none.
    """
    path = Path(db or os.environ.get("LABBENCH_DB") or "runs.db")
    with Reader(path) as reader:
        record = reader.find(run)
    file = run_folder(files_folder(path), record.key) / MODEL
    if not file.is_file():
        raise InputError(f'{record.name} ({record.key}) kept no model: [runtime] keep = "last" or "best" in its grid')
    with imports_of(record.task):
        task = load_task(record.task)
        model = make_model(task, with_defaults(record.config, all_params(task.params)))
    weights, _ = read(file, torch.device(device))
    model.load_state_dict(weights)
    return model.to(device).eval()
