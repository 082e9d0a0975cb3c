"""Control groups, with which containers and job schedulers limit memory and CPU time, and the cores they allow."""

from __future__ import annotations

import os
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


def usable_cpu_count() -> int:
    """Return the number of cores allowed by affinity and cgroup quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_quota(root: Path = ROOT) -> float | None:
    """Return the number of cores granted by the control groups; None if there is no limit."""
    quotas = [quota for folder in control_groups("cpu", root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    for name in ("cpu.max", "cpu.cfs_quota_us"):
        try:
            words = (folder / name).read_text().split()
            period = words[1] if len(words) == 2 else (folder / "cpu.cfs_period_us").read_text()
            quota = float(words[0]) / float(period)
        except (OSError, ValueError, IndexError):  # no such file, or `max`
            continue
        return quota if quota > 0 else None
    return None
