"""Failures of runs: what an error means for the runs that it ends."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labbench.errors import DeviceLost, LabbenchError, SampleError, is_device_error, is_out_of_memory
from labbench.records import Failed, FailureKind, RunRecord
from labbench.train.user_errors import user_line


@dataclass(frozen=True)
class Failure:
    """Error that ended the training of some runs, as text.

    The error itself would keep the memory of the failed training alive.
    """

    runs: Sequence[RunRecord]
    kind: FailureKind
    message: str
    """One line."""
    details: str
    """Traceback, or the complete message of a labbench error that needs none."""

    @classmethod
    def from_error(cls, runs: Sequence[RunRecord], error: BaseException) -> Failure:
        """Describe the error that ended these runs.

        Raises:
            DeviceLost: The error is that of a GPU: no other run can train in this process.
        """
        if is_device_error(error):
            raise DeviceLost(f"the GPU failed, or the task's code made it fail: {error_summary(error)}") from error
        kind: FailureKind = "oom" if is_out_of_memory(error) else "crash" if isinstance(error, DeviceLost) else "user"
        is_explained = isinstance(error, LabbenchError)
        needs_traceback = not is_explained or isinstance(error, SampleError)
        return cls(
            runs,
            kind,
            error_summary(error),
            "".join(traceback.format_exception(error)) if needs_traceback else str(error),
        )

    def events(self) -> Iterator[Failed]:
        """Yield the `Failed` event of each run."""
        for run in self.runs:
            yield Failed(run.key, run.attempt, self.kind, self.message, self.details)


def error_summary(error: BaseException) -> str:
    """Return type and message of an error in one line, followed by the line of the user's code that raised it.

    A labbench error is its message alone.
    """
    if isinstance(error, LabbenchError):
        return _first_line(str(error))
    summary = _first_line(traceback.format_exception_only(error)[-1])
    if isinstance(error, SystemExit):
        return f"the task called sys.exit ({summary}): raise an error instead"
    line = user_line(error)
    return summary if line is None else f"{summary} ({line})"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(":")
