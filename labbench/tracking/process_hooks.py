"""End runs however the process ends: signals, uncaught exceptions, exit, fork."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, Protocol

from labbench.errors import is_out_of_memory
from labbench.records import FailureKind


class OpenRun(Protocol):
    """A run, as far as the process's end concerns it."""

    def flush(self) -> bool: ...
    def end(self, ending: ExitInfo) -> None: ...
    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]


_open_runs: list[OpenRun] = []


_handlers: dict[int, Any] = {}


_signalled: int | None = None


_exception: BaseException | None = None
"""What ends the process: it went through `sys.excepthook` or began in `sys.exit`."""


_excepthook: Callable[[type[BaseException], BaseException, TracebackType | None], Any] | None = None


_exit: Callable[..., NoReturn] | None = None


def register(run: OpenRun) -> None:
    """See to it that the run is ended with its process."""
    if not _open_runs:
        _set_hooks()
    _set_signals()  # again for each run: the first may have begun in another thread, where Python allows no handler
    _open_runs.append(run)


def unregister(run: OpenRun) -> None:
    """The run has ended."""
    if run in _open_runs:
        _open_runs.remove(run)
        if not _open_runs:
            _unset_hooks()


def end_with_worker() -> None:
    """In a worker process of multiprocessing, which leaves `atexit` out, end the runs when the worker ends."""
    process = sys.modules.get("multiprocessing.process")  # loaded in every worker
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _end_all, exitpriority=0)


def newest_run() -> OpenRun | None:
    """The live run that began last."""
    return _open_runs[-1] if _open_runs else None


def _end_all() -> None:
    """The process ends: in `atexit`, or in a child of multiprocessing, which leaves that out."""
    error = _exception or sys.exc_info()[1]
    for run in reversed(_open_runs):
        run.end(exit_info_of_error(error, signalled=_signalled))


def _set_hooks() -> None:
    global _excepthook, _exit, _exception, _signalled
    _exception = _signalled = None
    _excepthook, sys.excepthook = sys.excepthook, _on_exception
    _exit, sys.exit = sys.exit, _on_exit
    atexit.register(_end_all)
    end_with_worker()


def _set_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            before = signal.getsignal(number)
            # what is ignored stays so (nohup), Python's own Ctrl-C reaches us as an exception, and a handler that was
            # put on top of ours calls it
            if number not in _handlers and before not in (signal.SIG_IGN, signal.default_int_handler, None):
                _handlers[number] = before
                signal.signal(number, _on_signal)


def _unset_hooks() -> None:
    atexit.unregister(_end_all)
    if sys.excepthook is _on_exception:
        sys.excepthook = _excepthook  # type: ignore[assignment]
    if sys.exit is _on_exit:
        sys.exit = _exit  # type: ignore[assignment]
    if threading.current_thread() is threading.main_thread():
        for number, before in list(_handlers.items()):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, before)
                del _handlers[number]


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Write everything, then let the signal do what it did before."""
    global _signalled
    before = _handlers[number]
    _signalled = number
    if callable(before):  # it may go on to save a checkpoint and log more: `atexit` ends the run
        for run in list(_open_runs):
            run.flush()
        before(number, frame)
    else:
        for run in list(_open_runs):
            run.end(exit_info_of_error(None, signalled=number, killed=True))
        signal.signal(number, before)
        os.kill(os.getpid(), number)


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    global _exception
    _exception = error
    assert _excepthook is not None
    _excepthook(kind, error, trace)


def _on_exit(status: Any = None, /) -> NoReturn:
    """`sys.exit`: the status of a process is known nowhere else before it has ended."""
    global _exception
    error = SystemExit(status)
    if threading.current_thread() is threading.main_thread():  # in another it ends that thread alone
        _exception = error
    raise error


def _before_fork() -> None:
    for run in _open_runs:
        run.before_fork()


def _after_fork_in_parent() -> None:
    for run in _open_runs:
        run.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for run in _open_runs:
        run.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """The last that is recorded of a run."""

    status: Literal["finished", "failed", "stopped"]
    reason: str | None = None
    error_kind: FailureKind | None = None
    error: str | None = None
    """One line."""
    traceback: str | None = None


def exit_info_of_error(error: BaseException | None, *, signalled: int | None = None, killed: bool = False) -> ExitInfo:
    """The ending of a run whose script was left by an error or by none.

    `signalled` is the last signal that came. It ended the script if that is `killed`, or goes with an error's status.
    """
    if signalled is not None and (killed or isinstance(error, SystemExit | KeyboardInterrupt)):
        return ExitInfo("stopped", signal.Signals(signalled).name)
    if error is None:
        return ExitInfo("finished", "script ended")
    if isinstance(error, KeyboardInterrupt):
        return ExitInfo("stopped", "interrupted")
    if isinstance(error, SystemExit):
        return exit_info_of_status(error.code)
    import traceback  # 5 ms, which runs that end well need not pay

    kind: FailureKind = "oom" if is_out_of_memory(error) else "user"
    message = traceback.format_exception_only(error)[-1].strip()
    return ExitInfo("failed", None, kind, message, "".join(traceback.format_exception(error)))


def exit_info_of_status(status: object) -> ExitInfo:
    """The ending that an exit status means: 0 and None are well, text is a message."""
    if status is None or status == 0:
        return ExitInfo("finished", "script ended")
    message = status if isinstance(status, str) else f"exit status {status}"
    return ExitInfo("failed", None, "user", message)
