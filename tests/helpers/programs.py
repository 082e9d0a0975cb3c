"""Programs outside the package, in bench/ and docs/, as modules."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_program(path: str) -> ModuleType:
    """Load a program such as `bench/coverage.py`."""
    spec = spec_from_file_location(f"labbench_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module
