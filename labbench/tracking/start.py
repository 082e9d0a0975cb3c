"""`labbench.start()`: start a new run, resume one, or attach to the run of `labbench run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.files import default_database, expand_home
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.tracking.config import plain_config, read_config
from labbench.tracking.monitor import RunMonitor
from labbench.tracking.run import Run, start_on_monotonic_clock
from labbench.tracking.writer_thread import RunWriterThread


def start(
    name: str | None = None,
    *,
    experiment: str | None = None,
    config: Any = None,
    tags: Iterable[str] = (),
    note: str | None = None,
    db: str | os.PathLike[str] | None = None,
    resume: str | None = None,
    capture_output: bool = False,
    system_metrics: bool = True,
) -> Run:
    """Start recording a training run: `with labbench.start("baseline", config={"lr": 0.1}) as run: run.log(...)`.

    In a process that `labbench run` started, attach to the run of that process and use its config; `name`,
    `experiment`, `db` and `resume` are ignored.

    Args:
        name: Name of the run; default: `EXPERIMENT-N` with the first free number.
        experiment: Name of the experiment; default: the name of the script or, with `python -m`, of the module;
            `interactive` in a notebook.
        config: A mapping (nested or flat), a namespace, a dataclass, or an object of OmegaConf, pydantic or attrs.
        tags: Tags of the run, or one tag as a string.
        note: Note of the run.
        db: Path of the database, created if it does not exist; default: `LABBENCH_DB`, else `runs.db`.
        resume: Key or name of a script's run that has ended. Its next attempt continues after the last step, or at
            the first step that it logs; earlier points from that step on are deleted. Name and experiment are kept.
        capture_output: Record the script's output.
        system_metrics: Record the use of CPU, memory and GPUs every 5 s.

    Raises:
        InputError: If the database cannot be opened, the run cannot be resumed, or an argument is invalid.
    """
    settings = plain_config(config)
    tags = _tag_texts(tags)
    script = _main_script()
    attach_key = os.environ.get("LABBENCH_RUN")
    writer = ScriptWriter(expand_home((None if attach_key else db) or default_database()))
    first_step = 0
    try:
        if attach_key:
            script_run = writer.attach(attach_key)
            file = os.environ.get("LABBENCH_CONFIG")
            settings |= read_config(file) if file else script_run.config
        elif resume is not None:
            script_run, last_step = writer.resume(resume)
            first_step = 0 if last_step is None else last_step + 1
            settings = {**script_run.config, **settings}
        else:
            experiment = str(experiment or _program_name(script))
            script_run = writer.begin(new_script_run(str(name or ""), experiment, settings))
    except BaseException:
        writer.close()
        raise
    writer_thread = RunWriterThread(
        writer,
        script_run,
        start_ns=start_on_monotonic_clock(script_run),
        truncates=resume is not None and not attach_key,
        first_step=first_step,
    )
    run = Run(writer_thread, writer.path, first_step=first_step)
    if settings != script_run.config:
        run.config.update(settings)
    if tags or note is not None:
        writer_thread.change(
            lambda run: replace(run, tags=(*run.tags, *tags), note=run.note if note is None else str(note))
        )
    writer_thread.start()
    if capture_output:
        run.watch_output()
    run._close_with_run(RunMonitor(writer_thread, script, system_metrics=system_metrics))
    return run


def _tag_texts(tags: Any) -> tuple[str, ...]:
    try:
        return (tags,) if isinstance(tags, str) else tuple(map(str, tags))
    except TypeError:
        raise InputError(f"start: tags must be a list of strings, not {type(tags).__name__}") from None


def _program_name(script: Path | None) -> str:
    """Return the module of `python -m MODULE`, else the name of the script, of its folder or archive."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name.removesuffix("__main__").rstrip(".") if spec else ""
    if module or script is None:
        return module or "interactive"
    return script.parent.stem if script.stem == "__main__" else script.stem


def _main_script() -> Path | None:
    """Return the file that Python was started with.

    Returns None in a notebook or at a prompt.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute() if file else None
