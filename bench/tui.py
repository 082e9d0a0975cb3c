"""Compare labbench's terminal interface with `wandb leet` on the same curves in tmux.

    python bench/tui.py                             all cases: about 20 minutes, mostly W&B writing its files
    python bench/tui.py --case paint --case keys    some cases; --no-wandb measures labbench only

Creates a virtual environment for wandb, and the data, in --folder; later runs reuse both. Prints a Markdown table: time
from a key press (or the start) to the event of the row, on a screen of 200 x 50.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from terminal import Terminal

HERE = Path(__file__).parent
WANDB = "wandb==0.31.0"
START_COUNT = 5


@dataclass(frozen=True)
class Row:
    """One row of the result table."""

    title: str
    labbench: str
    leet: str
    goal: str


@dataclass(frozen=True)
class Bench:
    """Folders with data and tools, and the two programs under test."""

    folder: Path
    """Folder for data and environments, kept between runs."""
    scratch: Path
    """Temporary folder, deleted at the end."""
    with_wandb: bool

    def wandb_python(self) -> Path:
        """Return the interpreter of wandb's virtual environment, creating it if needed."""
        home = self.folder / "wandb-env"
        python = home / "bin" / "python"
        if not (home / "bin" / "wandb").exists():
            venv.create(home, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-qq", WANDB], check=True)
        return python

    def data(self, tool: str, runs: int, metrics: int, points: int) -> Path:
        """Return the folder with these curves, creating it if needed."""
        folder = self.folder / f"{tool}-{runs}x{metrics}x{points}"
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(dir=self.scratch))
            python = sys.executable if tool == "labbench" else self.wandb_python()
            sizes = map(str, (runs, metrics, points))
            subprocess.run([python, HERE / "tui_data.py", tool, unfinished, *sizes], check=True)
            unfinished.rename(folder)
        return folder

    def labbench(self, runs: int, metrics: int = 4, points: int = 1000) -> Terminal:
        """Start labbench on these curves, with a temporary state folder."""
        database = self.data("labbench", runs, metrics, points) / "runs.db"
        # bytecode is cached, as in an installed package
        state = {"XDG_STATE_HOME": tempfile.mkdtemp(dir=self.scratch), "PYTHONDONTWRITEBYTECODE": ""}
        return Terminal([sys.executable, "-m", "labbench", "tui", str(database)], environ=state)

    def leet(self, runs: int, metrics: int = 4, points: int = 1000) -> Terminal:
        """Start `wandb leet` on these curves."""
        runs_folder = self.data("wandb", runs, metrics, points) / "wandb"
        (runs_folder / ".wandb-leet.json").unlink(missing_ok=True)  # the saved selection
        home = {
            "HOME": tempfile.mkdtemp(dir=self.scratch),
            "WANDB_ERROR_REPORTING": "false",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return Terminal([str(self.wandb_python().parent / "wandb"), "leet", str(runs_folder)], environ=home)


def format_seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if math.isfinite(value) else "no answer"


def format_milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms" if math.isfinite(value) else "no answer"


def measure_start(terminal: Terminal, words: str) -> tuple[float, float]:
    """Return the seconds to the first paint and to these words."""
    with terminal:
        return terminal.wait_until(str.strip), terminal.wait_until(lambda screen: words in screen)


def format_medians(pairs: list[tuple[float, float]]) -> str:
    return ", ".join(format_seconds(statistics.median(values)) for values in zip(*pairs, strict=True))


_HELLO = """
from textual.app import App
from textual.widgets import Static

class Hello(App):
    def compose(self):
        yield Static("hello world")

Hello().run()
"""
"""Smallest program in Textual."""


def measure_paint(bench: Bench) -> Iterator[Row]:
    """Measure the first paint and the table of runs: medians of several starts, in turns with LEET.

    The ratio is that of the first paint to the one of the smallest program in Textual.
    """
    for runs in (10, 100, 1000, 10_000):
        metrics, points = (4, 1000) if runs <= 1000 else (1, 10)
        labbench, leet, hello = [], [], []
        for _ in range(START_COUNT):
            hello_terminal = Terminal([sys.executable, "-c", _HELLO], environ={"PYTHONDONTWRITEBYTECODE": ""})
            hello.append(measure_start(hello_terminal, "hello world")[0])
            labbench.append(measure_start(bench.labbench(runs, metrics, points), f"of {runs}"))
            if bench.with_wandb and runs <= 1000:
                leet.append(measure_start(bench.leet(runs), "Runs ["))
        ratio = statistics.median(first for first, _ in labbench) / statistics.median(hello)
        measured = f"{format_medians(labbench)}; {ratio:.1f} times hello world"
        goal = "<= LEET, <= 2.0 times hello world"
        yield Row(f"first paint, table of {runs:,} runs", measured, format_medians(leet), goal)


def mark_all(terminal: Terminal, *, charts: int = 1) -> float:
    """Mark every run with one or four charts on the page; return the seconds until all is drawn."""
    launch(terminal)
    if charts == 1:  # a screen of this size opens on four
        terminal.keys("<", "<")
        terminal.settle()
    since = time.perf_counter()
    terminal.keys("*")
    return terminal.settle(since=since, quiet=2.0)


def launch(terminal: Terminal) -> float:
    """Return the seconds from the start to the last change of the screen."""
    terminal.wait_until(str.strip)
    return terminal.settle(quiet=2.0)


def select_all(terminal: Terminal) -> float:
    """Select every run in LEET, which asks for confirmation; return the seconds until all is drawn."""
    launch(terminal)
    terminal.press("C-a")
    terminal.settle()
    since = time.perf_counter()
    terminal.keys("y")
    return terminal.settle(since=since, quiet=2.0, timeout=180)


def measure_overlay(bench: Bench) -> Iterator[Row]:
    """Measure the time to draw all runs, and the memory."""
    for runs, goal in ((100, ""), (1000, "4 charts: <= 3 times the time of 100; <= 120 MB")):
        answers = []
        for charts in (4, 1):
            with bench.labbench(runs) as terminal:
                answers.append(f"{format_seconds(mark_all(terminal, charts=charts))}, {terminal.megabytes():.0f} MB")
        leet = ""
        if bench.with_wandb:
            with bench.leet(runs) as terminal:
                leet = f"{format_seconds(select_all(terminal))}, {terminal.megabytes():.0f} MB"
        yield Row(
            f"{runs:,} runs x 4 metrics x 1,000 points, all marked: 4 charts drawn, memory", answers[0], leet, goal
        )
        yield Row(f"{runs:,} runs, all marked: 1 chart drawn, memory", answers[1], "", goal)


def measure_long_runs(bench: Bench) -> Iterator[Row]:
    """Measure long runs: launch to the final curve, zoom."""
    with bench.labbench(1, 1, 1_000_000) as terminal:
        answer, zoom = launch(terminal), terminal.median(["+"] * 10, pause=0.6)
    leet = None
    if bench.with_wandb:
        with bench.leet(1, 1, 1_000_000) as terminal:
            leet = launch(terminal)
    yield Row(
        "one run of 1 M points: launch to the final curve", format_seconds(answer), format_seconds(leet), "<= 0.6 s"
    )
    yield Row("zoom step on 1 M points", format_milliseconds(zoom), "mouse only", "<= 40 ms")
    with bench.labbench(20, 1, 100_000) as terminal:
        answer = mark_all(terminal)
    if bench.with_wandb:
        with bench.leet(20, 1, 100_000) as terminal:
            leet = select_all(terminal)
    yield Row("20 runs x 100,000 points, all drawn", format_seconds(answer), format_seconds(leet), "<= 0.8 s")


def measure_keys(bench: Bench) -> Iterator[Row]:
    """Measure single keys with 100 marked runs, and the crosshair with 50."""
    with bench.labbench(100) as terminal:
        mark_all(terminal)  # one chart: LEET toggles the axis of one
        answers = {title: terminal.median([key] * 9) for title, key in (("log toggle", "y"), ("smoothing step", "s"))}
        answers["zoom step"] = terminal.median(["+"] * 9)
    leet = None
    if bench.with_wandb:
        with bench.leet(100) as terminal:
            select_all(terminal)
            terminal.keys("Tab")
            terminal.settle()
            leet = terminal.median(["y"] * 9)
    for title, answer in answers.items():
        leet_answer = format_milliseconds(leet) if title == "log toggle" else "not possible"
        yield Row(f"{title}, 100 runs marked", format_milliseconds(answer), leet_answer, "<= 30 ms")
    with bench.labbench(50) as terminal:
        mark_all(terminal)
        terminal.keys("h")
        terminal.settle()
        yield Row(
            "crosshair step, 50 runs marked", format_milliseconds(terminal.median(["h"] * 19)), "mouse only", "<= 20 ms"
        )


def measure_move(bench: Bench) -> Iterator[Row]:
    """Measure moving from row to row."""
    for runs, goal in ((100, "<= 16 ms"), (1000, "<= 20 ms"), (10_000, "<= 20 ms")):
        metrics, points = (4, 1000) if runs <= 1000 else (1, 10)
        with bench.labbench(runs, metrics, points) as terminal:
            launch(terminal)
            answer = terminal.median(["Down"] * 19)
        leet = None
        if bench.with_wandb and runs <= 1000:
            with bench.leet(runs) as terminal:
                launch(terminal)
                leet = terminal.median(["Down"] * 19)
        yield Row(f"row move, {runs:,} runs", format_milliseconds(answer), format_milliseconds(leet), goal)


_LIVE = """
import sys, time, labbench
with labbench.start("live", db=sys.argv[1]) as run:
    for step in range(4000):
        run.log({"loss": 1 / (1 + step)})
        time.sleep(0.01)
"""


def measure_idle(bench: Bench) -> Iterator[Row]:
    """Measure the CPU time without key presses, idle and with one live run."""
    with bench.labbench(100) as terminal:
        launch(terminal)
        answer = terminal.idle_cost(15)
    leet = ""
    if bench.with_wandb:
        with bench.leet(100) as terminal:
            launch(terminal)
            leet = str(terminal.idle_cost(15))
    yield Row("idle, share of a core", str(answer), leet, "0.1 %")
    with Terminal([sys.executable, "-c", _HELLO]) as terminal:
        launch(terminal)
        yield Row("hello world in Textual, idle", str(terminal.idle_cost(15)), "", "")
    database = Path(tempfile.mkdtemp(dir=bench.scratch)) / "runs.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _LIVE, str(database)], env={**os.environ, "PYTHONPATH": str(HERE.parent)}
    )
    try:
        with Terminal([sys.executable, "-m", "labbench", "tui", str(database)]) as terminal:
            terminal.wait_until(lambda screen: "live" in screen)
            time.sleep(3)
            yield Row("one live run of 100 points/s, share of a core", str(terminal.idle_cost(15)), "", "<= 5 %")
    finally:
        writer.terminate()
        writer.wait()


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "paint": measure_paint,
    "overlay": measure_overlay,
    "long": measure_long_runs,
    "keys": measure_keys,
    "move": measure_move,
    "idle": measure_idle,
}


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="run only this case; may be repeated")
    parser.add_argument("--no-wandb", action="store_true", help="measure labbench only")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "labbench-bench-tui")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("| measurement, at 200x50 | labbench | wandb leet | goal |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as scratch:
        bench = Bench(options.folder.resolve(), Path(scratch).resolve(), not options.no_wandb)
        for name in options.case or CASES:
            for row in CASES[name](bench):
                print(f"| {row.title} | {row.labbench} | {row.leet or '-'} | {row.goal} |", flush=True)


if __name__ == "__main__":
    main()
