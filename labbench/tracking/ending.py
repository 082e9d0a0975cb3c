"""How a run ended, told from what ended its script."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from labbench.errors import is_out_of_memory
from labbench.records import FailureKind


@dataclass(frozen=True, slots=True)
class Ending:
    """The last that is recorded of a run."""

    status: Literal["finished", "failed", "stopped"]
    reason: str | None = None
    error_kind: FailureKind | None = None
    error: str | None = None
    """One line."""
    traceback: str | None = None


def ending_of(error: BaseException | None, *, signalled: int | None = None, killed: bool = False) -> Ending:
    """The ending of a run whose script was left by an error or by none.

    `signalled` is the last signal that came. It ended the script if that is `killed`, or goes with an error's status.
    """
    if signalled is not None and (killed or isinstance(error, SystemExit | KeyboardInterrupt)):
        return Ending("stopped", signal.Signals(signalled).name)
    if error is None:
        return Ending("finished", "script ended")
    if isinstance(error, KeyboardInterrupt):
        return Ending("stopped", "interrupted")
    if isinstance(error, SystemExit):
        return exit_ending(error.code)
    import traceback  # 5 ms, which runs that end well need not pay

    kind: FailureKind = "oom" if is_out_of_memory(error) else "user"
    message = traceback.format_exception_only(error)[-1].strip()
    return Ending("failed", None, kind, message, "".join(traceback.format_exception(error)))


def exit_ending(status: object) -> Ending:
    """The ending that an exit status means: 0 and None are well, text is a message."""
    if status is None or status == 0:
        return Ending("finished", "script ended")
    message = status if isinstance(status, str) else f"exit status {status}"
    return Ending("failed", None, "user", message)
