"""Files that somebody else publishes, brought into the user's cache folder once and checked whenever they are used.

A download that breaks off goes on where it stopped, also in the next process. Workers that want the same file at the
same time wait for the first.
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
"""Seconds without a byte after which a download has broken off."""
MAX_TRIES = 3
"""How often a download that broke off goes on, at each address."""
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file, with where it is to be had and what it must be."""

    name: str
    sha256: str
    urls: tuple[str, ...]


def fetch_files(files: Sequence[PublishedFile], folder: Path) -> list[Path]:
    """The paths of the files in `folder`, after downloading those that are not there.

    Raises LabbenchError where one cannot be had, saying what to put where, or where a file is not what was published.
    """
    if not all(is_downloaded(file, folder) for file in files):
        with download_lock(folder):
            for file in files:
                if not is_downloaded(file, folder):
                    download(file, folder, files)
    return [folder / file.name for file in files]


def is_downloaded(file: PublishedFile, folder: Path) -> bool:
    """Whether the file is in the folder. Raises LabbenchError where another lies in its place."""
    path = folder / file.name
    if not path.exists():
        return False
    found = sha256(path)
    if found != file.sha256:
        raise LabbenchError(
            f"{path} is not the published file: its SHA-256 is {found}, not {file.sha256}; "
            "remove it, and it will be downloaded"
        )
    return True


def download(file: PublishedFile, folder: Path, wanted: Sequence[PublishedFile]) -> None:
    """Bring one file; on failure tell all of the `wanted` that are missing, so that a person fetches them at once."""
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
        problems.append(f"{url}: what it sends is not the published file (by its SHA-256)")
    missing = [each for each in wanted if not (folder / each.name).exists()]
    raise LabbenchError(
        f"cannot download {file.name}:\n"
        + "".join(f"    {problem}\n" for problem in problems)
        + f"on a machine without a network, put these files into {folder}:\n"
        + "\n".join(f"    {each.name}, from {each.urls[0]}" for each in missing)
    )


def receive(url: str, part: Path) -> None:
    """Write what the address sends to `part`, going on behind what is there already."""
    for attempt in range(MAX_TRIES):
        try:
            if receive_once(url, part):
                return
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            part.unlink()  # it has more than there is: another file's
        except (OSError, http.client.HTTPException):
            if attempt == MAX_TRIES - 1 or not part.exists():
                raise
    raise ConnectionError("it breaks off again and again")


def receive_once(url: str, part: Path) -> bool:
    """One connection; whether everything has come."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server begins anew
        length = response.headers["Content-Length"]
        whole = None if length is None else have + int(length)
        with open_without_links(part, "ab" if have else "wb") as out:
            while block := response.read(BLOCK_BYTES):
                out.write(block)
                have += len(block)
    return whole is None or have == whole


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Nobody else downloads into the folder meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_without_links(folder / ".lock", "ab")
    except OSError as error:
        raise LabbenchError(f"cannot write to {folder}, where downloads are kept: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
