"""A script that logs for itself, often enough for its curve to be summed up in buckets."""

import sys

import labbench

rate = float(sys.argv[2])
with labbench.start(system_metrics=False) as run:
    for step in range(1300 if rate == 0.5 else 10):
        run.log({"loss": (1.0 - rate / 100) ** step}, step=step)
    print("trained with", rate)
