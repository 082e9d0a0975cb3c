"""Measure the lag of `labbench pull --follow`: the age of the newest point in the mirror while a script logs.

    python bench/pull_lag.py [--seconds 20] [--rate 1000]

A process logs points at a steady rate, each with the time of its logging as the value. Another one mirrors its database
through a local command in place of ssh. The mirror is read ten times a second. Lags are printed in seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from labbench.store.reader import Reader
from labbench.store.writer import Writer

SCRIPT = """
import sys, time, labbench
seconds, rate = float(sys.argv[1]), float(sys.argv[2])
run = labbench.start("live", db="remote.db")
start, step = time.monotonic(), 0
while (elapsed := time.monotonic() - start) < seconds:
    while step < elapsed * rate:
        run.log({"logged": time.time()}, step=step)
        step += 1
    time.sleep(0.001)
run.finish()
"""

START_SECONDS = 5.0
"""Time for the first connection, before which nothing can be measured."""


def measure(folder: Path, seconds: float, rate: float) -> list[float]:
    """Return the lags in seconds, about ten for each second, shape (N,)."""
    ssh = folder / "local"
    ssh.write_text('#!/bin/sh\nexec sh -c "$3"\n')
    ssh.chmod(0o755)
    (folder / "script.py").write_text(SCRIPT)
    labbench = [sys.executable, "-m", "labbench"]
    environment = {**os.environ, "LABBENCH_SSH": str(ssh), "LABBENCH_DB": str(folder / "mirror.db")}
    script = subprocess.Popen([sys.executable, "script.py", str(seconds + START_SECONDS), str(rate)], cwd=folder)
    while not (folder / "remote.db").exists():
        time.sleep(0.05)
    Writer(folder / "mirror.db").close()
    words = ["pull", f"box:{folder}/remote.db", "--follow", "--remote-labbench", " ".join(labbench)]
    follower = subprocess.Popen([*labbench, *words], env=environment, stdout=subprocess.DEVNULL)
    lags = []
    try:
        with Reader(folder / "mirror.db") as reader:
            while script.poll() is None:
                time.sleep(0.1)
                values = [run.summary["logged"].last for run in reader.runs() if run.summary]
                if values and script.poll() is None:
                    lags.append(time.time() - values[0])
    finally:
        for process in (script, follower):
            process.terminate()
            process.wait()
    return lags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="points per second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labbench-") as folder:
        lags = sorted(measure(Path(folder), arguments.seconds, arguments.rate))
    print(
        f"{len(lags)} samples at {arguments.rate:g} points/s: median {statistics.median(lags):.2f}, "
        f"95 % below {lags[int(0.95 * len(lags))]:.2f}, at most {lags[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
