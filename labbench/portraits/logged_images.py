"""Images that a run logged: PNG files in the run's folder, one for each name and step, recorded as artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from labbench.errors import LabbenchError
from labbench.files import files_folder, run_folder, write_atomically
from labbench.portraits.pixels import (
    Image,
    PaintMode,
    PlaceImage,
    StyledLine,
    StyledText,
    rasterize_image,
    truncate_line,
)
from labbench.portraits.png_file import read_image_file, shrink, to_rgb
from labbench.records import Artifact
from labbench.system.clock import now
from labbench.text import clean

FOLDER = "images"

MAX_SIDE = 1024
"""Largest number of rows and columns that are stored."""

MAX_IMAGES = 1_000
"""Largest number of images of a run."""

_EMPTY_PART = "%"
"""Folder of an empty part of a name, as in `/loss`."""

_MAX_PART_CHARACTERS = 80
_MAX_DRAWN_NAMES = 8
_MAX_DRAWN_CELLS = 64
_MAX_PICTURE_PIXELS = 512
"""Maximum rows and columns of a picture on terminals that show images."""


def write_image(database: Path, run: str, name: str, step: int, content: bytes) -> Artifact:
    """Write the PNG file of an image of a run, and return its record.

    Raises:
        OSError: If the file cannot be written.
    """
    path = image_path(name, step)
    file = run_folder(files_folder(database), run) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as output:
        output.write(content)
    return Artifact(path, path, len(content), hashlib.sha256(content).hexdigest(), now())


def image_path(name: str, step: int) -> str:
    """Return the path of an image in the folder of its run, which is also the name of its artifact."""
    return f"{FOLDER}/{_encode_name(name)}/{step}.png"


def count_images(database: Path, run: str) -> int:
    """Return the number of image files of a run."""
    return sum(1 for _ in (run_folder(files_folder(database), run) / FOLDER).rglob("*.png"))


def images_by_name(artifacts: Iterable[Artifact]) -> dict[str, dict[int, Artifact]]:
    """Return the images among artifacts by name and step, in the order of names and steps."""
    images: dict[str, dict[int, Artifact]] = {}
    for artifact in artifacts:
        folder, _, file = artifact.name.rpartition("/")
        step, _, suffix = file.rpartition(".")
        is_number = step.removeprefix("-").isdecimal() and len(step) < 20
        if folder.startswith(f"{FOLDER}/") and suffix == "png" and is_number:
            images.setdefault(_decode_name(folder.removeprefix(f"{FOLDER}/")), {})[int(step)] = artifact
    return {name: dict(sorted(images[name].items())) for name in sorted(images)}


@dataclass(frozen=True, slots=True)
class LoggedImage:
    """Last image of a name."""

    name: str
    steps: Sequence[int]
    """Steps of all images of this name."""
    pixels: Image | str
    """RGB, shape (H, W, 3), of at most 512 x 512 pixels, or a message if the file cannot be read."""


def read_last_images(database: Path, run: str, artifacts: Iterable[Artifact]) -> list[LoggedImage]:
    """Return the last image of each of the first names."""
    images = []
    for name, by_step in list(images_by_name(artifacts).items())[:_MAX_DRAWN_NAMES]:
        steps = list(by_step)
        pixels: Image | str
        try:
            file = run_folder(files_folder(database), run) / by_step[steps[-1]].path
            pixels = to_rgb(shrink(read_image_file(file), _MAX_PICTURE_PIXELS))
        except LabbenchError as error:
            pixels = str(error)
        images.append(LoggedImage(name, steps, pixels))
    return images


def draw_images(
    images: Iterable[LoggedImage], columns: int, mode: PaintMode, place: PlaceImage | None = None
) -> list[StyledLine]:
    """Return images as lines of at most `columns` cells, each below its name and steps; `place` shows pictures."""
    lines: list[StyledLine] = []
    for image in images:
        n_earlier = len(image.steps) - 1
        steps = f"step {image.steps[-1]}" + (f"; {n_earlier} earlier, from step {image.steps[0]}" if n_earlier else "")
        lines += [[], [StyledText(clean(image.name), bold=True), StyledText(f"  {steps}")]]
        if isinstance(image.pixels, str):
            lines.append([StyledText(clean(image.pixels))])
        else:
            cells = shrink(image.pixels, max(1, min(columns, _MAX_DRAWN_CELLS)))
            picture = place(image.pixels, cells.shape[1], -(-len(cells) // 2)) if place is not None else None
            lines += rasterize_image(cells, mode) if picture is None else picture
    return [truncate_line(line, columns) for line in lines[1:]]


def _encode_name(name: str) -> str:
    """Return a metric's name as a relative path whose parts are safe in every file system."""
    return "/".join(_encode_part(part) for part in name.split("/"))


def _decode_name(path: str) -> str:
    return "/".join("" if part == _EMPTY_PART else unquote(part) for part in path.split("/"))


def _encode_part(part: str) -> str:
    encoded = quote(part, safe=" ()[]+=,@", errors="replace")
    if encoded.strip(".") == "":
        encoded = encoded.replace(".", "%2E") or _EMPTY_PART
    if len(encoded) <= _MAX_PART_CHARACTERS:
        return encoded
    digest = hashlib.sha256(part.encode("utf-8", "replace")).hexdigest()[:8]
    return (
        f"{quote(part, safe='', errors='replace')[: _MAX_PART_CHARACTERS - 9].rpartition('%')[0] or 'image'}~{digest}"
    )
