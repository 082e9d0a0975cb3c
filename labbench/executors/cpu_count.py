"""Number of CPU cores available to this process, which a container may limit."""

from __future__ import annotations

import os
from pathlib import Path

from labbench.system import cgroups


def usable_cpu_count() -> int:
    """Return the number of cores allowed by affinity and cgroup quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_quota(root: Path = cgroups.ROOT) -> float | None:
    """Return the number of cores granted by the control groups; None if there is no limit."""
    quotas = [quota for folder in cgroups.control_groups("cpu", root) if (quota := _quota_of(folder)) is not None]
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
