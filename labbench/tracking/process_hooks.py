"""Hooks that end runs however the process ends (signal, uncaught exception, exit) and handle forks."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from _sitebuiltins import Quitter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, Protocol

from labbench.errors import is_out_of_memory
from labbench.messages import as_text
from labbench.records import FailureKind
from labbench.store.scripts.script_run import SCRIPT_ENDED


class OpenRun(Protocol):
    """Methods of a run that the hooks call."""

    def flush(self) -> bool: ...
    def _end(self, exit_info: ExitInfo) -> None: ...
    def _end_with_process(self, exit_info: ExitInfo) -> None: ...
    def _after_cell(self, error: BaseException | None) -> None: ...
    def _before_fork(self) -> None: ...
    def _after_fork_in_parent(self) -> None: ...
    def _after_fork_in_child(self) -> None: ...


_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]


_open_runs: list[OpenRun] = []
"""Runs that have not ended, oldest first."""

_last_ended: OpenRun | None = None

_previous_handlers: dict[int, Any] = {}
"""Handlers that `_on_signal` replaced, by signal."""

_last_signal: int | None = None

_exception: BaseException | None = None
"""Exception that ends the process, passed to `sys.excepthook` or raised by `sys.exit`."""

_excepthook: Callable[[type[BaseException], BaseException, TracebackType | None], Any] | None = None
"""`sys.excepthook` before it was replaced."""

_last_value: object = None
"""`sys.last_value` before the hooks were set: an exception that was shown at a prompt."""

_exit: Callable[..., NoReturn] | None = None
"""`sys.exit` before it was replaced."""

_quit = Quitter.__call__

_hard_exit = os._exit
"""`os._exit` before it was replaced."""


def register(run: OpenRun) -> None:
    """Register a run, to be ended with its process."""
    if not _open_runs:
        _set_hooks()
    _set_signals()  # for every run: the first may have started outside the main thread, where Python allows no handlers
    _open_runs.append(run)


def unregister(run: OpenRun) -> None:
    """Remove a run that has ended; after the last one, restore the previous hooks."""
    global _last_ended
    if run in _open_runs:
        _last_ended = run
        _open_runs.remove(run)
        if not _open_runs:
            _unset_hooks()


def end_runs_with_worker() -> None:
    """End the runs with a worker process of multiprocessing, which does not run `atexit` functions."""
    process = sys.modules.get("multiprocessing.process")  # loaded in every worker
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _end_all, exitpriority=0)


def last_ended_run() -> OpenRun | None:
    """Return the run that ended last; None if none has ended."""
    return _last_ended


def newest_run() -> OpenRun | None:
    """Return the open run that started last; None if no run is open."""
    return _open_runs[-1] if _open_runs else None


def _end_all() -> None:
    """End all runs, the newest first, when the process ends."""
    error = _exception or sys.exc_info()[1] or _uncaught_exception()
    for run in reversed(_open_runs):
        run._end_with_process(exit_info_of_error(error, last_signal=_last_signal))


def _uncaught_exception() -> BaseException | None:
    """Return the exception that ends the script, if a later `sys.excepthook` has replaced ours."""
    last_value = getattr(sys, "last_value", None)
    is_interactive = hasattr(sys, "ps1") or notebook_shell() is not None
    is_new = isinstance(last_value, BaseException) and last_value is not _last_value
    return last_value if is_new and not is_interactive else None


def _set_hooks() -> None:
    global _excepthook, _exit, _exception, _last_signal, _last_value
    _exception = _last_signal = None
    _last_value = getattr(sys, "last_value", None)
    _excepthook, sys.excepthook = sys.excepthook, _on_exception
    _exit, sys.exit = sys.exit, _on_exit
    if os._exit is _hard_exit:  # else another library has replaced it
        os._exit = _on_hard_exit
    Quitter.__call__ = _on_quit  # type: ignore[method-assign, assignment]
    atexit.register(_end_all)
    end_runs_with_worker()
    shell = notebook_shell()
    if shell is not None:
        shell.events.register("post_run_cell", _after_cell)


def notebook_shell() -> Any:
    """Return the IPython shell, which also runs the cells of notebooks; None in a script."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _after_cell(result: Any) -> None:
    """Report the end of a cell to the runs: IPython handles exceptions itself, so `sys.excepthook` sees none."""
    global _exception
    _exception = None  # of `sys.exit`, which ends no notebook
    for run in list(_open_runs):
        run._after_cell(result.error_in_exec)


def _set_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # Ignored signals stay ignored (nohup), Ctrl-C arrives as KeyboardInterrupt, and a handler that was set
            # after ours is expected to call ours.
            if number not in _previous_handlers and handler not in (signal.SIG_IGN, signal.default_int_handler, None):
                _previous_handlers[number] = handler
                signal.signal(number, _on_signal)


def _unset_hooks() -> None:
    atexit.unregister(_end_all)
    shell = notebook_shell()
    if shell is not None:
        with suppress(ValueError):  # registered in another shell
            shell.events.unregister("post_run_cell", _after_cell)
    if sys.excepthook is _on_exception:
        sys.excepthook = _excepthook  # type: ignore[assignment]
    if sys.exit is _on_exit:
        sys.exit = _exit  # type: ignore[assignment]
    if os._exit is _on_hard_exit:
        os._exit = _hard_exit
    Quitter.__call__ = _quit  # type: ignore[method-assign]
    if threading.current_thread() is threading.main_thread():
        for number, handler in list(_previous_handlers.items()):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, handler)
                del _previous_handlers[number]


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Write everything that was logged, then pass the signal on to the previous handler."""
    global _last_signal
    handler = _previous_handlers[number]
    _last_signal = number
    if callable(handler):  # it may save a checkpoint and log more: `atexit` ends the run
        _flush_all()
        handler(number, frame)
    elif os.getpid() == 1:  # the kernel does not end the first process of a container: the training continues
        _last_signal = None
        _flush_all()
    else:
        for run in list(_open_runs):
            run._end(exit_info_of_error(None, last_signal=number, killed=True))
        signal.signal(number, handler)
        os.kill(os.getpid(), number)


def _flush_all() -> None:
    for run in list(_open_runs):
        run.flush()


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    global _exception
    if hasattr(sys, "ps1"):  # at a prompt, where the next statement may continue the runs
        for run in list(_open_runs):
            run._after_cell(error)
    else:
        _exception = error
    assert _excepthook is not None
    _excepthook(kind, error, trace)


def _on_exit(status: Any = None, /) -> NoReturn:
    """Replace `sys.exit`, because no hook receives the exit status before the process ends."""
    global _exception
    error = SystemExit(status)
    if threading.current_thread() is threading.main_thread():  # in another thread it ends only that thread
        _exception = error
    raise error


def _on_quit(quitter: Quitter, status: Any = None) -> NoReturn:
    """Replace the call of `exit` and `quit`, which do not call `sys.exit`."""
    with suppress(Exception):
        sys.stdin.close()  # as the original does
    _on_exit(status)


def _on_hard_exit(status: int) -> NoReturn:
    """Replace `os._exit`, which runs no `atexit` functions, also in a forked child that has logged."""
    for run in reversed(_open_runs):
        with suppress(Exception):
            run._end_with_process(exit_info_of_status(status))
    _hard_exit(status)


def _before_fork() -> None:
    for run in _open_runs:
        run._before_fork()


def _after_fork_in_parent() -> None:
    for run in _open_runs:
        run._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for run in _open_runs:
        run._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """Final status of a run, with the error that caused it."""

    status: Literal["finished", "failed", "stopped", "pruned"]
    reason: str | None = None
    error_kind: FailureKind | None = None
    error: str | None = None
    """Message in one line."""
    traceback: str | None = None


def exit_info_of_error(
    error: BaseException | None, *, last_signal: int | None = None, killed: bool = False
) -> ExitInfo:
    """Return the final status of a run whose script ended with `error`, or without one.

    `last_signal`, the last signal received, counts as the cause if it killed the process (`killed`) or the script
    exited with SystemExit or KeyboardInterrupt.
    """
    if last_signal is not None and (killed or isinstance(error, SystemExit | KeyboardInterrupt)):
        return ExitInfo("stopped", signal.Signals(last_signal).name)
    if error is None:
        return ExitInfo("finished", SCRIPT_ENDED)
    if isinstance(error, KeyboardInterrupt):
        return ExitInfo("stopped", "interrupted")
    if isinstance(error, SystemExit):
        return exit_info_of_status(error.code)
    kind: FailureKind = "oom" if is_out_of_memory(error) else "user"
    try:
        import traceback  # takes 5 ms, only needed for failed runs

        message, lines = traceback.format_exception_only(error)[-1].strip(), traceback.format_exception(error)
    except Exception:  # the script has failed because it had used up its memory or its file descriptors
        return ExitInfo("failed", None, kind, f"{type(error).__name__}: {as_text(error)}")
    return ExitInfo("failed", None, kind, message, "".join(lines))


def exit_info_of_status(status: object) -> ExitInfo:
    """Return the final status for an exit status: 0 and None mean success, a text is an error message."""
    if status is None or status == 0:
        return ExitInfo("finished", SCRIPT_ENDED)
    message = status if isinstance(status, str) else f"exit status {status}"
    return ExitInfo("failed", None, "user", message)
