"""A custom task: classify points of two half moons. A grid selects it with task = "my_task.py:Task"."""

from itertools import pairwise

import torch
from torch import nn

from labbench import Data, Param


class Task:
    params = {  # noqa: RUF012
        "width": Param("int", 32, "units of each hidden layer", low=1),
        "depth": Param("int", 2, "hidden layers", low=1),
        "noise": Param("float", 0.2, "standard deviation of the points around their moon", low=0.0),
    }

    def data(self, config):
        angle = torch.rand(1500) * torch.pi
        moon = torch.arange(1500) % 2  # 0 opens downwards, 1 upwards
        x = torch.where(moon == 0, angle.cos(), 1 - angle.cos())
        y = torch.where(moon == 0, angle.sin(), 0.5 - angle.sin())
        points = torch.stack([x, y], dim=1) + config["noise"] * torch.randn(1500, 2)
        return Data(train=(points[:1000], moon[:1000]), val=(points[1000:], moon[1000:]))

    def model(self, config):
        widths = [2] + [config["width"]] * config["depth"]
        hidden = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.Tanh())]
        return nn.Sequential(*hidden, nn.Linear(config["width"], 2))

    # Optional; the defaults are cross-entropy and accuracy.
    # def loss(self, outputs, targets):     one loss per sample, shape (N,)
    # def metrics(self, outputs, targets):  {"name": one value per sample, shape (N,)}
