"""Cache and state files of the user, in the folders that the operating system provides for them.

On Linux: `$XDG_CACHE_HOME/labbench` (default `~/.cache/labbench`) and `$XDG_STATE_HOME/labbench` (default
`~/.local/state/labbench`). On macOS, unless these variables are set: `~/Library/Caches/labbench` and
`~/Library/Application Support/labbench`; files that earlier versions wrote to the Linux folders remain in use.
"""

from __future__ import annotations

import os
from pathlib import Path

APP = "labbench"


def cache_path(name: str) -> Path:
    """Return the path of the cached file or folder `name`, which may not exist yet."""
    from platformdirs import user_cache_path  # imported here: most commands need neither folder

    return _in_use(user_cache_path(APP) / name, _xdg_folder("XDG_CACHE_HOME", ".cache") / name)


def state_path(name: str) -> Path:
    """Return the path of the state file `name`, which may not exist yet."""
    from platformdirs import user_state_path

    return _in_use(user_state_path(APP) / name, _xdg_folder("XDG_STATE_HOME", ".local/state") / name)


def _in_use(path: Path, earlier: Path) -> Path:
    """Return `path`, or `earlier` if only that exists."""
    return earlier if earlier != path and earlier.exists() and not path.exists() else path


def _xdg_folder(variable: str, default: str) -> Path:
    """Return the folder that earlier versions used on all systems."""
    folder = Path(os.environ.get(variable, ""))
    return (folder if folder.is_absolute() else Path.home() / default) / APP
