"""Which processes use the spool now: each locks a file of its own, and the kernel unlocks it when it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time enter or recover the folder."""
    descriptor = os.open(folder / "recovery.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Presence:
    """Show that this process is alive, until `leave` or its end. Must not cross a fork."""

    def __init__(self, folder: Path, number: int) -> None:
        self._path = _lock_path(folder, number)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def leave(self) -> None:
        """Say that the process has gone."""
        os.close(self._descriptor)


def living(folder: Path) -> frozenset[int]:
    """Return the numbers of the processes that hold their lock, and remove the files of those that do not.

    Call it only inside `alone`: otherwise a process that just enters may be taken for dead.
    """
    alive = set()
    for path in (folder / "owners").glob("*.lock"):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            alive.add(int(path.stem))
        finally:
            os.close(descriptor)
    return frozenset(alive)


def _lock_path(folder: Path, number: int) -> Path:
    return folder / "owners" / f"{number}.lock"
