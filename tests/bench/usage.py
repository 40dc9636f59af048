"""Measure processor time and memory of whole systems: some processes and all they started (Linux)."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """Measure the processes `pids` and their descendants, dead ones whose parents waited for them included."""

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]

    def seconds(self) -> float:
        """Give the processor time used so far."""
        return sum(_seconds(pid) for pid in self._pids()) / _TICKS

    def reset_peak(self) -> None:
        """Begin a new peak."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Give the peak of memory since the last reset in bytes, of each process at its own time.

        A page that several share counts once: the kernel's high-water mark less what is shared of it now.
        """
        return sum(_peak(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        return list(_living(self._roots))


def _living(roots: Iterable[psutil.Process]) -> Iterator[int]:
    for root in roots:
        yield root.pid
        yield from (child.pid for child in root.children(recursive=True))


def _seconds(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # it ended: its time is in its parent's now
        return 0
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])  # utime stime cutime cstime


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return _bytes(status, "VmHWM:") - _bytes(memory, "Rss:") + _bytes(memory, "Pss:")


def _bytes(text: str, name: str) -> int:
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(name)), 0)
