"""`labbench.start()`: a new run, one that is resumed, or the one for which `labbench run` started this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.files import default_database
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.tracking.config import plain_config, read_config
from labbench.tracking.monitor import RunMonitor
from labbench.tracking.run import Run, _start_on_monotonic_clock
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
    """Begin to record a training run: `with labbench.start("baseline", config={"lr": 0.1}) as run: run.log(...)`.

    Without names the experiment is called after the script, and its runs are numbered. `config` is a dict, nested or
    not, an argparse namespace or a dataclass. `db` is the database, `runs.db` in the current folder unless
    `LABBENCH_DB` says otherwise; it is made if it is not there.

    `resume` takes up a run of a script that has ended, by key or name: its next attempt goes on behind the last step,
    or at the step that is logged first, and what the earlier attempt logged from there on is dropped. `name` and
    `experiment` stay what they were.

    `capture_output` keeps what is printed; `system_metrics` records every 5 s how busy CPU, memory and GPUs are.

    In a process that `labbench run` started this is the run that it was started for, with that run's config.

    Raises InputError for a database that cannot be opened or a run that cannot be resumed.
    """
    settings = plain_config(config)
    tags = _tag_texts(tags)
    script = _main_script()
    attached = os.environ.get("LABBENCH_RUN")
    writer = ScriptWriter(Path((None if attached else db) or default_database()))
    first_step = 0
    try:
        if attached:
            known = writer.attach(attached)
            file = os.environ.get("LABBENCH_CONFIG")
            settings |= read_config(file) if file else known.config
        elif resume is not None:
            known, last_step = writer.resume(resume)
            first_step = 0 if last_step is None else last_step + 1
            settings = {**known.config, **settings}
        else:
            experiment = str(experiment or (script.stem if script else "interactive"))
            known = writer.begin(new_script_run(str(name or ""), experiment, settings))
    except BaseException:
        writer.close()
        raise
    forgets = resume is not None and not attached
    recorder = RunWriterThread(
        writer, known, began=_start_on_monotonic_clock(known), forgets=forgets, first_step=first_step
    )
    run = Run(recorder, writer.path, first_step=first_step)
    if settings != known.config:
        run.config.update(settings)
    if tags or note is not None:
        recorder.change(lambda run: replace(run, tags=(*run.tags, *tags), note=run.note if note is None else str(note)))
    recorder.start()
    if capture_output:
        run.watch_output()
    run.in_background(RunMonitor(recorder, script, system_metrics=system_metrics))
    return run


def _tag_texts(tags: Any) -> tuple[str, ...]:
    try:
        return (tags,) if isinstance(tags, str) else tuple(map(str, tags))
    except TypeError:
        raise InputError(f"start: tags are texts, not {type(tags).__name__}") from None


def _main_script() -> Path | None:
    """The file that Python was started with; None in a notebook or at a prompt."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute() if file else None
