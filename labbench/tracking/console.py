"""Recording of a script's output with its run.

Replaces the `write` method of the existing streams, not the streams themselves, so that code which holds a reference to
`sys.stderr`, such as logging, is recorded too. Of a stream of bytes and text it is the `write` of the binary layer, so
that bytes and the text of a new wrapper of `sys.stdout.buffer` are recorded. Output of subprocesses and of native code
bypasses Python and is not recorded: the alternative, a pipe in place of the file descriptors, loses the last output of
a process that crashes, and `sys.stdout.isatty()` would no longer be true.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from labbench.store.scripts.script_run import PrintedText, Stream
from labbench.system.clock import now
from labbench.tracking.process_hooks import notebook_shell

if TYPE_CHECKING:
    from labbench.terminal_output import CapturedOutput, OutputText

_MAX_WAITING_TEXTS = 50_000
"""Maximum number of printed texts that wait in memory before `print` slows down."""


class Tee:
    """Write through to a stream and pass the text on to `record`."""

    def __init__(self, name: Stream, record: Callable[[Stream, str], None]) -> None:
        """Replace the stream's `write`; a missing, closed or immutable stream is left alone."""
        self._name: Stream = name
        self._record = record
        self._pid = os.getpid()
        self._is_called = False
        self._notebook_events: Any = None
        self._layer: Any = None
        """Object whose `write` is replaced: the stream, or its binary layer."""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        stream = self._stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            return
        if isinstance(stream, io.TextIOWrapper):
            with suppress(AttributeError, OSError, ValueError):  # an immutable layer, or one that cannot be written
                self._was_write_through = stream.write_through
                stream.reconfigure(write_through=True)  # text reaches the binary layer at once
                self._replace_write(stream.buffer, self.write_bytes)
        if self._layer is None:
            with suppress(AttributeError):  # not a stream, or one without attributes of its own
                self._replace_write(stream, self.write)
                self._watch_cells()

    def _replace_write(self, layer: Any, write: Callable[[Any], Any]) -> None:
        self._previous = getattr(layer, "__dict__", {}).get("write")
        owner = getattr(self._previous, "__self__", None)
        self._layer, self._write, self._replacement = layer, layer.write, write
        if not (isinstance(owner, Tee) and owner._record == self._record):  # stdout and stderr may be one stream
            layer.write = write

    def _watch_cells(self) -> None:
        if (shell := notebook_shell()) is not None:
            self._notebook_events = shell.events
            self._notebook_events.register("pre_run_cell", self._begin_cell)

    def _begin_cell(self, *_: Any) -> None:
        """Replace `write` again: IPython, which replaces it for each cell, restored it at the end of the last cell."""
        self._is_called = False
        self._layer.write("")
        if not self._is_called:
            self._replace_write(self._layer, self.write)

    def write(self, text: str) -> Any:
        self._is_called = True
        result = self._write(text)
        if os.getpid() == self._pid and isinstance(text, str):  # not in a forked worker
            self._record(self._name, text)
        return result

    def write_bytes(self, data: Any) -> Any:
        result = self._write(data)
        if os.getpid() == self._pid and (text := self._decode(bytes(data))):
            self._record(self._name, text)
        return result

    def _decode(self, data: bytes) -> str:
        """Decode UTF-8, whose characters may arrive in parts, else the encoding of the stream."""
        incomplete = self._decoder.getstate()[0]
        try:
            return self._decoder.decode(data)
        except UnicodeDecodeError:
            self._decoder.reset()
            return (incomplete + data).decode(self._stream.encoding, "replace")

    def close(self) -> None:
        """Restore the stream's `write`, unless other code has replaced it since."""
        if self._notebook_events is not None:
            self._notebook_events.unregister("pre_run_cell", self._begin_cell)
            self._notebook_events = None
        if self._layer is None:
            return
        with suppress(Exception):  # a stream that replaced this one may hold text back
            getattr(sys, self._name).flush()
        if getattr(self._layer, "__dict__", {}).get("write") == self._replacement:
            del self._layer.write
            if self._previous is not None:
                self._layer.write = self._previous
        if self._layer is not self._stream:
            if (incomplete := self._decoder.getstate()[0]) and os.getpid() == self._pid:
                self._record(self._name, incomplete.decode(self._stream.encoding, "replace"))
            with suppress(OSError, ValueError):  # closed or detached
                self._stream.reconfigure(write_through=self._was_write_through)
        self._record = _discard


class PrintedOutput:
    """Queue of a script's output that has not been written yet.

    `open` precedes the first `append`. Any thread may call these and `close`; all other methods belong to the writer
    thread.
    """

    def __init__(self) -> None:
        self.omitted_lines = 0
        """Number of lines that were not kept; final after the last `take`."""
        self._waiting: deque[tuple[Stream, str]] = deque()
        self._new_output: Callable[[], CapturedOutput]
        self._is_closed = False
        self.clear()

    def open(self) -> None:
        """Load what splits output into lines: later, in the writer thread, all file descriptors may be in use."""
        from labbench.terminal_output import CapturedOutput  # 1 ms that a run without output does not need

        self._new_output = CapturedOutput

    def append(self, stream: Stream, text: str) -> None:
        """Add printed text."""
        self._waiting.append((stream, text))
        if len(self._waiting) > _MAX_WAITING_TEXTS:
            time.sleep(0.001)  # lets the writer thread catch up

    def close(self) -> None:
        """Make the next `take` return everything."""
        self._is_closed = True

    def clear(self) -> None:
        """Drop everything; used after a fork."""
        self._waiting.clear()
        self._outputs: dict[Stream, CapturedOutput] = {}
        self._texts: list[PrintedText] = []

    @property
    def is_due(self) -> bool:
        """True if `take` would return something."""
        return bool(
            self._waiting
            or self._texts
            or (self._outputs and (self._is_closed or any(output.is_due for output in self._outputs.values())))
        )

    def expedite(self) -> None:
        """Make everything due, including lines that may still change."""
        self.drain()
        for output in self._outputs.values():
            output.expedite()

    def drain(self) -> None:
        """Split the waiting texts into lines, which bounds the memory while the database cannot be written."""
        texts = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not texts:
            return
        for stream, items in groupby(texts, key=itemgetter(0)):
            for other, output in self._outputs.items():
                if other != stream:
                    self._add(other, output.take_before_other_output())
            output = self._outputs.setdefault(stream, self._new_output())
            output.feed("".join(text for _, text in items))
            self._add(stream, output.take())

    def take(self) -> list[PrintedText]:
        """Return the texts that are due."""
        self.drain()
        for stream, output in self._outputs.items():
            if output.has_changed:  # unchanged lines keep their place also at the end
                self._add(stream, output.close() if self._is_closed else output.take())
        if self._is_closed:
            self.omitted_lines += sum(output.omitted_lines for output in self._outputs.values())
            self._outputs = {}
        texts, self._texts = self._texts, []
        return texts

    def _add(self, stream: Stream, texts: list[OutputText]) -> None:
        for text in texts:
            replaces = text.replaces_unfinished and self._remove_unfinished(stream)
            last = self._texts[-1] if self._texts else None
            if last is not None and last.stream == stream and _is_complete(last.text) and _is_complete(text.text):
                self._texts[-1] = replace(last, text=last.text + text.text)
            else:
                self._texts.append(PrintedText(now(), stream, text.text, replaces))

    def _remove_unfinished(self, stream: Stream) -> bool:
        """Remove the stream's unfinished text from `_texts`; return True if there is still one in the database."""
        for index in reversed(range(len(self._texts))):
            if self._texts[index].stream == stream and not _is_complete(self._texts[index].text):
                return self._texts.pop(index).replaces_unfinished
        return True


def _is_complete(text: str) -> bool:
    return text.endswith("\n")


def _discard(stream: Stream, text: str) -> None:
    """Drop output that is printed after the end of the run."""
