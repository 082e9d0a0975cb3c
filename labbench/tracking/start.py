"""`labbench.start()`: start a new run, resume one, or attach to the run of `labbench run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from labbench.errors import InputError
from labbench.files import default_database, expand_home
from labbench.messages import ProblemReporter, warn, warn_once
from labbench.store.script_writer import ResumeRule, ScriptWriter
from labbench.store.scripts.script_run import ScriptRun, new_script_run
from labbench.system.ranks import Rank, read_rank
from labbench.tracking.config import plain_config, read_config
from labbench.tracking.monitor import RunMonitor
from labbench.tracking.run import Run, shared_run, unrecorded_run
from labbench.tracking.storage import Storage
from labbench.tracking.writer_thread import RunWriterThread

_MODES = ("enabled", "online", "offline", "disabled")


def start(
    name: str | None = None,
    *,
    experiment: str | None = None,
    config: Any = None,
    tags: Iterable[str] = (),
    note: str | None = None,
    db: str | os.PathLike[str] | None = None,
    id: object = None,
    resume: str | None = None,
    mode: str | None = None,
    strict: bool | None = None,
    all_ranks: bool = False,
    capture_output: bool = False,
    system_metrics: bool = True,
    quiet: bool = False,
) -> Run:
    """Start recording a training run: `with labbench.start("baseline", config={"lr": 0.1}) as run: run.log(...)`.

    In a process that `labbench run` started, attach to the run of that process and use its config; `name`,
    `experiment` and `db` are ignored. With `resume`, a later attempt of such a run continues the points of the earlier
    ones; without, it replaces them. In a job of Hydra with `HydraCallback`, return the run of the job. In a distributed
    job, only rank 0 records.

    Args:
        name: Name of the run; default: `EXPERIMENT-N` with the first free number.
        experiment: Name of the experiment; default: the name of the script or, with `python -m`, of the module;
            `interactive` in a notebook.
        config: A mapping (nested or flat), a namespace, a dataclass, an object of OmegaConf, pydantic or attrs, or a
            class, plain object or module, of which the public attributes are stored.
        tags: Tags of the run, or one tag as a string.
        note: Note of the run.
        db: Path of the database, created if it does not exist; default: `LABBENCH_DB`, else `runs.db`.
        id: Id of the run, any text, unique in the experiment: one command begins a run and continues it.
        resume: With `id`: "allow" to continue the run with this id if there is one, "must" to require it, "never"
            (default) to refuse it. Without `id`: key or name of a script's run that has ended; if it equals `name`
            and no run has this name, the run begins. The next attempt continues after the last step, or at the first
            step that it logs; earlier points from that step on are deleted. Name and experiment are kept.
        mode: "disabled" to record nothing and open no database; default: `LABBENCH_MODE`, else "enabled". "online" and
            "offline", as W&B has them, are "enabled"; any other text, too, with a warning.
        strict: Raise InputError for values that cannot be recorded, and for calls after the end, instead of a warning
            once per metric; default: True if `LABBENCH_STRICT` is 1.
        all_ranks: Record every rank of a distributed job, as a run of its own.
        capture_output: Record the script's output.
        system_metrics: Record the use of CPU, memory and GPUs every 5 s.
        quiet: Print no line with the name, the key and the database of the run on stderr; default: True if
            `LABBENCH_QUIET` is set.

    Raises:
        InputError: If the database cannot be opened, the run cannot be resumed, or an argument is invalid.
    """
    settings = plain_config(config)
    tags = _tag_texts(tags)
    script = _main_script()
    attach_key = attached_run()
    experiment = str(experiment or _program_name(script))
    problems = ProblemReporter(strict=os.environ.get("LABBENCH_STRICT") == "1" if strict is None else strict)
    id = _id_text(id, resume)
    path = expand_home((None if attach_key else db) or default_database())
    config_file = os.environ.get("LABBENCH_CONFIG") if attach_key else None
    if not _is_recorded(mode, all_ranks=all_ranks):
        settings |= read_config(config_file) if config_file else {}
        return unrecorded_run(str(name or ""), experiment, settings, str(path), problems.strict)
    if db is None and (shared := shared_run()) is not None:
        return shared._join(settings, tags, note, watches_output=capture_output)
    writer = ScriptWriter(path)
    try:
        new_run = replace(new_script_run(str(name or ""), experiment, settings), external_id=id)
        begin = _begin_run(writer, new_run, resume) if not attach_key else _attach(writer, new_run, attach_key, resume)
        script_run, first_step = begin.run, begin.first_step
        if attach_key:
            settings |= read_config(config_file) if config_file else script_run.config
        elif begin.resumes:
            settings = {**script_run.config, **settings}
    except BaseException:
        writer.close()
        raise
    storage = Storage(writer, script_run)
    writer_thread = RunWriterThread(storage, script_run, problems, truncates=begin.truncates, first_step=first_step)
    run = Run(writer_thread, writer.path, first_step=first_step, resumed=begin.resumes)
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
    if not (quiet or attach_key or os.environ.get("LABBENCH_QUIET")):
        _announce(script_run, writer.path, first_step if begin.resumes else None)
    return run


def _announce(run: ScriptRun, database: Path, first_step: int | None) -> None:
    """Print name, key and database of a run that begins, or that resumes at a step, in the main process."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return
    begins = "recording" if first_step is None else f"resuming at step {first_step}:"
    name, path = [text if text.isprintable() else repr(text) for text in (run.name, str(database))]
    warn(f"{begins} {name} ({run.key}) in {path}")


def start_command_run(
    name: str | None,
    experiment: str,
    config: Mapping[str, Any],
    database: Path,
    *,
    tags: Iterable[str] = (),
    script: Path | None,
    command: str,
) -> Run:
    """Start the run of a command, which another process executes.

    Args:
        script: File of the script that the command runs.
        command: Command line, as it is recorded.

    Raises:
        InputError: If the database cannot be opened.
    """
    writer = ScriptWriter(database)
    try:
        new_run = new_script_run(str(name or ""), experiment, dict(config))
        script_run = writer.begin(replace(new_run, tags=tuple(tags)))
    except BaseException:
        writer.close()
        raise
    writer_thread = RunWriterThread(Storage(writer, script_run), script_run, ProblemReporter(strict=False))
    writer_thread.printed.open()
    run = Run(writer_thread, writer.path)
    writer_thread.start()
    run._close_with_run(RunMonitor(writer_thread, script, system_metrics=True, command=command))
    return run


@dataclass(frozen=True, slots=True)
class _Begin:
    """Run that this process begins to record."""

    run: ScriptRun
    first_step: int = 0
    """Step of the first log call without a step."""
    resumes: bool = False
    """True if the run keeps the points of an earlier attempt or process."""
    truncates: bool = False
    """True if earlier points from the first logged step on are deleted."""


def _begin_run(writer: ScriptWriter, new_run: ScriptRun, resume: str | None) -> _Begin:
    """Resume a run or begin the new one; see `start`."""
    if new_run.external_id is not None:
        run, last_step = writer.begin_or_resume(new_run, cast(ResumeRule, resume or "never"))
    elif resume is not None:
        run, last_step = writer.resume(resume, otherwise=new_run if resume == new_run.name else None)
    else:
        run, last_step = writer.begin(new_run), None
    resumes = run.attempt > 1
    return _Begin(run, 0 if last_step is None else last_step + 1, resumes, truncates=resumes)


def attached_run() -> str | None:
    """Return the key of the run that `labbench run` started this process for; None in another process."""
    return os.environ.get("LABBENCH_RUN") or None


def _attach(writer: ScriptWriter, new_run: ScriptRun, key: str, resume: str | None) -> _Begin:
    """Attach to the run of `labbench run`.

    The points of an earlier start of the script are kept with `resume`, and deleted without. Later calls in this start
    of the script, also of its other processes, add to its points.
    """
    is_first = _is_first_of_script()
    continues = resume not in (None, "never")
    run, last_step = writer.attach(key, external_id=new_run.external_id, from_start=is_first and not continues)
    if last_step is None or not continues:
        return _Begin(run)
    return _Begin(run, last_step + 1, resumes=True, truncates=is_first)


def _is_first_of_script() -> bool:
    """Return True in the first call since `labbench run` started the script, in any of its processes."""
    config_file = os.environ.get("LABBENCH_CONFIG")  # in a folder that is new at each start
    if not config_file:
        return False
    try:
        expand_home(config_file).with_name("attached").touch(exist_ok=False)
    except OSError:
        return False
    return True


def _id_text(id: object, resume: object) -> str | None:
    """Return the id of a run as text; None without one.

    Raises:
        InputError: If `resume` does not fit.
    """
    rules = get_args(ResumeRule)
    text = "" if id is None else str(id)
    if text and resume is not None and resume not in rules:
        raise InputError(f"start: with id=, resume must be 'allow', 'must' or 'never', not {resume!r}")
    if not text and resume in rules:
        raise InputError(f"start: resume={resume!r} takes id=, the id of the run; without it, resume names a run")
    return text or None


def _is_recorded(mode: str | None, *, all_ranks: bool) -> bool:
    """Return False if the run is disabled, for a rank that leaves recording to rank 0, and in a worker's import."""
    source = "LABBENCH_MODE" if mode is None else "start: mode"
    mode = mode or os.environ.get("LABBENCH_MODE") or "enabled"
    if mode not in _MODES:
        warn_once(f"{source} is {mode!r}, not {', '.join(_MODES[:-1])} or {_MODES[-1]}: the run is recorded")
    rank = Rank(0) if all_ranks or mode == "disabled" else read_rank()
    if rank.number == 1 or (rank.number and not rank.is_certain):  # said once per job
        warn(
            f"{rank.source}{rank.source and ': '}rank 0 of this distributed job records; the other ranks do not, "
            "unless start(all_ranks=True) asks for it"
        )
    return mode != "disabled" and not rank.number and not _is_imported_by_worker()


def _is_imported_by_worker() -> bool:
    """Return True while a process that `multiprocessing` has spawned imports the script, which is the parent's run."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None or not getattr(multiprocessing.current_process(), "_inheriting", False):
        return False
    if multiprocessing.current_process().name.endswith("-1"):  # said once
        warn(
            "a worker process that imports the script records nothing; start the run under `if __name__ == '__main__':`"
        )
    return True


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
