"""How many CPU cores this process may use: what the machine has is not what a container grants."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cpu_count() -> int:
    """Cores by affinity and by the cgroup's CPU quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores granted by the control group (version 2, else 1); None where nothing limits them."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            words = (root / name).read_text().split()
            period = words[1] if len(words) == 2 else (root / "cpu/cpu.cfs_period_us").read_text()
            quota = float(words[0]) / float(period)
        except (OSError, ValueError, IndexError):  # no such file, or `max`
            continue
        return quota if quota > 0 else None
    return None
