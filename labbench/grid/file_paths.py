"""Files that the configs of a grid name: relative paths are relative to the grid file's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from labbench.files import expand_home
from labbench.grid.expansion import position_of
from labbench.grid.read import Grid
from labbench.params.builtin import takes_weights
from labbench.params.param import Params
from labbench.params.paths import RUN_PREFIX
from labbench.records import Config


def with_absolute_paths(grid: Grid, config: Config, params: Params) -> Config:
    """Return the config with absolute paths in place of relative ones."""
    folder = grid.path.parent
    return {**config, **{key: str(_locate(word, folder)) for key, word in _file_settings(grid, config, params)}}


def named_files(grid: Grid, configs: Iterable[Config], params: Params) -> list[str]:
    """Return the absolute paths of the data and weights that the configs name, each once."""
    absolute = (with_absolute_paths(grid, config, params) for config in configs)
    return list(dict.fromkeys(word for config in absolute for _, word in _file_settings(grid, config, params)))


def path_warnings(grid: Grid, configs: Iterable[Config], params: Params) -> list[str]:
    """Return a warning for each path that exists in the current folder only.

    In the first release such paths were relative to the current folder.
    """
    folder = grid.path.parent
    words = dict.fromkeys(setting for config in configs for setting in _file_settings(grid, config, params))
    errors = [
        grid.source.error(
            f"{key}: there is no {word} in the grid file's folder, so the one in the current folder is used; "
            "write a path relative to the grid file, or an absolute one",
            position_of(grid, key, word),
        )
        for key, word in words
        if _is_in_current_folder_only(word, folder)
    ]
    return [str(error).partition("\n")[0] for error in errors]


def _file_settings(grid: Grid, config: Config, params: Params) -> Iterator[tuple[str, str]]:
    """Yield the keys of a config that name files, with their values."""
    if grid.task == "own" and config["path"]:
        yield "path", config["path"]
    weights = config.get("init_from") if takes_weights(params) else None
    if weights is not None and not weights.startswith(RUN_PREFIX):
        yield "init_from", weights


def _locate(word: str, folder: Path) -> Path:
    path = expand_home(word)
    return (path if _is_in_current_folder_only(word, folder) else folder / path).resolve()


def _is_in_current_folder_only(word: str, folder: Path) -> bool:
    path = expand_home(word)
    return not path.is_absolute() and path.exists() and not (folder / path).exists()
