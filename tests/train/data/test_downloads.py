"""Published data sets from a server on loopback: resumed, checked, kept, and explained where there is no network."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np

from helpers.training import train_run
from labbench.errors import LabbenchError
from labbench.params.builtin import BUILTIN
from labbench.params.param import with_defaults
from labbench.train.data import image_sets
from labbench.train.data.downloads import PublishedFile, fetch_files
from labbench.train.data.image_sets import (
    CIFAR10,
    FASHION_MNIST,
    IMAGE_SETS,
    MNIST,
    load_image_set,
    read_cifar,
    read_idx,
)
from labbench.train.tasks.task import load_task, make_data

CONTENT = bytes(range(256)) * 64


@dataclass
class Server:
    """What a test's server has, how it misbehaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    breaks_after: int | None = None
    """Bytes after which each connection breaks off."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """The paths, each with its Range."""

    def published(self, name: str, content: bytes) -> PublishedFile:
        self.files[f"/{name}"] = content
        return PublishedFile(name, hashlib.sha256(content).hexdigest(), (f"{self.url}/{name}",))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append((self.path, wanted))
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : None if state.breaks_after is None else start + state.breaks_after])

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_file_is_downloaded_once_and_then_kept(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    for _ in range(2):
        [path] = fetch_files([file], tmp_path / "new" / "folder")
        assert path.read_bytes() == CONTENT
    assert server.asked == [("/a.bin", None)]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.breaks_after = 7000
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=7000-", "bytes=14000-"]


def test_what_an_earlier_process_left_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.breaks_after = 100
    with pytest.raises(LabbenchError, match="it breaks off again and again"):
        fetch_files([file], tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 300
    server.breaks_after = None
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.bin", "bytes=300-")
    assert not (tmp_path / "a.bin.part").exists()


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT


def test_the_next_address_is_tried_when_one_fails_or_sends_something_else(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.files["/wrong"] = b"a login page"
    urls = (f"{server.url}/absent", f"{server.url}/wrong", *file.urls)
    [path] = fetch_files([replace(file, urls=urls)], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [where for where, _ in server.asked] == ["/absent", "/wrong", "/a.bin"]


def test_another_file_than_the_published_one_is_never_used(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.files["/a.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(LabbenchError, match=r"what it sends is not the published file"):
        fetch_files([file], tmp_path)
    assert not list(tmp_path.glob("a.bin*"))
    (tmp_path / "a.bin").write_bytes(b"put here by hand")
    with pytest.raises(LabbenchError, match=r"a.bin is not the published file: its SHA-256 is .* remove it"):
        fetch_files([file], tmp_path)


def test_without_a_network_the_error_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    there, *missing = [
        PublishedFile(name, hashlib.sha256(name.encode()).hexdigest(), (f"http://127.0.0.1:9/{name}",))
        for name in "abc"
    ]
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(LabbenchError) as raised:
        fetch_files([there, *missing], tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == "cannot download b:"
    assert lines[1].startswith("    http://127.0.0.1:9/b: [Errno")
    assert lines[2] == f"on a machine without a network, put these files into {tmp_path}:"
    assert lines[3:] == ["    b, from http://127.0.0.1:9/b", "    c, from http://127.0.0.1:9/c"]
    for file in missing:
        (tmp_path / file.name).write_bytes(file.name.encode())
    assert [path.name for path in fetch_files([there, *missing], tmp_path)] == ["a", "b", "c"]


def test_several_who_want_a_file_at_once_download_it_once(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch_files([file], tmp_path), range(4)))
    assert {path.read_bytes() for [path] in paths} == {CONTENT}
    assert len(server.asked) == 1


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabbenchError, match=r"cannot write to .*file/mnist, where downloads are kept"):
        fetch_files([PublishedFile("a", "", ())], tmp_path / "file" / "mnist")


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


def bars(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with one bright row, whose number is the class, below ten."""
    rng = np.random.default_rng(seed)
    images, classes = rng.integers(0, 60, (count, side, side)), np.arange(count) % 10
    images[np.arange(count), classes] = 255
    return images.astype(np.uint8), classes.astype(np.uint8)


@pytest.fixture
def small_sets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The data sets, with a few images of their shapes, on the test's server and in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, originals in (("mnist", MNIST), ("fashion_mnist", FASHION_MNIST)):
        arrays = [*bars(300, 28, 1), *bars(100, 28, 2)]
        files = tuple(server.published(file.name, idx(array)) for file, array in zip(originals, arrays, strict=True))
        monkeypatch.setitem(IMAGE_SETS, name, replace(IMAGE_SETS[name], files=files, held_out=60))
    archive = server.published(CIFAR10[0].name, cifar(image_sets.CIFAR_TRAIN + image_sets.CIFAR_TEST))
    monkeypatch.setitem(IMAGE_SETS, "cifar10", replace(IMAGE_SETS["cifar10"], files=(archive,), held_out=40))
    load_image_set.cache_clear()
    yield server
    load_image_set.cache_clear()


def cifar(names: list[str], *, cut: int = 0) -> bytes:
    """An archive of the form of CIFAR-10's with 40 images a file, without the last `cut` bytes of each."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for seed, name in enumerate(names):
            images, classes = bars(40, 32, seed)
            records = np.concatenate([classes[:, None], np.tile(images.reshape(40, -1), 3)], axis=1)
            content = records.tobytes()[: 40 * 3073 - cut]
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("mnist", (1, 28, 28), (240, 60, 100)),
        ("fashion_mnist", (1, 28, 28), (240, 60, 100)),
        ("cifar10", (3, 32, 32), (160, 40, 40)),
    ],
)
def test_published_sets_are_images_from_0_to_1_with_their_classes(
    small_sets: Server, name: str, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    data = make_data(load_task(name), with_defaults({}, BUILTIN[name]))
    assert data.test is not None
    for (inputs, targets), size in zip((data.train, data.val, data.test), sizes, strict=True):
        assert inputs.shape == (size, *shape)
        assert (inputs.dtype, targets.dtype, inputs.max().item()) == (torch.float32, torch.int64, 1.0)
        assert targets.bincount().tolist() == [size // 10] * 10
        assert (inputs[range(size), 0, targets] == 1).all()


@pytest.mark.parametrize(("name", "model"), [("mnist", "mlp"), ("fashion_mnist", "cnn"), ("cifar10", "cnn")])
def test_published_sets_train(small_sets: Server, name: str, model: str) -> None:
    config = {
        "model": model,
        "hidden": [32],
        "channels": [4],
        "epochs": 5,
        "optimizer": "adam",
        "lr": 0.01,
        "batch_size": 16,
    }
    assert train_run(config, task=load_task(name)).last("val/accuracy") > 0.8


def test_published_sets_can_be_altered(small_sets: Server) -> None:
    config = with_defaults({"train_size": 50, "classes": [4, 5], "input_sparsity": 0.5}, BUILTIN["mnist"])
    data = make_data(load_task("mnist"), {**config, "train_size": 20})
    assert data.train[1].bincount().tolist() == [10, 10]
    assert (data.train[0] == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_every_file_has_a_sum_and_an_address() -> None:
    for each in IMAGE_SETS.values():
        for file in each.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert all(url.startswith("http") and url.endswith(file.name) for url in file.urls)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no gzip", "cannot be unpacked"),
        (idx(np.zeros((2, 3)))[:-5], "cannot be unpacked"),
        (gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd", mtime=0), "is no IDX file of bytes, or it is cut off"),
        (gzip.compress(b"\0\0\x08\2\0\0\0\2\0\0", mtime=0), "is no IDX file"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5abc", mtime=0), "is no IDX file"),
        (gzip.compress(b"", mtime=0), "is no IDX file"),
    ],
    ids=["no gzip", "cut off", "another type", "values missing", "a row missing", "empty"],
)
def test_a_file_that_is_no_idx_is_said(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(LabbenchError, match=f"images.gz.*{complaint}"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no archive", "cannot be unpacked"),
        (cifar(["data_batch_1.bin"]), "lacks data_batch_2.bin, data_batch_3.bin"),
        (cifar(image_sets.CIFAR_TRAIN + image_sets.CIFAR_TEST, cut=1), "no list of records of 3073 bytes"),
        (cifar(image_sets.CIFAR_TRAIN)[:-100], "cannot be unpacked"),
    ],
    ids=["no archive", "files missing", "records cut", "archive cut"],
)
def test_an_archive_that_is_not_cifars_is_said(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(content)
    with pytest.raises(LabbenchError, match=f"cifar.tar.gz.*{complaint}"):
        read_cifar([path])
