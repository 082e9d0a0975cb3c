"""The terminal interface: the only importer of Textual."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labbench.errors import InputError

BUILTIN_VIEWS = ("runs", "chart", "compare", "grid", "why")
"""What the application can begin with, beside the views that somebody has saved: a screen, or the charts alone."""


def run_app(path: Path, *, view: str | None = None, first: Mapping[str, Any] | None = None) -> None:
    """Browse the runs of a database until the person quits; a database that is not there yet is waited for.

    `first` is how it is seen by somebody who has not looked at it before, as a saved view has it.

    Raises InputError for a view that there is not, or a file that is no labbench database.
    """
    from labbench.tui.saved_state import SavedState

    saved_state = SavedState(path)
    saved_state.last = saved_state.last or dict(first or {})
    views = [*BUILTIN_VIEWS, *saved_state.views]
    if view is not None and view not in views:
        raise InputError(f"no view is called `{view}`: there are {', '.join(views)}")
    if path.exists():  # said on the command line, before the screen is taken over
        from labbench.store.reader import Reader

        Reader(path).close()
    # numpy's linear algebra would start a thread per core and reserve memory for each; nothing here uses it
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from labbench.tui.app import LabbenchApp  # Textual: 0.2 s that other commands do not pay

    LabbenchApp(path, view=view or "runs", saved_state=saved_state).run()
