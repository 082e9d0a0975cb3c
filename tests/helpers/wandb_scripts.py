"""Run scripts written for Weights & Biases in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from helpers.waiting import HANG_SECONDS


def run_script(
    folder: Path, code: str, *words: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `train.py` with the given code in `folder`, with its own environment variables of labbench and W&B."""
    (folder / "train.py").write_text(textwrap.dedent(code))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LABBENCH", "WANDB"))}
    inherited["LABBENCH_QUIET"] = "1"
    return subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=folder,
        env=inherited | (environment or {}),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
