"""Queue of typed keys and pastes: each waits until the effects of the one before have arrived.

Textual sends a key to the widget that has the focus at that moment. A key that opens a dialog or moves the focus takes
effect later, so that the next letters of a burst such as `fexperiment` would reach the table. The queue sends a key
once the messages of the earlier one are handled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from textual.app import App
from textual.events import Key, Paste
from textual.message_pump import MessagePump

Input: TypeAlias = "Key | Paste"

_MAX_WAIT_SECONDS = 5.0
"""Maximum delay of a key by the one before, so that a slow disk never locks the keyboard."""
_POLL_SECONDS = 0.003


class KeyQueue:
    """Queue that sends one key after another."""

    def __init__(
        self, app: App[None], send: Callable[[Input], Awaitable[None]], *, is_busy: Callable[[], bool]
    ) -> None:
        """Create an empty queue; `send` dispatches a key, `is_busy` is True while an effect is still to come."""
        self._app, self._send, self._is_busy = app, send, is_busy
        self._inputs: deque[Input] = deque()
        self._sending: asyncio.Task[None] | None = None

    @property
    def is_empty(self) -> bool:
        """True if all keys were sent and their effects have arrived."""
        return self._sending is None or self._sending.done()

    def put(self, key: Input) -> None:
        """Send a key, after the earlier ones."""
        self._inputs.append(key)
        if self.is_empty:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        await self._wait_for_effects()
        while self._inputs:
            await self._send(self._inputs.popleft())
            await self._wait_for_effects()

    async def _wait_for_effects(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._handle_all_messages(), _MAX_WAIT_SECONDS)

    async def _handle_all_messages(self) -> None:
        """Wait until the messages of the last key are handled and the dialog that it opens can be typed into."""
        quiet_rounds = 0
        while (
            self._app.is_running and quiet_rounds < 2
        ):  # the end of the busy state may have posted a message that is not handled yet
            screen, was_busy = self._app.screen, self._is_busy()
            target = self._app.focused or screen
            for node in (target, *target.ancestors_with_self):  # its own messages bubble up from one to the next
                await _handle_messages(node)
            is_quiet = not was_busy and not self._is_busy() and self._app.screen is screen
            quiet_rounds = quiet_rounds + 1 if is_quiet else 0
            if self._is_busy():
                await asyncio.sleep(_POLL_SECONDS)


async def _handle_messages(node: MessagePump) -> None:
    """Wait until a node has handled the messages in its queue."""
    handled = asyncio.Event()
    if node.is_running and node.call_later(handled.set):
        await handled.wait()
