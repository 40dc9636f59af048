"""Measure the memory of a process at its peak."""

from pathlib import Path

import psutil


class Memory:
    """Measure the peak of a process's resident memory, its children's added (Linux: VmHWM)."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def reset(self) -> None:
        """Begin a new peak."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Give the peak since the last reset, in bytes."""
        return sum(self._high_water(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        return [self._process.pid, *(child.pid for child in self._process.children(recursive=True))]

    @staticmethod
    def _high_water(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
