"""Run one part of the bench of trust, and append what it tried to a table.

    python -m bench.trust --part fuzz-databases --seed 1 --minutes 5

A part is a module with `run_trials`. Each trial is a function of the seed and its number, so that a run of the same
part and seed continues after the last trial of the table, and any trial can be repeated with --trial.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from bench.trust.results import Results

PARTS = {"fuzz-databases": "bench.trust.fuzz_databases"}
"""Modules of the parts by name."""


def main() -> int:
    """Run a part; return 1 if a trial was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="default: a random one")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--trial", type=int, help="run only the trial with this number")
    parser.add_argument("--results", type=Path, default=Path("trust-results.csv"), help="table to append to")
    options = parser.parse_args()
    results = Results(options.results, options.part, options.seed)
    first = results.n_trials if options.trial is None else options.trial
    print(f"{options.part}: seed {options.seed}, from trial {first}, {options.minutes:g} minutes", flush=True)
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="labbench-trust-") as folder:
        run_trial = import_module(PARTS[options.part]).prepare(Path(folder))
        for number in range(first, sys.maxsize if options.trial is None else first + 1):
            if time.monotonic() > deadline:
                break
            for outcome in run_trial(options.seed, number):
                results.add(outcome)
                if outcome.fault is not None:
                    print(f"trial {number}: {outcome.what}: {outcome.fault}", flush=True)
            results.n_trials = number + 1
    if options.trial is None:
        results.append()
    print(results.table())
    return 1 if results.n_lost else 0


sys.exit(main())
