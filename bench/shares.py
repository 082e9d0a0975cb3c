"""Profile `labbench run`: shares of the time for arithmetic, optimizer, dropout, metrics, SQLite, start-up.

Trains each CPU case of bench/stacks.py with two workers, from the start of the command to its end, and samples the
Python stacks of all processes once per millisecond (bench/sampler.py). labbench itself has no code for this. Prints,
per case, shares of the two workers' time (twice the wall time):

    loading     time until a worker has its first stack, mostly imports
    preparing   tasks, data, models, the equivalence check and timing trials before training
    validation  evaluation on validation data
    recording   metrics, checkpoints, and sending them to the driver
    idle        time when no stacks are left

and the CPU time of the process that writes the database, in shares of one core. With --places, also the functions of
labbench with the largest shares (including the functions they call, such as torch's).

    python bench/shares.py [--case NAME] [--rounds 3] [--quick] [--places]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import sampler
from stacks import CASES, PROCESS_COUNT, TASKS, Case

HERE = Path(__file__).parent
IN_WORKERS = (
    "arithmetic",
    "optimizer",
    "dropout",
    "metrics",
    "data",
    "validation",
    "recording",
    "loading",
    "preparing",
    "idle",
)
MAX_PLACES = 25
IN_DRIVER = ("SQLite", "receiving", "driving", "progress", "start-up")


def train(grid: Path, epochs: int, folder: Path) -> float:
    """Train a grid in a sampled subprocess; return the wall time in seconds."""
    words = [sys.executable, str(HERE / "shares.py"), "--train", str(grid), str(epochs)]
    began = time.perf_counter()
    subprocess.run(
        words, check=True, cwd=folder, capture_output=True, env={**os.environ, sampler.FOLDER_VARIABLE: str(folder)}
    )
    return time.perf_counter() - began


def run_sampled_command(grid: str, epochs: str) -> None:
    """Run `labbench run` in this process, sampled as the driver."""
    driver_sampler = sampler.watch_driver()
    from labbench.cli import main

    try:
        main(
            [
                "--db",
                "runs.db",
                "run",
                grid,
                "--set",
                f"epochs={epochs}",
                "--device",
                "cpu",
                "--workers",
                str(PROCESS_COUNT),
            ]
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        driver_sampler.seconds["start-up"] += time.process_time() - sum(driver_sampler.seconds.values())  # interpreter
        driver_sampler.write()


def measure_shares(case: Case, epochs: int) -> tuple[float, Counter[str], Counter[str]]:
    """Train a case; return the wall time in seconds, the shares of the workers' time, and of the driver's core."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = folder / "grid.toml"
        tasks = HERE / "share_tasks.py"
        text = case.grid.replace('"digits"', f'"{tasks}:DigitsTask"').replace(f"{TASKS}:", f"{tasks}:")
        grid.write_text(f'name = "bench"\n{text}')
        began = time.perf_counter()
        seconds = train(grid, epochs, folder)
        workers: Counter[str] = Counter()
        for file in folder.glob("worker-*.json"):
            result = json.loads(file.read_text())
            before = result["first"] - began
            workers.update(result["seconds"])
            workers["loading"] += before
            workers["idle"] += seconds - before - sum(result["seconds"].values())
        workers["idle"] += seconds * (PROCESS_COUNT - len(list(folder.glob("worker-*.json"))))
        (driver,) = (json.loads(file.read_text())["seconds"] for file in folder.glob("driver-*.json"))
    return (
        seconds,
        shares_by_purpose(workers, PROCESS_COUNT * seconds),
        shares_by_purpose(driver, seconds),
    )


def shares_by_purpose(seconds: Mapping[str, float], whole: float) -> Counter[str]:
    """Return the shares of `whole` seconds by purpose, and by purpose and function."""
    shares: Counter[str] = Counter()
    for name, value in seconds.items():
        purpose, _, place = name.partition(" ")
        shares[purpose] += value / whole
        if place:
            shares[name] += value / whole
    return shares


def print_places(name: str, rounds: Sequence[Counter[str]]) -> None:
    """Print the functions with the largest shares of the workers' time, medians over rounds."""
    names = {place for shares in rounds for place in shares if " " in place}
    places = {place: statistics.median(shares[place] for shares in rounds) for place in names}
    print(f"\n{name}:")
    for place in sorted(places, key=places.__getitem__, reverse=True)[:MAX_PLACES]:
        print(f"  {places[place]:6.1%}  {place}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Profile `labbench run` by purpose.")
    parser.add_argument(
        "--case", choices=[name for name, case in CASES.items() if case.device == "cpu"], action="append"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few epochs and one round")
    parser.add_argument("--places", action="store_true", help="also print the functions with the largest shares")
    parser.add_argument("--train", nargs=2, metavar=("GRID", "EPOCHS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        run_sampled_command(*options.train)
        return
    names = options.case or [name for name, case in CASES.items() if case.device == "cpu"]
    results: dict[str, list[tuple[float, Counter[str], Counter[str]]]] = {}
    for _ in range(1 if options.quick else options.rounds):
        for name in names:
            case = CASES[name]
            results.setdefault(name, []).append(measure_shares(case, case.quick if options.quick else case.epochs))
    print(f"load {os.getloadavg()[0]:.1f}")
    print("| | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
    print(
        "| seconds | "
        + " | ".join(f"{statistics.median(result[0] for result in results[name]):.1f}" for name in names)
        + " |"
    )
    for part, rows, title in ((1, IN_WORKERS, "workers"), (2, IN_DRIVER, "driver")):
        for row in rows:
            cells = [f"{statistics.median(result[part][row] for result in results[name]):.1%}" for name in names]
            print(f"| {title}: {row} | " + " | ".join(cells) + " |")
    for name in names if options.places else ():
        print_places(name, [workers for _, workers, _ in results[name]])


if __name__ == "__main__":
    main()
