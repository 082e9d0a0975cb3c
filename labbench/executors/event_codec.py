"""Events and stacks as JSON, which travel between machines; decoding executes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from labbench.records import (
    Boundary,
    Command,
    EngineNote,
    Event,
    Failed,
    Finished,
    Log,
    Points,
    Received,
    RunRecord,
    Runtime,
    Stack,
    Started,
    Stop,
    Submitted,
)

_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Started, Points, Boundary, Log, EngineNote, Finished, Failed, Submitted, Received)
}


def encode_event(event: Event) -> bytes:
    """Return an event as JSON; numbers stay exact, NaN and infinities are written as Python's json writes them."""
    document = {"type": type(event).__name__}
    document |= {field.name: getattr(event, field.name) for field in fields(event)}
    return json.dumps(document, separators=(",", ":")).encode()


def decode_event(data: bytes) -> Event:
    """Return the event that `encode_event` encoded.

    Raises:
        ValueError: The data are no event.
    """
    try:
        document = json.loads(data)
        return _EVENTS[document.pop("type")](**document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {data[:100]!r} ({error})") from error


def encode_stack(stack: Stack) -> str:
    """Return a stack as JSON, without the summaries of its runs."""
    document = _document(stack)
    document["runs"] = [{**_document(run), "summary": {}} for run in stack.runs]
    document["stop"] = None if stack.stop is None else _document(stack.stop)
    document["runtime"] = _document(stack.runtime)
    document["command"] = None if stack.command is None else _document(stack.command)
    return json.dumps(document)


def decode_stack(text: str) -> Stack:
    """Return the stack that `encode_stack` encoded.

    Raises:
        ValueError: The text is no stack.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        document["runs"] = tuple(RunRecord(**{**run, "tags": tuple(run["tags"])}) for run in document["runs"])
        document["stop"] = None if document["stop"] is None else Stop(**document["stop"])
        document["runtime"] = Runtime(**document["runtime"])
        document["command"] = None if document["command"] is None else _decode_command(document["command"])
        return Stack(**document)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a stack of runs: {text[:100]!r} ({error})") from error


def _decode_command(document: Mapping[str, Any]) -> Command:
    words = tuple(word if isinstance(word, str) else tuple(word) for word in document["words"])
    return Command(**{**document, "words": words})


def _document(record: Any) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
