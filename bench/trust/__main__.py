"""Run parts of the bench of trust, and append what they tried to a table.

    python -m bench.trust --part crash --seed 1 --minutes 5
    python -m bench.trust                          # all parts with their default minutes, two hours in total
    python -m bench.trust --ci                     # a few trials of each part
    python -m bench.trust --table                  # print the table

A part is a module with `prepare`. Each trial is a function of the seed and its number, so that a run of the same
part and seed continues after the last trial of the table, and any trial can be repeated with --trial.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bench.trust.results import Results, format_table, read_rows


@dataclass(frozen=True, slots=True)
class Part:
    """Part of the bench."""

    module: str
    minutes: float
    """Duration of the long form."""
    ci_trials: int
    """Number of trials of the CI form, whose seed is `CI_SEED`."""


PARTS = {
    "crash": Part("bench.trust.crash", 30, 9),
    "tasks": Part("bench.trust.tasks", 15, 2),
    "faults": Part("bench.trust.faults", 25, 20),
    "paths": Part("bench.trust.paths", 8, 16),
    "load": Part("bench.trust.load", 10, 3),
    "truth": Part("bench.trust.truth", 8, 1),
    "fuzz-databases": Part("bench.trust.fuzz_databases", 8, 3),
    "fuzz-files": Part("bench.trust.fuzz_files", 6, 12),
    "fuzz-parsers": Part("bench.trust.fuzz_parsers", 6, 10),
    "upgrade": Part("bench.trust.upgrade", 3, 2),
}
"""Parts by name, in the order in which they run: two hours in total."""

CI_SEED, CI_JOBS, CI_SECONDS = 1, 2, 170
"""Seed of the CI form, number of parts that run at once, time limit of a part in seconds."""


def main() -> int:
    """Run the parts that the command line names; return 1 if a trial was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="default: all")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="default: a random one")
    parser.add_argument("--minutes", type=float, help="default: that of the part")
    parser.add_argument("--trials", type=int, help="end after so many trials")
    parser.add_argument("--trial", type=int, help="run only the trial with this number")
    parser.add_argument("--results", type=Path, default=Path("trust-results.csv"), help="table to append to")
    parser.add_argument("--ci", action="store_true", help="a few trials of each part, always the same")
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    options = parser.parse_args()
    if options.table:
        print(format_table(read_rows(options.results)))
        return 0
    if options.ci:
        return run_ci([options.part] if options.part else list(PARTS))
    names = [options.part] if options.part else list(PARTS)
    return max(run_part(name, options) for name in names)


def run_part(name: str, options: argparse.Namespace) -> int:
    """Run trials of a part and append their outcomes to the table; return 1 if one was lost."""
    part, seed = PARTS[name], options.seed
    results = Results(options.results, name, seed)
    minutes = options.minutes or part.minutes
    first = results.n_trials if options.trial is None else options.trial
    last = first + (options.trials or sys.maxsize) if options.trial is None else first + 1
    print(f"{name}: seed {seed}, from trial {first}, at most {minutes:g} minutes", flush=True)
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="labbench-trust-") as folder:
        module = import_module(part.module)
        run_trial = module.prepare(Path(folder))
        try:
            for number in range(first, min(last, getattr(module, "N_TRIALS", last))):
                if time.monotonic() > deadline:
                    break
                for outcome in run_trial(seed, number):
                    results.add(outcome)
                    if outcome.fault is not None:
                        print(f"{name}: seed {seed}: trial {number}: {outcome.what}: {outcome.fault}", flush=True)
                results.n_trials = number + 1
        finally:  # also after Ctrl-C
            if options.trial is None:
                results.append()
    return 1 if results.n_lost else 0


def run_ci(names: list[str]) -> int:
    """Run the CI form of parts, two at a time, and print their table; return 1 if one failed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="labbench-trust-") as folder:

        def run(name: str) -> int:
            words = ["--part", name, "--seed", str(CI_SEED), "--trials", str(PARTS[name].ci_trials)]
            words += ["--minutes", str(CI_SECONDS / 60), "--results", str(Path(folder, f"{name}.csv"))]
            begun = time.monotonic()
            environ = {**os.environ, "LABBENCH_TRUST_SMALL": "1"}
            status = subprocess.run([sys.executable, "-m", "bench.trust", *words], env=environ, check=False).returncode
            print(f"{name}: exit status {status} after {time.monotonic() - begun:.0f} s", flush=True)
            return status

        with ThreadPoolExecutor(CI_JOBS) as pool:
            statuses = list(pool.map(run, names))
        print(format_table(row for name in names for row in read_rows(Path(folder, f"{name}.csv"))))
    print(f"{time.monotonic() - started:.0f} s")
    return max(statuses)


sys.exit(main())
