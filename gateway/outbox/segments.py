"""The files of a spool that hold instances one after the other: a sync costs a third of that of a file of its own.

Each has one writer at a time, which holds a lock on it; once it is long its process lets go of it. It is removed
when nothing in it waits any more.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.outbox.trail import Trail

LONG = 64 << 20
"""Bytes from which a segment takes no further instance."""

_MOST_IDLE = 16  # that a process keeps for its next instances


def segment_name(number: int) -> str:
    """Name the file of a segment: 16 hex digits, of which the first 8 name the process that wrote it."""
    return f"{number:016x}.seg"


class Segment:
    """Append to a segment, for one instance at a time; `end` is where the next begins."""

    __slots__ = ("descriptor", "end", "number", "path", "trail")

    def __init__(self, folder: str, number: int) -> None:
        self.number = number
        self.path = f"{folder}/{segment_name(number)}"  # a text: to make a Path of it takes longer than to open it
        self.end = 0
        unnamed = f"{folder}/incoming/{number:016x}"
        self.descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            os.rename(unnamed, self.path)  # noqa: PTH104 - see `path`; nobody ever sees it without its lock
        except OSError:
            os.close(self.descriptor)
            os.unlink(unnamed)  # noqa: PTH108
            raise
        self.trail = Trail(self.descriptor)

    def sync(self, until: int) -> None:
        """Bring to the disk what was written, up to where the next instance begins; raises OSError."""
        os.fdatasync(self.descriptor)
        self.trail.synced(until)

    def cut(self) -> None:
        """Drop what follows the last instance that was taken; where that fails, take no other."""
        try:
            os.ftruncate(self.descriptor, self.end)
            self.trail.synced(self.end)
        except OSError:
            self.end = LONG

    def close(self) -> None:
        """Let go of it for good."""
        with suppress(OSError):  # all in it is on the disk, this is for the sake of memory alone
            self.trail.end()
        os.close(self.descriptor)


class Segments:
    """Keep the segments that this process writes, and hand each to one instance at a time."""

    def __init__(self, folder: str, folder_descriptor: int, number: Callable[[], int]) -> None:
        self._folder = folder
        self._folder_descriptor = folder_descriptor
        self._number = number
        self._lock = threading.Lock()
        self._idle: list[Segment] = []
        self._most_idle = _MOST_IDLE
        self._closed: list[int] = []

    def take(self) -> Segment:
        """Give a segment that nobody writes to, a new one if need be; raises OSError."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        made = Segment(self._folder, self._number())
        try:
            os.fsync(self._folder_descriptor)  # its name is on the disk before anything in it counts
        except OSError:
            os.unlink(made.path)  # noqa: PTH108 - see `path`
            made.close()
            raise
        return made

    def give(self, segment: Segment) -> None:
        """Take a segment back, and close it when it is long or there are enough others."""
        with self._lock:
            if segment.end < LONG and len(self._idle) < self._most_idle:
                self._idle.append(segment)
                return
            segment.close()
            self._closed.append(segment.number)

    def close(self) -> None:
        """Close those that nobody writes to now, and the others once they are given back."""
        with self._lock:
            idle, self._idle, self._most_idle = self._idle, [], 0
        for segment in idle:
            self.give(segment)

    def closed(self) -> list[int]:
        """Give the numbers of those that have been closed since the last call."""
        with self._lock:
            closed, self._closed = self._closed, []
        return closed


def write_all(descriptor: int, data: memoryview, at: int) -> int:
    """Write all of it and give its length, however much the system takes at once; raises OSError."""
    left = data
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written
    return len(data)


@contextmanager
def alone(path: Path) -> Iterator[int | None]:
    """Open a segment that nobody writes to, keeping off all others that do the same; None when somebody writes.

    Raises FileNotFoundError when there is none.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor if _locks(descriptor) else None
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
