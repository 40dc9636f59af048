"""Keep the embedded archive's files: whole and durable under their names, or not at all."""

import fcntl
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path


class Files:
    """Hold the folders `incoming` and `instances`; no name comes from the network.

    Raises OSError when the folder cannot be used, BlockingIOError when another archive is using it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._incoming = folder / "incoming"
            self._instances = folder / "instances"
            for one in (self._incoming, self._instances):
                one.mkdir(exist_ok=True)
            _sync(folder)
            for left_over in self._incoming.iterdir():
                left_over.unlink()
        except OSError:
            self._lock.close()
            raise

    def close(self) -> None:
        """Let another archive use the folder."""
        self._lock.close()

    def receive(self, chunks: Iterable[bytes]) -> Path:
        """Write a new file, durably, for an instance to be judged; raises what `chunks` raises, and OSError."""
        path = self._incoming / uuid.uuid4().hex
        try:
            with path.open("xb", buffering=0) as file:
                for chunk in chunks:
                    _write(file.fileno(), chunk)
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def keep(self, received: Sequence[Path]) -> list[str]:
        """Give received files names of their own, durably; returns those names. Raises OSError."""
        folder = self._instances / uuid.uuid4().hex[:2]
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            _sync(self._instances)
        names = []
        for path in received:
            name = f"{folder.name}/{path.name}.dcm"
            path.rename(self._instances / name)
            names.append(name)
        _sync(folder)
        return names

    def path(self, name: str) -> Path:
        """Return where the file of this name is."""
        return self._instances / name

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove files, those that are still there."""
        for path in paths:
            path.unlink(missing_ok=True)

    def sweep(self, wanted: set[str]) -> None:
        """Remove the files that no instance is in: what an interrupted STOW or DELETE left over."""
        for folder in os.scandir(self._instances):
            for entry in os.scandir(folder.path):
                if f"{folder.name}/{entry.name}" not in wanted:
                    Path(entry.path).unlink()


def _write(descriptor: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
