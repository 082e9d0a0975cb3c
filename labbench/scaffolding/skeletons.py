"""Skeletons of a task and of a script, which train at once and are made to be changed."""

from __future__ import annotations

TASK = '''\
"""A task: its parameters, its data and its model. A grid file selects it with task = "{file}:{class_name}"."""

import torch
from torch import nn

from labbench import Data, Param


class {class_name}:
    params = {{
        "width": Param("int", 32, "units of the hidden layer", low=1),
        "noise": Param("float", 0.2, "standard deviation of the points around their moon", low=0.0),
    }}

    def data(self, config):
        """Return your data here: tensors of inputs and targets, for training and for validation."""
        angle = torch.rand(1500) * torch.pi
        moon = torch.arange(1500) % 2
        x = torch.where(moon == 0, angle.cos(), 1 - angle.cos())
        y = torch.where(moon == 0, angle.sin(), 0.5 - angle.sin())
        points = torch.stack([x, y], dim=1) + config["noise"] * torch.randn(1500, 2)
        return Data(train=(points[:1000], moon[:1000]), val=(points[1000:], moon[1000:]))

    def model(self, config):
        """Return your model here."""
        return nn.Sequential(nn.Linear(2, config["width"]), nn.Tanh(), nn.Linear(config["width"], 2))

    # Optional; the defaults are cross-entropy and accuracy.
    # def loss(self, outputs, targets):     one loss per sample, shape (N,)
    # def metrics(self, outputs, targets):  {{"name": one value per sample, shape (N,)}}
'''

SCRIPT = '''\
"""A training script. A grid starts it once for each run; by hand: python {file}"""

import argparse
import random

import labbench

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1, help="learning rate")
parser.add_argument("--momentum", type=float, default=0.0, help="momentum")
parser.add_argument("--steps", type=int, default=100, help="optimizer steps")
parser.add_argument("--seed", type=int, default=0, help="seed of the start")
options = parser.parse_args()

with labbench.start(config=options) as run:
    # Your training goes here. This minimizes x squared from a random start.
    x, velocity = random.Random(options.seed).gauss(5.0, 1.0), 0.0
    for _ in range(options.steps):
        run.log({{"train/loss": x * x}})
        velocity = options.momentum * velocity - options.lr * 2 * x
        x += velocity
'''


def task_skeleton(file: str, class_name: str) -> str:
    """Return a task of the given class name; `file` is the name of its file."""
    return TASK.format(file=file, class_name=class_name)


def script_skeleton(file: str) -> str:
    """Return a script that records its run; `file` is its name."""
    return SCRIPT.format(file=file)
