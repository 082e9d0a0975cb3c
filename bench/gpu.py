"""Measure labbench on a GPU, part by part; called by bench/gpu.sh.

Each part runs in a process of its own with a time limit, and prints rows of `name<TAB>value<TAB>note`. The parts are in
bench/gpu_parts.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TOTAL_SECONDS = 520
"""Time after which no part starts; a part that does not fit any more is measured by the next call."""
PARTS = {
    "tests": 120,
    "launches": 60,
    "steps": 120,
    "precision": 60,
    "memory": 60,
    "first_metric": 60,
    "utilisation": 40,
    "jax": 90,
    "stacks": 200,
}
"""Parts in the order of measurement, each with its time limit in seconds."""


def describe_machine() -> str | None:
    """Return device, versions and commit in one line; None without a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return None
    try:
        words = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # the folder may be a copy without its history
        commit = "unknown"
    return (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"Python {sys.version.split()[0]}, commit {commit}"
    )


def measure(part: str, limit: float) -> tuple[str, bool]:
    """Return the rows of a part, and True if they are complete."""
    words = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), part]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        rows, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        rows, _ = process.communicate()
        return f"{rows}{part}\tnot measured\tit took more than {limit:.0f} s\n", False
    if process.returncode != 0:
        reason = errors.strip().splitlines()[-1] if errors.strip() else f"exit status {process.returncode}"
        return f"{rows}{part}\tnot measured\t{reason}\n", False
    return rows, True


def print_table(out: Path, unmeasured: dict[str, str]) -> None:
    """Print the rows of all parts as one table, and write it to `out`."""
    rows = []
    for part in PARTS:
        file = out / f"{part}.tsv"
        text = file.read_text() if file.exists() else unmeasured.get(part, "")
        rows += [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = [f"{name:{widths[0]}}  {value:>{widths[1]}}  {note}".rstrip() for name, value, note in rows]
    table = "\n".join([(out / "machine.txt").read_text().strip(), *lines])
    (out / "table.txt").write_text(f"{table}\n")
    print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure labbench on a GPU.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to measure: {' '.join(PARTS)}  [all]")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no such part: {unknown[0]}; the parts are {' '.join(PARTS)}")
    began = time.monotonic()
    try:
        machine = describe_machine()
    except ImportError as error:
        print(f"{error}: nothing measured", file=sys.stderr)
        return 2
    if machine is None:
        print("no CUDA device: nothing measured", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "machine.txt").write_text(f"{machine}\n")
    unmeasured = {}
    for part in options.parts or PARTS:
        file, left = options.out / f"{part}.tsv", TOTAL_SECONDS - (time.monotonic() - began)
        if file.exists():
            continue
        if left < PARTS[part] / 2:
            unmeasured[part] = f"{part}\tnot measured\tno time left: run the command again\n"
            continue
        print(f"{part} ...", file=sys.stderr, flush=True)
        rows, is_complete = measure(part, min(PARTS[part], left))
        if is_complete:
            file.write_text(rows)
        else:
            unmeasured[part] = rows
    print_table(options.out, unmeasured)
    return 1 if unmeasured else 0


if __name__ == "__main__":
    sys.exit(main())
