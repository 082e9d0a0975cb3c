"""Downloads of published files into the user's cache folder, verified by SHA-256 at every use.

An interrupted download resumes where it stopped, also in the next process. Workers that need the same file wait for
the one that downloads it.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.files import open_without_links

TIMEOUT_SECONDS = 30.0
"""Seconds without data after which a connection is closed."""
MAX_TRIES = 3
"""Maximum number of connections per URL."""
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A published file: name, SHA-256 and URLs."""

    name: str
    sha256: str
    urls: tuple[str, ...]


def fetch_files(files: Sequence[PublishedFile], folder: Path) -> list[Path]:
    """Download the missing files to `folder` and return the paths of all.

    Raises:
        LabbenchError: If a file cannot be downloaded (the message lists the files to fetch by hand), or a file in
            `folder` is not the published one.
    """
    if not all(is_downloaded(file, folder) for file in files):
        with download_lock(folder):
            for file in files:
                if not is_downloaded(file, folder):
                    download(file, folder, files)
    return [folder / file.name for file in files]


def is_downloaded(file: PublishedFile, folder: Path) -> bool:
    """Return True if the file is in the folder.

    Raises:
        LabbenchError: If a file of this name has another SHA-256.
    """
    path = folder / file.name
    if not path.exists():
        return False
    digest = sha256(path)
    if digest != file.sha256:
        raise LabbenchError(
            f"{path} is not the published file: its SHA-256 is {digest}, not {file.sha256}; "
            "remove it, and labbench will download it again"
        )
    return True


def download(file: PublishedFile, folder: Path, all_files: Sequence[PublishedFile]) -> None:
    """Download one file from the first URL that works.

    Raises:
        LabbenchError: If no URL works; the message lists all of `all_files` that are missing, to be fetched by hand.
    """
    part = folder / f"{file.name}.part"
    problems = []
    for url in file.urls:
        print(f"downloading {url} to {folder}", file=sys.stderr)
        try:
            receive(url, part)
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
            continue
        if sha256(part) == file.sha256:
            part.replace(folder / file.name)
            return
        part.unlink()
        problems.append(f"{url}: the downloaded file is not the published one (its SHA-256 differs)")
    missing = [each for each in all_files if not (folder / each.name).exists()]
    raise LabbenchError(
        f"cannot download {file.name}:\n"
        + "".join(f"    {problem}\n" for problem in problems)
        + f"on a machine without a network, put these files into {folder}:\n"
        + "\n".join(f"    {each.name}, from {each.urls[0]}" for each in missing)
    )


def receive(url: str, part: Path) -> None:
    """Download `url` to `part`, resuming after the bytes that `part` has.

    Raises:
        ConnectionError: If the last of `MAX_TRIES` connections ends early.
    """
    for attempt in range(MAX_TRIES):
        try:
            if receive_once(url, part):
                return
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            part.unlink()  # longer than the published file, so it belongs to another one
        except (OSError, http.client.HTTPException):
            if attempt == MAX_TRIES - 1 or not part.exists():
                raise
    raise ConnectionError(f"the connection ended early {MAX_TRIES} times")


def receive_once(url: str, part: Path) -> bool:
    """Append the bytes of one connection to `part`.

    Return True if the file is complete.
    """
    received = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={received}-"} if received else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            received = 0  # the server sends the file from its start
        length = response.headers["Content-Length"]
        total = None if length is None else received + int(length)
        with open_without_links(part, "ab" if received else "wb") as out:
            while block := response.read(BLOCK_BYTES):
                out.write(block)
                received += len(block)
    return total is None or received == total


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Lock the folder for one downloading process; create it if needed.

    Raises:
        LabbenchError: If the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_without_links(folder / ".lock", "ab")
    except OSError as error:
        raise LabbenchError(f"cannot write to {folder}, the cache of downloads: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
