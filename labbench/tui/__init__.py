"""Terminal user interface; the only package that imports Textual."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labbench.errors import InputError

BUILTIN_VIEWS = ("runs", "chart", "compare", "grid", "why")
"""Built-in views to start with, beside saved views: one of the screens, or the chart alone."""


def run_app(path: Path, *, view: str | None = None, first: Mapping[str, Any] | None = None) -> None:
    """Browse the runs of a database until the user quits; wait for the database if it does not exist yet.

    `view` is one of `BUILTIN_VIEWS` or the name of a saved view. `first` is the initial state, in the format of a
    saved view, for a database without saved state.

    Raises InputError for an unknown view or a file that is not a labbench database.
    """
    from labbench.tui.saved_state import SavedState

    saved_state = SavedState(path)
    saved_state.last = saved_state.last or dict(first or {})
    views = [*BUILTIN_VIEWS, *saved_state.views]
    if view is not None and view not in views:
        raise InputError(f"there is no view named `{view}`: choose one of {', '.join(views)}")
    if path.exists():  # report an unreadable file on the command line, before the screen is taken over
        from labbench.store.reader import Reader

        Reader(path).close()
    # OpenBLAS would start a thread per core and reserve memory for each; the TUI uses no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # a collection during the imports would find nothing
    from labbench.tui.app import LabbenchApp  # Textual takes 0.2 s to import

    gc.freeze()  # later collections skip the modules: 30 ms less to the first paint
    gc.enable()

    LabbenchApp(path, view=view or "runs", saved_state=saved_state).run()
