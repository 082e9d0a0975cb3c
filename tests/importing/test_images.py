"""Images in TensorBoard's event files become artifacts of the run, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import Result

from labbench.export.event_records import bytes_field, double_field, frame_records, integer_field
from labbench.portraits.logged_images import images_by_name
from labbench.portraits.png_file import encode_png, read_image_file
from labbench.store.reader import Reader

Labbench = Callable[..., Result]


def event(step: int, tag: str, contents: list[bytes], *, is_tensor: bool) -> bytes:
    """Return a record with an image of version 1, or a batch of images of version 2."""
    if is_tensor:
        strings = b"".join(bytes_field(8, content) for content in (b"4", b"3", *contents))
        plugin = bytes_field(9, bytes_field(1, bytes_field(1, b"images")))
        value = bytes_field(1, tag.encode()) + plugin + bytes_field(8, b"\x08\x07" + strings)
    else:
        value = bytes_field(1, tag.encode()) + bytes_field(4, b"\x08\x03\x10\x04" + bytes_field(4, contents[0]))
    summary = bytes_field(5, bytes_field(1, value))
    return frame_records([double_field(1, 1000.0 + step) + integer_field(2, step) + summary])


def test_images_of_both_versions_are_imported_once_and_grow(labbench: Labbench, tmp_path: Path) -> None:
    pixels = [np.full((3, 4, 3), level, np.uint8) for level in (10, 20)]
    contents = [encode_png(each) for each in pixels]
    file = tmp_path / "logs" / "a" / "events.out.tfevents.1"
    file.parent.mkdir(parents=True)
    records = [
        event(0, "samples", contents[:1], is_tensor=False),
        event(5, "samples", contents[:1], is_tensor=False),
        event(5, "batch", contents, is_tensor=True),
        event(6, "odd", [b"no png"], is_tensor=False),
    ]
    file.write_bytes(b"".join(records[:1]))
    assert "imported 1 new run, 0 points, 1 image;" in labbench("import", "tensorboard", "logs").stdout
    file.write_bytes(b"".join(records))
    output = labbench("import", "tensorboard", "logs").stdout
    assert "imported 0 new runs, 0 points, 3 images;" in output
    assert "1 images (no PNG, too large or too many)" in output
    assert "image" not in labbench("import", "tensorboard", "logs").stdout.splitlines()[0]
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        artifacts = reader.artifacts(run.key)
    images = images_by_name(artifacts)
    assert {name: list(steps) for name, steps in images.items()} == {
        "batch/0": [5], "batch/1": [5], "samples": [0, 5]
    }  # fmt: skip
    stored = read_image_file(tmp_path / "runs.db.files" / run.key / images["batch/1"][5].path)
    np.testing.assert_array_equal(stored, pixels[1])
