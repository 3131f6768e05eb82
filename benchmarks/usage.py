"""What processes use, from /proc: CPU seconds and memory of each with all its descendants."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
QUIET_SHARE: Final = 0.25
QUIET_FOR_S: Final = 1.0
GIVE_UP_AFTER_S: Final = 60.0
Pids = Mapping[str, int]


def cpu_seconds(pids: Pids) -> dict[str, float]:
    """User and system time so far of each process, its descendants and those of them that have ended."""
    children = _children()
    return {name: sum(map(_cpu_s, _tree(pid, children))) for name, pid in pids.items()}


def machine_cpu_seconds() -> float:
    """CPU time so far of everything that runs on this machine."""
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS


def memory_mib(pids: Pids) -> dict[str, float]:
    """Resident memory now of each process and its descendants."""
    children = _children()
    return {name: sum(map(_rss_mib, _tree(pid, children))) for name, pid in pids.items()}


def used_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each process used in between; one that was started meanwhile counts from its start."""
    return {name: cpu_s - before.get(name, 0.0) for name, cpu_s in after.items()}


async def until_quiet(
    pids: Pids, *, quiet_for_s: float = QUIET_FOR_S, give_up_after_s: float = GIVE_UP_AFTER_S
) -> None:
    """Wait until the processes have started up: until together they use little CPU for so long."""
    give_up_at = time.monotonic() + give_up_after_s
    before = sum(cpu_seconds(pids).values())
    while time.monotonic() < give_up_at:
        await asyncio.sleep(quiet_for_s)
        now = sum(cpu_seconds(pids).values())
        if now - before < QUIET_SHARE * quiet_for_s:
            return
        before = now
    raise TimeoutError(f"the processes are not quiet after {give_up_after_s:g} s")


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def _tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / TICKS  # its own, and that of children it has waited for


def _stat(pid: int) -> list[str]:
    """The fields of its stat file from the third on; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _rss_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    _, _, after = status.partition("VmRSS:")
    return int(after.split()[0]) / 1024 if after else 0.0
