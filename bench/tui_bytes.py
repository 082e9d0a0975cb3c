"""Measure the bytes that labbench's terminal interface and `wandb leet` write for a key press, at 200 x 50.

    python bench/tui_bytes.py                bytes beside LEET, then times through a link of 20 kB/s
    python bench/tui_bytes.py --no-wandb     labbench only

Uses the data and the environment of bench/tui.py (--folder). Prints Markdown tables; every figure is a median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from pty_program import PtyProgram

from tui import Bench

RUNS = 100
SLOW_LINK = 20_000
"""Bytes per second of a slow SSH connection."""
DOWN, UP, MOUSE = "\x1b[B", "\x1b[A", "\x1b[<35;{column};{row}M"


@dataclass(frozen=True)
class Case:
    """Keys of which each press is measured, after keys that prepare the screen."""

    title: str
    goal: str
    keys: list[str]
    before: str = ""
    leet_keys: list[str] | None = None
    leet_before: str = ""


CASES = [
    Case("row move", "<= 3 kB", [DOWN] * 6, leet_keys=[DOWN] * 6),
    Case("crosshair step", "<= 3 kB", ["h"] * 6, before="*h"),
    Case("mark", "<= 6 kB", [" "] * 6),
    Case("zoom", "<= 6 kB", ["+"] * 6),
    Case("log y", "", ["y"] * 6, leet_before="\t", leet_keys=["y"] * 6),
    Case("filter letter", "<= 3 kB", list("lr=0.0"), before="f"),
    Case("help", "<= 25 kB", ["?", "\x1b", "?", "\x1b"], leet_keys=["?", "?", "?", "?"]),
    Case("another screen", "<= 25 kB", ["3", "1", "3", "1"]),
    Case("mouse move over nothing", "0", [MOUSE.format(column=100 + n, row=1) for n in range(6)]),
]


def labbench_program(bench: Bench, rate: float | None = None) -> PtyProgram:
    database = bench.data("labbench", RUNS, 4, 1000) / "runs.db"
    state = {"XDG_STATE_HOME": tempfile.mkdtemp(dir=bench.scratch), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "labbench", "tui", str(database)]
    return PtyProgram(command, environ=state, bytes_per_second=rate)


def leet_program(bench: Bench, rate: float | None = None) -> PtyProgram:
    folder = bench.data("wandb", RUNS, 4, 1000) / "wandb"
    (folder / ".wandb-leet.json").unlink(missing_ok=True)  # the saved selection
    home = {"HOME": tempfile.mkdtemp(dir=bench.scratch), "WANDB_ERROR_REPORTING": "false"}
    command = [str(bench.wandb_python().parent / "wandb"), "leet", str(folder)]
    return PtyProgram(command, environ=home, bytes_per_second=rate)


def measure_bytes(start: Callable[[], PtyProgram], before: str, keys: list[str]) -> float:
    """Return the median of the bytes written for a key."""
    with start() as program:
        program.read_start()
        for key in before:
            program.press(key)
        return statistics.median(program.press(key).written for key in keys)


def measure_start(start: Callable[[], PtyProgram]) -> int:
    """Return the bytes written until the first screen is complete."""
    with start() as program:
        return program.read_start().written


def bytes_table(bench: Bench) -> Iterator[list[str]]:
    """Yield the rows of the table of bytes."""
    yield ["bytes at 200 x 50", "labbench", "LEET", "goal"]
    leet_start = measure_start(lambda: leet_program(bench)) if bench.with_wandb else None
    yield ["start", format_bytes(measure_start(lambda: labbench_program(bench))), format_bytes(leet_start), "<= 40 kB"]
    for case in CASES:
        labbench = measure_bytes(lambda: labbench_program(bench), case.before, case.keys)
        leet = None
        if bench.with_wandb and case.leet_keys:
            leet = measure_bytes(lambda: leet_program(bench), case.leet_before, case.leet_keys)
        yield [case.title, format_bytes(labbench), format_bytes(leet), case.goal]


def slow_table(bench: Bench) -> Iterator[list[str]]:
    """Yield the rows of the table of times through a slow link."""
    yield [f"seconds at {SLOW_LINK // 1000} kB/s", "first change", "whole change", "goal"]
    with labbench_program(bench, SLOW_LINK) as program:
        start = program.read_start()
    yield ["start", f"{start.first_seconds:.2f}", f"{start.last_seconds:.2f}", ""]
    for case in CASES[:-1]:
        with labbench_program(bench, SLOW_LINK) as program:
            program.read_start()
            for key in case.before:
                program.press(key)
            answers = [program.press(key) for key in case.keys]
        first = statistics.median(answer.first_seconds for answer in answers)
        last = statistics.median(answer.last_seconds for answer in answers)
        yield [case.title, f"{first:.2f}", f"{last:.2f}", "first <= 0.3, whole <= 1.5"]


def format_bytes(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def print_table(rows: Iterator[list[str]]) -> None:
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |", flush=True)
        if number == 0:
            print("|" + "---|" * len(row))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "labbench-bench-tui")
    parser.add_argument("--no-wandb", action="store_true", help="measure labbench only")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        bench = Bench(options.folder, Path(scratch), not options.no_wandb)
        print_table(bytes_table(bench))
        print_table(slow_table(bench))


if __name__ == "__main__":
    main()
