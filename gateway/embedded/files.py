"""Keep the embedded archive's files: whole and durable under their names, or not at all."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path


class Files:
    """Hold the folders `incoming` and `instances`; no name comes from the network."""

    def __init__(self, folder: Path) -> None:
        self._incoming = folder / "incoming"
        self._instances = folder / "instances"
        for one in (self._incoming, self._instances):
            one.mkdir(parents=True, exist_ok=True)
        for left_over in self._incoming.iterdir():
            left_over.unlink()

    def receive(self, chunks: Iterable[bytes]) -> Path:
        """Write a new file for an instance that is still to be judged; raises what `chunks` raises, and OSError."""
        path = self._incoming / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def keep(self, received: Path) -> str:
        """Make a received file durable under a name of its own; returns that name."""
        name = f"{received.name[:2]}/{received.name}.dcm"
        target = self._instances / name
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            _sync(self._instances)
        with received.open("rb") as file:
            os.fsync(file.fileno())
        received.rename(target)
        _sync(target.parent)
        return name

    def path(self, name: str) -> Path:
        """Return where the file of this name is."""
        return self._instances / name

    def discard(self, path: Path) -> None:
        """Remove a file, if it is still there."""
        path.unlink(missing_ok=True)

    def sweep(self, wanted: set[str]) -> None:
        """Remove the files that no instance is in: what an interrupted STOW or DELETE left over."""
        for path in self._instances.glob("*/*.dcm"):
            if f"{path.parent.name}/{path.name}" not in wanted:
                path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
