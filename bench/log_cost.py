"""What logging costs: labbench beside Trackio, TensorBoard (torch's), W&B offline, MLflow, Aim, and CSV with a flush.

    python bench/log_cost.py [--peers csv,trackio] [--jobs flat,paced] [--rounds 3] [--calls 50000]

Every measurement is a process of its own (bench/peers.py) in a folder of its own, the tools one after another and again
in turn, so that a busy machine is as busy for all; ratios are taken within a round. Each peer gets its own virtual
environment below --cache, which takes a few minutes and some gigabytes the first time. No peer can reach the network:
its proxy is a closed port, and its telemetry is off. Tables go to stdout as Markdown, talk to stderr.
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
LOCAL_TOOLS = ("list", "labbench", "csv")  # these run in this very environment

QUIET_ENVIRONMENT = {
    "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # an installed package has its bytecode, and so must this checkout
}  # fmt: skip

PROCESSES, CROWD_CALLS = 8, 5_000
KILL_AFTER_SECONDS = 1.5


@dataclass
class Figures:
    """Values by (tool, figure), one a round."""

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
        """Median, lowest and highest over the rounds of what a tool takes for each that another takes."""
        pairs = zip(self.values.get((tool, name), []), self.values.get((other, name), []), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


class Bench:
    """The tools that are there, and a process for each measurement."""

    def __init__(self, tools: Sequence[str], cache: Path, rounds: int) -> None:
        self.pythons = {tool: python for tool in tools if (python := _make_python(tool, cache))}
        self.rounds = rounds
        self.figures = Figures(rounds)

    def turns(self) -> Iterator[str]:
        """Every tool, in each round."""
        for number in range(self.rounds):
            for tool in self.pythons:
                print(f"round {number + 1}: {tool}", file=sys.stderr)
                yield tool

    @contextmanager
    def process(self, tool: str, job: str, folder: Path, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """A measurement under way; it is ended if it was not."""
        home = folder / "home"
        home.mkdir(exist_ok=True)
        own = {"HOME": str(home), "TRACKIO_DIR": str(folder / "trackio"), "PYTHONPATH": str(HERE.parent)}
        process = subprocess.Popen(
            [self.pythons[tool], HERE / "peers.py", tool, job, folder, str(number)],
            cwd=folder, env=os.environ | QUIET_ENVIRONMENT | own, stdin=subprocess.DEVNULL,
            stdout=(folder / "out").open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def measure(self, tool: str, job: str, folder: Path, number: int = 0) -> dict[str, float]:
        """What a job has measured; nothing where it failed, which is said."""
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
        shutil.rmtree(folder, ignore_errors=True)  # a tool's own daemon may still write


def measure_load(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            bench.measure(tool, "load", folder)  # so that the files are in memory, for all
        with temporary_folder() as folder:
            bench.figures.add(tool, **bench.measure(tool, "load", folder))


def measure_flat(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            share = TOOLS[tool].share
            found = bench.measure(tool, "flat", folder, int(calls * share))
            if found:
                found["durable"] /= share
                bench.figures.add(tool, **{f"flat {name}": value for name, value in found.items()})


def measure_paced(bench: Bench, calls: int) -> None:
    for tool in bench.turns():
        with temporary_folder() as folder:
            found = bench.measure(tool, "paced", folder, 2_000)
            bench.figures.add(tool, **{f"paced {name}": value for name, value in found.items()})


def measure_killed(bench: Bench, calls: int) -> None:
    """SIGKILL while a script logs at 1 kHz, and while it logs without a pause."""
    for tool in bench.turns():
        for name, pause in (("1 kHz", 1), ("flat out", 0)):
            if tool == "list" or (TOOLS[tool].share < 1 and not pause):
                continue
            with temporary_folder() as folder:
                said = folder / "said"
                with bench.process(tool, "endless", folder, pause) as process:
                    while process.poll() is None and not (said.exists() and any(said.read_bytes())):
                        time.sleep(0.001)
                    time.sleep(KILL_AFTER_SECONDS)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                logged = int.from_bytes(said.read_bytes(), "little")
                time.sleep(0.5)  # a tool's own daemon may still write
                lost = max(0.0, logged - bench.count_calls(tool, folder))
                milliseconds = 1e3 * KILL_AFTER_SECONDS * lost / max(1, logged)
                bench.figures.add(tool, **{f"killed at {name}, calls": lost, f"killed at {name}, ms": milliseconds})


def measure_ended(bench: Bench, calls: int) -> None:
    """500 calls, then the script ends in each way that there is, without `finish`."""
    for tool in bench.turns():
        for number, how in enumerate(ENDINGS):
            if tool != "list":
                with temporary_folder() as folder:
                    with bench.process(tool, "ends", folder, number) as process:
                        process.wait()
                    bench.figures.add(tool, **{f"lost by {how}": 500 - bench.count_calls(tool, folder)})


def measure_crowd(bench: Bench, calls: int) -> None:
    """Eight processes that begin at once in one empty folder."""
    for tool in bench.turns():
        if tool == "list":
            continue
        share = TOOLS[tool].share
        with temporary_folder() as folder:
            with ExitStack() as stack:
                begun = [
                    stack.enter_context(bench.process(tool, "crowd", folder, int(CROWD_CALLS * share)))
                    for _ in range(PROCESSES)
                ]
                while len([*folder.glob("ready-*")]) + sum(one.poll() is not None for one in begun) < PROCESSES:
                    time.sleep(0.01)
                began = time.time()
                (folder / "go").touch()
                errors = sum(one.wait() != 0 for one in begun)
            done = [float(path.read_text()) for path in folder.glob("done-*")]
            lost = PROCESSES * int(CROWD_CALLS * share) - bench.count_calls(tool, folder)
            wall = (max(done) - began) / share if done else float("nan")
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
    ("Seconds to begin", ["import", "start", "import, start", "import, start, first value kept"]),
    ("Flat out: microseconds a call of 4 scalars", ["flat median", "flat p99", "flat p99.9"]),
    ("Seconds until all calls are durable, bytes a point, files", ["flat durable", "flat bytes", "flat files"]),
    ("A call every 2 ms: microseconds a call", ["paced median", "paced p99", "paced p99.9"]),
    ("Lost by SIGKILL", ["killed at 1 kHz, calls", "killed at 1 kHz, ms", "killed at flat out, calls"]),
    ("Calls of 500 lost without `finish`", [f"lost by {how}" for how in ENDINGS]),
    (f"{PROCESSES} processes on one cold folder", ["crowd wall", "crowd errors", "crowd lost"]),
]

GOALS = [  # figure, other tool, at most
    ("flat median", "trackio", 0.10), ("flat median", "list", 6.0), ("paced median", "tensorboard", 0.10),
    ("paced p99", "tensorboard", 0.25), ("flat durable", "trackio", 0.35), ("flat durable", "csv", 2.0),
    ("flat bytes", "tensorboard", 0.7), ("import", "quickest", 0.2),
    ("import, start", "trackio", 0.1), ("import, start, first value kept", "trackio", 0.1),
    ("crowd wall", "trackio", 0.3),
]  # fmt: skip

LIMITS = {
    "paced p99.9": 2_000, "flat files": 1, "killed at 1 kHz, ms": 60, "killed at flat out, calls": 21_000,
    "crowd errors": 0, "crowd lost": 0, **{f"lost by {how}": 0 for how in ENDINGS},
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
    """The interpreter of a tool's environment, made if it is not there; None where that fails, and it is said."""
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
            print(f"**{tool} is left out, it cannot be installed:** {pip.stderr.strip().splitlines()[-1]}\n")
            return None
        (folder / "installed").touch()
    return str(python)


def _format(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(TOOLS), help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"of {', '.join(JOBS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=50_000, help="of log(), flat out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are kept")
    options = parser.parse_args()
    chosen = {"list", "labbench", *options.peers.split(",")}
    if unknown := chosen - TOOLS.keys():
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    bench = Bench([tool for tool in TOOLS if tool in chosen], options.cache, options.rounds)
    for name in options.jobs.split(","):
        print(name, file=sys.stderr)
        JOBS[name](bench, options.calls)
    report(bench)


if __name__ == "__main__":
    main()
