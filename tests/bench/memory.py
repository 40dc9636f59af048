"""Measure the memory of a family of processes at its peak."""

import threading

import psutil

_EVERY = 0.05  # seconds


class Memory:
    """Measure the peak of what a process and its children use together, for as long as it lives.

    A page that several of them share counts once (Linux: PSS), which no high-water mark of the kernel's does; so it
    is looked at 20 times a second.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._look()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def reset(self) -> None:
        """Begin a new peak."""
        self._peak = 0
        self._look()

    def peak(self) -> int:
        """Give the peak since the last reset, in bytes."""
        self._look()
        return self._peak

    def _watch(self) -> None:
        while self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
            threading.Event().wait(_EVERY)
            self._look()

    def _look(self) -> None:
        used = 0
        try:
            for process in (self._process, *self._process.children(recursive=True)):
                used += process.memory_full_info().pss
        except psutil.Error:
            return  # one of them ended just now
        self._peak = max(self._peak, used)
