"""What this process may use of the machine: memory that is free, and processors; control groups included."""

import math
import os
from contextlib import suppress
from pathlib import Path

from metier.ranks import this_rank


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process may still take: the system's, and that of the control group if it sets a limit, divided
    among the ranks of the node; None if unknown.

    root: the folder that holds proc and sys, for tests.
    """
    found = [_system_free(root), *_group_free(root)]
    known = [n for n in found if n is not None]
    return max(0, min(known)) // this_rank().on_node if known else None


def _system_free(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass  # not Linux, or without /proc
    try:  # what there is, since nobody says what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _group_free(root: Path) -> list[int | None]:
    """Of every control group that this process is in and that limits memory: version 2, then version 1."""
    groups = [
        (root / "sys/fs/cgroup", "0::", "memory.max", "memory.current", "inactive_file"),
        (
            root / "sys/fs/cgroup/memory",
            ":memory:",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ]
    return [_limit_left(root, *group) for group in groups]


def _limit_left(root: Path, mount: Path, mark: str, limit: str, usage: str, reclaimable: str) -> int | None:
    for folder in (mount / _group_path(root, mark), mount):
        try:
            bound = int((folder / limit).read_text(encoding="utf-8"))
            used = int((folder / usage).read_text(encoding="utf-8"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        return bound - used + int(stat.get(reclaimable, 0))
    return None


def _group_path(root: Path, mark: str) -> str:
    """The process's path in the hierarchy of control groups whose line in /proc/self/cgroup holds `mark`."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(mark, 1)[1].strip("/") for line in lines if mark in line), "")


def usable_cores(root: Path = Path("/")) -> int:
    """Processors that this process may use: its affinity and its control group's quota, divided among the ranks of the
    node, and OMP_NUM_THREADS of a process that is alone."""
    rank = this_rank()
    bounds = [n // rank.on_node for n in (_affinity(), *_quotas(root))]
    if rank.of == 1:  # torchrun sets it to 1 where the user does not
        with suppress(ValueError):
            bounds.append(int(os.environ.get("OMP_NUM_THREADS", "")))
    return max(1, min(bounds))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not Linux


def _quotas(root: Path) -> list[int]:
    """Whole processors of the quota: version 2 writes "QUOTA PERIOD" or "max PERIOD", version 1 two files and -1."""
    found = []
    groups = ((root / "sys/fs/cgroup", "0::"), (root / "sys/fs/cgroup/cpu", ":cpu:"))
    for folder in (folder for mount, mark in groups for folder in (mount / _group_path(root, mark), mount)):
        with suppress(OSError, ValueError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
                period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
            if (share := int(quota)) > 0:
                found.append(math.ceil(share / int(period)))
    return found
