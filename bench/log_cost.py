"""Measure the cost of logging: labbench, Trackio, TensorBoard (torch), W&B offline, MLflow, Aim, and flushed CSV.

    python bench/log_cost.py [--peers csv,trackio] [--jobs flat,paced] [--rounds 3] [--calls 50000]

Every measurement is a new process (bench/peers.py) in a new folder. The tools take turns in each round, so that other
load on the machine affects all of them; ratios are computed within a round. Each peer has its own virtual environment
below --cache; creating them takes a few minutes and some gigabytes. Peers cannot reach the network: their proxy is a
closed port, and telemetry is off. Tables are printed to stdout as Markdown, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from peers import ENDINGS, TOOLS

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "labbench-bench"

REQUIREMENTS = {
    "trackio": ["trackio"],
    "tensorboard": ["tensorboard", "torch>=2.6,<3", "numpy"],
    "wandb": ["wandb"],
    "mlflow": ["mlflow"],
    "aim": ["aim"],
}
LOCAL_TOOLS = ("list", "labbench", "csv")  # run in the current environment

QUIET_ENVIRONMENT = {
    "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # cache bytecode, as for an installed package
}  # fmt: skip

PROCESSES, CROWD_CALLS = 8, 5_000
KILL_AFTER_SECONDS = 1.5


@dataclass
class Figures:
    """Measured values by (tool, figure), one per round."""

    rounds: int
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, tool: str, **figures: float) -> None:
        for name, value in figures.items():
            self.values.setdefault((tool, name), []).append(value)

    def format_range(self, tool: str, name: str) -> str:
        values = self.values.get((tool, name))
        return (
            ""
            if not values
            else f"{_format(statistics.median(values))} ({_format(min(values))}-{_format(max(values))})"
        )

    def ratio(self, tool: str, other: str, name: str) -> tuple[float, float, float] | None:
        """Return median, minimum and maximum over the rounds of a tool's value relative to another tool's."""
        pairs = zip(self.values.get((tool, name), []), self.values.get((other, name), []), strict=False)
        ratios = [value / other_value for value, other_value in pairs if other_value]
        return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


class Bench:
    """The available tools, and the processes that measure them."""

    def __init__(self, tools: Sequence[str], cache: Path, rounds: int) -> None:
        self.pythons = {tool: python for tool in tools if (python := _make_python(tool, cache))}
        self.rounds = rounds
        self.figures = Figures(rounds)

    def turns(self) -> Iterator[str]:
        """Yield every tool once per round."""
        for number in range(self.rounds):
            for tool in self.pythons:
                print(f"round {number + 1}: {tool}", file=sys.stderr)
                yield tool

    @contextmanager
    def process(self, tool: str, job: str, folder: Path, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start the process of a measurement; kill it on exit if it still runs."""
        home = folder / "home"
        home.mkdir(exist_ok=True)
        folders = {"HOME": str(home), "TRACKIO_DIR": str(folder / "trackio"), "PYTHONPATH": str(HERE.parent)}
        process = subprocess.Popen(
            [self.pythons[tool], HERE / "peers.py", tool, job, folder, str(number)],
            cwd=folder, env=os.environ | QUIET_ENVIRONMENT | folders, stdin=subprocess.DEVNULL,
            stdout=(folder / "out").open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def measure(self, tool: str, job: str, folder: Path, number: int = 0) -> dict[str, float]:
        """Run a job and return its result; if it fails, print its output and return an empty dict."""
        (folder / "result.json").unlink(missing_ok=True)
        with self.process(tool, job, folder, number) as process:
            process.wait()
        try:
            return json.loads((folder / "result.json").read_text())
        except OSError:
            print(f"{tool}: {job} failed: {(folder / 'out').read_text()[-300:]}", file=sys.stderr)
            return {}

    def count_calls(self, tool: str, folder: Path) -> float:
        return self.measure(tool, "count", folder).get("calls", 0)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="labbench-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a background process of the tool may still write


def measure_load(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            bench.measure(tool, "load", folder)  # fill the file cache
        with temporary_folder() as folder:
            bench.figures.add(tool, **bench.measure(tool, "load", folder))


def measure_flat(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            share = TOOLS[tool].share
            result = bench.measure(tool, "flat", folder, int(calls * share))
            if result:
                result["durable"] /= share
                bench.figures.add(tool, **{f"flat {name}": value for name, value in result.items()})


def measure_paced(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            result = bench.measure(tool, "paced", folder, 2_000)
            bench.figures.add(tool, **{f"paced {name}": value for name, value in result.items()})


def measure_killed(bench: Bench, calls: int) -> None:
    """Send SIGKILL to a script that logs at 1 kHz, and to one that logs without a pause."""
    for tool in bench.turns():
        for name, pause in (("1 kHz", 1), ("flat out", 0)):
            if tool == "list" or (TOOLS[tool].share < 1 and not pause):
                continue
            with temporary_folder() as folder:
                counter = folder / "counter"
                with bench.process(tool, "endless", folder, pause) as process:
                    while process.poll() is None and not (counter.exists() and any(counter.read_bytes())):
                        time.sleep(0.001)
                    time.sleep(KILL_AFTER_SECONDS)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                logged = int.from_bytes(counter.read_bytes(), "little")
                time.sleep(0.5)  # a background process of the tool may still write
                lost = max(0.0, logged - bench.count_calls(tool, folder))
                milliseconds = 1e3 * KILL_AFTER_SECONDS * lost / max(1, logged)
                bench.figures.add(tool, **{f"killed at {name}, calls": lost, f"killed at {name}, ms": milliseconds})


def measure_ended(bench: Bench, calls: int) -> None:
    """Log 500 times, then end the script in each of `ENDINGS` without `finish`."""
    for tool in bench.turns():
        for number, ending in enumerate(ENDINGS):
            if tool != "list":
                with temporary_folder() as folder:
                    with bench.process(tool, "ends", folder, number) as process:
                        process.wait()
                    bench.figures.add(tool, **{f"lost by {ending}": 500 - bench.count_calls(tool, folder)})


def measure_crowd(bench: Bench, calls: int) -> None:
    """Start eight processes at once in one empty folder."""
    for tool in bench.turns():
        if tool == "list":
            continue
        share = TOOLS[tool].share
        with temporary_folder() as folder:
            with ExitStack() as stack:
                processes = [
                    stack.enter_context(bench.process(tool, "crowd", folder, int(CROWD_CALLS * share)))
                    for _ in range(PROCESSES)
                ]
                while len([*folder.glob("ready-*")]) + sum(p.poll() is not None for p in processes) < PROCESSES:
                    time.sleep(0.01)
                started = time.time()
                (folder / "go").touch()
                errors = sum(process.wait() != 0 for process in processes)
            done = [float(path.read_text()) for path in folder.glob("done-*")]
            lost = PROCESSES * int(CROWD_CALLS * share) - bench.count_calls(tool, folder)
            wall = (max(done) - started) / share if done else float("nan")
            bench.figures.add(tool, **{"crowd wall": wall, "crowd errors": errors, "crowd lost": lost})


JOBS = {
    "load": measure_load,
    "flat": measure_flat,
    "paced": measure_paced,
    "killed": measure_killed,
    "ended": measure_ended,
    "crowd": measure_crowd,
}

TABLES = [
    ("Seconds to start", ["import", "start", "import, start", "import, start, first value kept"]),
    ("Without a pause: microseconds per call with 4 scalars", ["flat median", "flat p99", "flat p99.9"]),
    ("Seconds until all calls are durable, bytes per point, files", ["flat durable", "flat bytes", "flat files"]),
    ("A call every 2 ms: microseconds per call", ["paced median", "paced p99", "paced p99.9"]),
    ("Calls lost after SIGKILL", ["killed at 1 kHz, calls", "killed at 1 kHz, ms", "killed at flat out, calls"]),
    ("Calls of 500 lost without `finish`", [f"lost by {ending}" for ending in ENDINGS]),
    (f"{PROCESSES} processes in one empty folder", ["crowd wall", "crowd errors", "crowd lost"]),
]

GOALS = [  # figure, reference tool, largest ratio
    ("flat median", "trackio", 0.10), ("flat median", "list", 6.0), ("paced median", "tensorboard", 0.10),
    ("paced p99", "tensorboard", 0.25), ("flat durable", "trackio", 0.35), ("flat durable", "csv", 2.0),
    ("flat bytes", "tensorboard", 0.7), ("import", "quickest", 0.2),
    ("import, start", "trackio", 0.1), ("import, start, first value kept", "trackio", 0.1),
    ("crowd wall", "trackio", 0.3),
]  # fmt: skip

LIMITS = {
    "paced p99.9": 2_000, "flat files": 1, "killed at 1 kHz, ms": 60, "killed at flat out, calls": 21_000,
    "crowd errors": 0, "crowd lost": 0, **{f"lost by {ending}": 0 for ending in ENDINGS},
}  # fmt: skip


def report(bench: Bench) -> None:
    figures, tools = bench.figures, list(bench.pythons)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python", end=" ")
    print(f"{platform.python_version()}, {bench.rounds} rounds: median (lowest-highest)")
    for title, names in TABLES:
        if any((tool, name) in figures.values for tool in tools for name in names):
            print(f"\n{title}\n\n| | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
            for tool in tools:
                print(f"| {tool} | {' | '.join(figures.format_range(tool, name) for name in names)} |")
    print("\n| labbench | measured | goal | |\n|---|---|---|---|")
    for name, other, most in GOALS:
        rivals = [tool for tool in tools if tool not in LOCAL_TOOLS] if other == "quickest" else [other]
        ratios = [ratio for rival in rivals if (ratio := figures.ratio("labbench", rival, name))]
        if ratios:
            middle, low, high = max(ratios)
            met = "met" if middle <= most else "**not met**"
            print(f"| {name} / {other} | {middle:.3f} ({low:.3f}-{high:.3f}) | <= {most:g} | {met} |")
    for name, most in LIMITS.items():
        if ("labbench", name) in figures.values:
            met = "met" if max(figures.values["labbench", name]) <= most else "**not met**"
            print(f"| {name} | {figures.format_range('labbench', name)} | <= {most:g} | {met} |")


def _make_python(tool: str, cache: Path) -> str | None:
    """Return the interpreter of a tool's environment, creating it if needed; None, with a message, on failure."""
    if tool in LOCAL_TOOLS:
        return sys.executable
    folder = cache / tool
    python = folder / "bin/python"
    if not (folder / "installed").exists():
        print(f"{tool}: installing into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = subprocess.run(
            [python, "-m", "pip", "install", "-q", *REQUIREMENTS[tool]], capture_output=True, text=True
        )
        if pip.returncode:
            print(f"**{tool} is left out, pip cannot install it:** {pip.stderr.strip().splitlines()[-1]}\n")
            return None
        (folder / "installed").touch()
    return str(python)


def _format(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(TOOLS), help=f"any of {', '.join(TOOLS)}")
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"any of {', '.join(JOBS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=50_000, help="log() calls of the job flat")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the peers' environments")
    options = parser.parse_args()
    tools = {"list", "labbench", *options.peers.split(",")}
    if unknown := tools - TOOLS.keys():
        parser.error(f"unknown peer: {', '.join(sorted(unknown))}; known: {', '.join(TOOLS)}")
    bench = Bench([tool for tool in TOOLS if tool in tools], options.cache, options.rounds)
    for name in options.jobs.split(","):
        print(name, file=sys.stderr)
        JOBS[name](bench, options.calls)
    report(bench)


if __name__ == "__main__":
    main()
