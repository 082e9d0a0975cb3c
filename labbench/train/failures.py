"""Failures of runs: what an error means for the runs that it ends, and the line of the user's code to fix."""

from __future__ import annotations

import math
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import DeviceLost, LabbenchError, SampleError, is_device_error, is_out_of_memory
from labbench.records import Failed, FailureKind, RunRecord

LIBRARY_FOLDERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
LABBENCH_FOLDER = str(Path(__file__).parents[1])


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
            DeviceLost: It is an error of a GPU: no other run can train in this process.
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
    line, hint = user_line(error), _linear_hint(error)
    return (summary if line is None else f"{summary} ({line})") + ("" if hint is None else f"; {hint}")


def _linear_hint(error: BaseException) -> str | None:
    """Return the shapes of a Linear layer and of its input, if the error is that they do not fit."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer, inputs = frame.f_locals.get("self"), frame.f_locals.get("input")
        features, shape = getattr(layer, "in_features", None), getattr(inputs, "shape", ())
        if type(layer).__name__ != "Linear" or not shape or shape[-1] == features:
            continue
        hint = f"the Linear layer takes {features} features, and its input has shape {tuple(shape)}"
        if len(shape) > 2 and math.prod(shape[1:]) == features:
            return f"{hint}: is flatten(1) missing before it?"
        return f"{hint}: flatten(1) keeps the dimension of the samples" if len(shape) == 1 else hint
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(":")


def error_location(error: BaseException, file: Path | None = None) -> str:
    """Return `file:line: Error: message`, followed by that source line.

    The line is the deepest frame in `file`, by default the deepest frame outside libraries.
    """
    summary = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and file is not None:
        return f"{error.filename or file}:{error.lineno}: {summary}\n    {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_code(frame.filename, file)]
    if not frames:
        return summary if file is None else f"{file}: {summary}"
    return f"{frames[-1].filename}:{frames[-1].lineno}: {summary}\n    {(frames[-1].line or '').strip()}"


def user_line(error: BaseException) -> str | None:
    """Return the deepest line of user code in the traceback, as `task.py:12`; None if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_code(frame.filename, None)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None


def _is_user_code(filename: str, file: Path | None) -> bool:
    """Return True for `file`, or if it is None, for any file outside libraries."""
    return (
        Path(filename) == file
        if file is not None
        else not filename.startswith((*LIBRARY_FOLDERS, LABBENCH_FOLDER, "<")) and "site-packages" not in filename
    )
