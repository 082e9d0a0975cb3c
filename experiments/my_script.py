"""A script in any framework. labbench starts it once per run, and `labbench.start()` attaches to that run.

It also works on its own: python experiments/my_script.py
"""

import argparse

import labbench

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
options = parser.parse_args()

with labbench.start("by hand", config=options) as run:
    x = 5.0
    for _ in range(50):
        run.log({"loss": x * x})
        x -= options.lr * 2 * x  # the gradient of x squared
    print("ended at", x)
