"""Modules loaded by imports and commands, each measured in a fresh process."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {
    "torch",
    "ray",
    "textual",
    "numpy",
    "plotext",
    "sqlite_utils",
    "rich",
    "click",
    "platformdirs",
    "PIL",
    "psutil",
}


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh Python has loaded after running `code`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


def test_importing_labbench_loads_only_the_standard_library() -> None:
    third_party = loaded_by("import labbench") - set(sys.stdlib_module_names) - loaded_by("")
    assert third_party == {"labbench"}


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    program = "import labbench; print(*dir(labbench))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = (
        "Data Datasets Image LabbenchError Param Run Task __version__ finish init load_model log open read_image start"
    )
    assert result.stdout.split() == names.split()


@pytest.mark.parametrize(
    "name", ["LabbenchError", "Param", "Run", "__version__", "finish", "init", "log", "open", "start"]
)
def test_public_names_without_torch_load_the_standard_library_alone(name: str) -> None:
    assert not loaded_by(f"from labbench import {name}") & HEAVY


def test_earlier_import_paths_of_task_files_still_work() -> None:
    pytest.importorskip("torch")
    program = """
import labbench
from labbench.params import Param
from labbench.train.data import Data
from labbench.train.loading import Datasets
from labbench.train.pictures import read_picture
assert (Param, Data, Datasets) == (labbench.Param, labbench.Data, labbench.Datasets)
assert read_picture is labbench.read_image
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("module", ["records.stack", "params", "errors", "filters", "grid", "text", "runner.planner"])
def test_modules_that_every_command_needs_load_only_the_standard_library(module: str) -> None:
    assert not loaded_by(f"import labbench.{module}") & HEAVY


def test_a_script_starts_a_run_without_subprocess() -> None:
    assert "subprocess" not in loaded_by("import labbench.tracking.start")


def test_a_new_run_records_without_the_modules_that_read_runs_or_train_them(tmp_path: Path) -> None:
    program = f"""
import labbench, sys
run = labbench.start(db={str(tmp_path / "runs.db")!r}, config={{"lr": 0.1}})
run.log({{"loss": 0.5}})
run.flush()
print(*(name for name in sys.modules if name.startswith("labbench.")))
run.finish()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unneeded = {"find_run", "run_records", "row_checks", "reader", "run_record", "stack", "training_events", "text"}
    assert not {name.rpartition(".")[2] for name in result.stdout.split()} & unneeded


@pytest.mark.parametrize("words", [["--help"], ["help", "filters"], ["run", "-h"]])
def test_the_help_loads_only_click(words: list[str]) -> None:
    code = f"from labbench.cli import main\ntry: main({words})\nexcept SystemExit: pass"
    assert loaded_by(code) & HEAVY == {"click"}


def test_expanding_the_grid_of_a_built_in_task_does_not_load_torch(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[grid]\nlr = [0.1, 0.01]\n')
    code = (
        f"from pathlib import Path; from labbench.runner.expanded_grid import load_grid; load_grid(Path({str(grid)!r}))"
    )
    assert "torch" not in loaded_by(code)


def test_windows_is_refused_with_the_way_to_run_there() -> None:
    code = "import sys; sys.platform = 'win32'; import labbench"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ImportError: labbench runs on Linux and macOS; on Windows")


def test_the_benches_import_names_that_exist() -> None:
    missing = []
    for path in sorted((ROOT / "bench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labbench"):
                missing += [
                    f"{path.name}: {node.module}.{alias.name}" for alias in node.names if not _exists(node, alias)
                ]
    assert not missing


def _exists(node: ast.ImportFrom, alias: ast.alias) -> bool:
    """Return True if a name can be imported, or its module needs a package that is not installed."""
    try:
        if hasattr(importlib.import_module(str(node.module)), alias.name):
            return True
        importlib.import_module(f"{node.module}.{alias.name}")
    except ImportError as error:
        return not (error.name or "").startswith("labbench")
    return True
