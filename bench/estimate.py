"""Compare the estimates of `labbench run --dry-run` with the time that `labbench run` takes, start-up included.

Each grid is estimated and then trained, by turns, in processes of their own. A ratio of 1 is exact; the aim is a ratio
between 0.5 and 2, and an answer within 2 seconds unless the dry run says that it measures.

    python bench/estimate.py [--grid NAME] [--rounds 2]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = Path(__file__).with_name("stack_tasks.py").resolve()

GRIDS = {
    "mlp": """
task = "digits"
[params]
epochs = 20
[grid]
dropout = [0.0, 0.5]
batchnorm = [false, true]
lr = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003]
[[zip]]
optimizer = ["sgd", "sgd", "adam"]
momentum = [0.0, 0.9, 0.0]
[repeat]
seeds = 2
""",
    "cnn": """
task = "digits"
[params]
epochs = 8
model = "cnn"
batchnorm = true
[grid]
lr = [0.03, 0.01, 0.003, 0.001]
optimizer = ["sgd", "adam"]
[repeat]
seeds = 3
""",
    "cnn 16x16": f"""
task = "{TASKS}:Images"
[params]
epochs = 8
[grid]
lr = [0.03, 0.01, 0.003, 0.001]
optimizer = ["sgd", "adam"]
[repeat]
seeds = 3
""",
    "transformer": f"""
task = "{TASKS}:Transformer"
[params]
epochs = 6
[grid]
lr = [0.03, 0.01, 0.003, 0.001]
[repeat]
seeds = 3
""",
    "search": """
task = "digits"
[params]
epochs = 27
[grid]
optimizer = ["sgd", "adam"]
lr = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
dropout = [0.0, 0.2, 0.5]
[search]
method = "halving"
metric = "val/accuracy"
seeds = 3
""",
    "few epochs": """
task = "digits"
[params]
epochs = 1
[grid]
lr = [0.1, 0.03, 0.01]
dropout = [0.0, 0.5]
[repeat]
seeds = 2
""",
}
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def run_labbench(folder: Path, *options: str) -> tuple[float, str]:
    """Run `labbench run` on the grid in a folder; return the seconds that it takes, and what it prints on stderr."""
    words = [sys.executable, "-m", "labbench", "--db", "runs.db", "run", "grid.toml", *options]
    start = time.perf_counter()
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, result.stderr


def read_estimate(output: str) -> float:
    """Return the seconds that `labbench run --dry-run` has estimated."""
    match = re.search(r"about ([\d.dhms]+) on", output)
    if match is None:
        raise SystemExit(f"no estimate in:\n{output}")
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", match[1]))


def measure(name: str, rounds: int) -> None:
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            (folder / "grid.toml").write_text(GRIDS[name])
            answer, output = run_labbench(folder, "--dry-run")
            wall, _ = run_labbench(folder)
            estimate = read_estimate(output)
            print(
                f"{name:11}  estimate {estimate:6.1f} s  wall {wall:6.1f} s  ratio {estimate / wall:4.2f}"
                f"  answer after {answer:4.1f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the estimates of --dry-run with the time of a run.")
    parser.add_argument("--grid", choices=list(GRIDS), action="append")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    for name in options.grid or list(GRIDS):
        measure(name, options.rounds)


if __name__ == "__main__":
    main()
