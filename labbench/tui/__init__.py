"""The terminal interface: the only importer of Textual."""

from __future__ import annotations

import os
from pathlib import Path

from labbench.errors import InputError

VIEWS = ("runs", "chart")
"""What the application can begin with: the table beside the chart, or the chart alone."""


def run_app(path: Path, *, view: str | None = None) -> None:
    """Browse the runs of a database until the person quits; a database that is not there yet is waited for.

    Raises InputError for a view that there is not, or a file that is no labbench database.
    """
    if view is not None and view not in VIEWS:
        raise InputError(f"no view is called `{view}`: there are {', '.join(VIEWS)}")
    if path.exists():  # said on the command line, before the screen is taken over
        from labbench.store.reader import Reader

        Reader(path).close()
    # numpy's linear algebra would start a thread per core and reserve memory for each; nothing here uses it
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from labbench.tui.app import LabbenchApp  # Textual: 0.2 s that other commands do not pay

    LabbenchApp(path, view=view or "runs").run()
