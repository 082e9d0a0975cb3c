"""Control groups of this process, with which containers and job schedulers limit its memory and CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
"""One line per hierarchy, `NUMBER:CONTROLLERS:PATH`, see cgroups(7)."""


def control_groups(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Yield the folders of the control groups whose limits apply, each group before its parents.

    Groups of version 2 come first, then groups of version 1 for the controller, such as `memory`. A limit of any group
    applies. Only folders that this process can see exist: a container may mount its own group as the root.
    """
    for base, path in _memberships(controller, root, membership):
        parts = PurePosixPath(path).parts[1:]
        if ".." in parts:  # outside the process's cgroup namespace
            parts = ()
        for length in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:length])


def _memberships(controller: str, root: Path, membership: Path) -> list[tuple[Path, str]]:
    version_1, version_2 = "/", "/"
    try:
        for line in membership.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                version_1 = path
            elif number == "0":
                version_2 = path
    except (OSError, ValueError):  # not Linux, or hidden by a container
        pass
    return [(root, version_2), (root / controller, version_1)]
