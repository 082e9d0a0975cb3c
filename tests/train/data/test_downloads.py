"""Downloads of published data sets from a loopback server: resume, checksum, cache, and errors without a network."""

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
    """State of the test server: its files, its faults and the requests it received."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    closes_after: int | None = None
    """Bytes after which each connection closes."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""

    def published(self, name: str, content: bytes) -> PublishedFile:
        self.files[f"/{name}"] = content
        return PublishedFile(name, hashlib.sha256(content).hexdigest(), (f"{self.url}/{name}",))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            byte_range = self.headers["Range"]
            state.requests.append((self.path, byte_range))
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and state.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : None if state.closes_after is None else start + state.closes_after])

        def log_message(self, format: str, *args: Any) -> None:
            """Keep stderr empty."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    for _ in range(2):
        [path] = fetch_files([file], tmp_path / "new" / "folder")
        assert path.read_bytes() == CONTENT
    assert server.requests == [("/a.bin", None)]


def test_an_interrupted_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.closes_after = 7000
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [byte_range for _, byte_range in server.requests] == [None, "bytes=7000-", "bytes=14000-"]


def test_a_partial_file_of_an_earlier_process_is_resumed(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.closes_after = 100
    with pytest.raises(LabbenchError, match="the connection ended early 3 times"):
        fetch_files([file], tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 300
    server.closes_after = None
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/a.bin", "bytes=300-")
    assert not (tmp_path / "a.bin.part").exists()


def test_a_download_restarts_from_the_beginning_if_the_server_ignores_ranges(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_discarded(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    [path] = fetch_files([file], tmp_path)
    assert path.read_bytes() == CONTENT


def test_the_next_url_is_tried_when_one_fails_or_sends_another_file(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.files["/wrong"] = b"a login page"
    urls = (f"{server.url}/absent", f"{server.url}/wrong", *file.urls)
    [path] = fetch_files([replace(file, urls=urls)], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/absent", "/wrong", "/a.bin"]


def test_a_file_with_another_checksum_is_never_used(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    server.files["/a.bin"] = CONTENT[:-1] + b"!"
    with pytest.raises(LabbenchError, match=r"the downloaded file is not the published one"):
        fetch_files([file], tmp_path)
    assert not list(tmp_path.glob("a.bin*"))
    (tmp_path / "a.bin").write_bytes(b"put here by hand")
    with pytest.raises(LabbenchError, match=r"a.bin is not the published file: its SHA-256 is .* remove it"):
        fetch_files([file], tmp_path)


def test_without_a_network_the_error_lists_the_files_to_fetch_and_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    present, *missing = [
        PublishedFile(name, hashlib.sha256(name.encode()).hexdigest(), (f"http://127.0.0.1:9/{name}",))
        for name in "abc"
    ]
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(LabbenchError) as raised:
        fetch_files([present, *missing], tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == "cannot download b:"
    assert lines[1].startswith("    http://127.0.0.1:9/b: [Errno")
    assert lines[2] == f"on a machine without a network, put these files into {tmp_path}:"
    assert lines[3:] == ["    b, from http://127.0.0.1:9/b", "    c, from http://127.0.0.1:9/c"]
    for file in missing:
        (tmp_path / file.name).write_bytes(file.name.encode())
    assert [path.name for path in fetch_files([present, *missing], tmp_path)] == ["a", "b", "c"]


def test_concurrent_requests_download_a_file_once(server: Server, tmp_path: Path) -> None:
    file = server.published("a.bin", CONTENT)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch_files([file], tmp_path), range(4)))
    assert {path.read_bytes() for [path] in paths} == {CONTENT}
    assert len(server.requests) == 1


def test_an_unwritable_cache_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabbenchError, match=r"cannot write to .*file/mnist, the cache of downloads"):
        fetch_files([PublishedFile("a", "", ())], tmp_path / "file" / "mnist")


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


def bars(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, side, side) with one bright row, whose index is the class, and the classes (count,)."""
    rng = np.random.default_rng(seed)
    images, classes = rng.integers(0, 60, (count, side, side)), np.arange(count) % 10
    images[np.arange(count), classes] = 255
    return images.astype(np.uint8), classes.astype(np.uint8)


@pytest.fixture
def small_sets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The data sets with a few images of the real shapes, on the test server, and an empty cache."""
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
    """An archive like CIFAR-10's with 40 images per file, without the last `cut` bytes of each file."""
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


def test_published_sets_can_be_corrupted_by_the_config(small_sets: Server) -> None:
    config = with_defaults({"train_size": 50, "classes": [4, 5], "input_sparsity": 0.5}, BUILTIN["mnist"])
    data = make_data(load_task("mnist"), {**config, "train_size": 20})
    assert data.train[1].bincount().tolist() == [10, 10]
    assert (data.train[0] == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_every_published_file_has_a_checksum_and_urls() -> None:
    for each in IMAGE_SETS.values():
        for file in each.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert all(url.startswith("http") and url.endswith(file.name) for url in file.urls)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no gzip", "cannot be decompressed"),
        (idx(np.zeros((2, 3)))[:-5], "cannot be decompressed"),
        (gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd", mtime=0), "is not an IDX file of bytes, or is truncated"),
        (gzip.compress(b"\0\0\x08\2\0\0\0\2\0\0", mtime=0), "is not an IDX file"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5abc", mtime=0), "is not an IDX file"),
        (gzip.compress(b"", mtime=0), "is not an IDX file"),
    ],
    ids=["not gzip", "truncated", "another type", "values missing", "a row missing", "empty"],
)
def test_a_file_that_is_not_idx_is_reported(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(LabbenchError, match=f"images.gz.*{complaint}"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no archive", "cannot be unpacked"),
        (cifar(["data_batch_1.bin"]), "lacks data_batch_2.bin, data_batch_3.bin"),
        (cifar(image_sets.CIFAR_TRAIN + image_sets.CIFAR_TEST, cut=1), "not a multiple of a record's 3073 bytes"),
        (cifar(image_sets.CIFAR_TRAIN)[:-100], "cannot be unpacked"),
    ],
    ids=["not an archive", "files missing", "records truncated", "archive truncated"],
)
def test_a_damaged_cifar_archive_is_reported(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(content)
    with pytest.raises(LabbenchError, match=f"cifar.tar.gz.*{complaint}"):
        read_cifar([path])
