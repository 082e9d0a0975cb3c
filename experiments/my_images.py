"""A custom task that reads and augments images during training. A grid selects it with task = "my_images.py:Task".

`path` contains one folder of images per class. Separate processes read them ([runtime] loaders).
"""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from labbench import Datasets, Param, read_image


def classes_in(path):
    return sorted(folder.name for folder in Path(path).iterdir() if folder.is_dir())


class Images(Dataset):
    def __init__(self, files, classes, shift):
        self.files, self.classes, self.shift = files, classes, shift

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        file = self.files[index]
        image = torch.tensor(read_image(file)).movedim(2, 0).expand(3, -1, -1) / 255  # (3, H, W), grayscale too
        # seeded by labbench: a new shift in each epoch, the same shifts if the run is repeated
        by = torch.randint(-self.shift, self.shift + 1, (2,)).tolist()
        return image.roll(by, dims=(1, 2)), self.classes.index(file.parent.name)


class Task:
    params = {  # noqa: RUF012
        "path": Param("str", "images", "folder with one folder of images per class"),
        "channels": Param("int", 16, "channels of the two convolutions", low=1),
        "shift": Param("int", 1, "largest shift of a training image, in pixels", low=0),
    }

    def data(self, config):
        classes = classes_in(config["path"])
        files = sorted(file for name in classes for file in Path(config["path"], name).iterdir())
        train = [file for number, file in enumerate(files) if number % 5]
        return Datasets(train=Images(train, classes, config["shift"]), val=Images(files[::5], classes, shift=0))

    def model(self, config):
        width = config["channels"]
        return nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(4 * width, len(classes_in(config["path"])))),
        )
