"""Number of CPU cores available to this process, which a container may limit."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cpu_count() -> int:
    """Return the number of cores allowed by affinity and cgroup quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the number of cores granted by the control group (version 2, else 1).

    Returns None if there is no limit.
    """
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            words = (root / name).read_text().split()
            period = words[1] if len(words) == 2 else (root / "cpu/cpu.cfs_period_us").read_text()
            quota = float(words[0]) / float(period)
        except (OSError, ValueError, IndexError):  # no such file, or `max`
            continue
        return quota if quota > 0 else None
    return None
