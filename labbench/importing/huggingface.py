"""Import of the training state that the Trainer of Hugging Face's transformers saves, from all checkpoints of a run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.importing.source_run import FoundRun, RunCollector, RunFolder, SourceRun, no_runs_error
from labbench.system.secret_options import MASK, is_secret

_STATE_FILE = "trainer_state.json"
_ARGUMENTS_FILE = "training_args.bin"
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_MAX_ARGUMENTS_BYTES = 1 << 20


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs beneath a folder: each folder with `trainer_state.json` or with checkpoints that have it.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        folder = RunFolder(path.parent, path.parent)
        yield FoundRun(folder.label, partial(_read_run, folder, [path]), [path])
        return
    states: dict[Path, list[Path]] = {}
    for parent, subfolders, names in os.walk(path):
        subfolders.sort()
        if _STATE_FILE in names:
            run = Path(parent)
            if _CHECKPOINT.fullmatch(run.resolve().name) and run.resolve() != path.resolve():
                run = run.parent
            states.setdefault(run, []).append(Path(parent, _STATE_FILE))
    if not states:
        raise no_runs_error(path, _STATE_FILE)
    for run, files in states.items():
        folder = RunFolder(path, run)
        yield FoundRun(folder.label, partial(_read_run, folder, files), files)


def _read_run(folder: RunFolder, files: Sequence[Path]) -> SourceRun:
    """Merge the logs of all checkpoints; where they differ, that with the largest step counts."""
    states = sorted(((_read_state(file), file) for file in files), key=lambda pair: _number(pair[0].get("global_step")))
    points = RunCollector()
    entries = [entry for state, _ in states for entry in state["log_history"] if isinstance(entry, dict)]
    for entry in entries:
        step = entry.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            points.skipped["log entries without a step"] += 1
            continue
        points.add_values({_metric_name(key): value for key, value in entry.items() if key != "step"}, step)
    state, _ = states[-1]
    arguments = next(filter(None, (read_arguments(file.parent) for _, file in reversed(states))), {})
    mark = _mark(entries[:1])
    is_over = _number(state.get("global_step")) >= _number(state.get("max_steps"))
    return SourceRun(
        id=folder.id(mark),
        name=folder.label,
        experiment=folder.experiment,
        series=points.series(),
        config={**arguments, **(state.get("trial_params") or {})},
        status="finished" if is_over else "stopped",
        reason=None if is_over else f"at step {state.get('global_step')} of {state.get('max_steps')}",
        skipped=points.skipped,
        earlier_id=folder.earlier_id(mark),
        other_ids=folder.other_ids(mark, _mark([])),
    )


def _mark(entries: Sequence[Any]) -> str:
    """Return a hash of the first log entry, or of none: a state may be saved before anything is logged."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _read_state(file: Path) -> dict[str, Any]:
    """Return the content of a state file. Raises InputError if it is none."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON document: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise InputError(f"{file}: no list `log_history`; not a trainer state")
    return state


def _metric_name(key: str) -> str:
    """Return the name under which the Trainer's own callbacks for other trackers log a value."""
    if key == "epoch":
        return key
    for prefix in ("eval", "test"):
        if key.startswith(f"{prefix}_"):
            return f"{prefix}/{key.removeprefix(f'{prefix}_')}"
    return f"train/{key}"


class _Stub:
    """Instance of any class in a pickle; takes its state and runs none of its code."""

    _arguments: tuple[object, ...] = ()

    def __new__(cls, *arguments: object) -> _Stub:
        stub = super().__new__(cls)
        stub._arguments = arguments
        return stub

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            self.__dict__.update(state)


class _StubUnpickler(pickle.Unpickler):
    """Unpickler that finds no class or function: each one is `_Stub`, so that nothing of the file is executed."""

    def find_class(self, module: str, name: str) -> type[_Stub]:
        return _Stub

    def persistent_load(self, pid: object) -> None:
        return None  # a tensor


def read_arguments(folder: Path) -> dict[str, Any]:
    """Return the `TrainingArguments` saved in a folder, without secrets; empty if there are none that can be read.

    `training_args.bin` is a pickle in a zip archive. Its classes are replaced by stubs.
    """
    try:
        with zipfile.ZipFile(folder / _ARGUMENTS_FILE) as archive:
            [member] = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if member.file_size > _MAX_ARGUMENTS_BYTES:
                return {}
            with archive.open(member) as file:
                arguments = _StubUnpickler(file).load()
        values = {key: _plain(value) for key, value in vars(arguments).items() if not key.startswith("_")}
    except Exception:  # a damaged or hostile pickle may raise anything
        return {}
    return {
        key: MASK if is_secret(key) else value for key, value in values.items() if value is not None and value != ""
    }


def _plain(value: object) -> Any:
    """Return a value of a JSON document: an enumeration is its value, an unknown object is None."""
    if isinstance(value, _Stub):
        return _plain(value._arguments[0]) if len(value._arguments) == 1 else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else None
