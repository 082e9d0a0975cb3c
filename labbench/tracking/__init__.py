"""Tracking for people's own scripts: `labbench.start()` and the `Run` that it gives.

`Run.log` appends to a backlog, a `Recorder`'s thread empties it into the store, `Storage` keeps what cannot be stored.
"""

from labbench.tracking.run import Run
from labbench.tracking.starting import start
from labbench.tracking.trio import finish, init, log

__all__ = ["Run", "finish", "init", "log", "start"]
