"""Which processes use the spool now: each locks a file of its own, and the kernel unlocks it when it dies."""

import fcntl
import os
from pathlib import Path
from typing import Self


class Lock:
    """Let one process at a time into a `with`; not for threads of one process.

    Those that wait are woken in turn, where SQLite's own wait for its lock would sleep for up to 0.1 s.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def __enter__(self) -> Self:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


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

    Call it only with the folder's lock: otherwise a process that just enters may be taken for dead.
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


def is_anyone(folder: Path) -> bool:
    """Tell whether any process uses the spool, or is just about to.

    Keeps the folder's lock meanwhile: who enters or counts the living must not meet the looks at their locks.
    """
    try:
        with (folder / "recovery.lock").open("rb") as entering:
            fcntl.flock(entering, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return any(_is_locked(path) for path in (folder / "owners").glob("*.lock"))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock_path(folder: Path, number: int) -> Path:
    return folder / "owners" / f"{number}.lock"
