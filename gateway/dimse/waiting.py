"""Retrieve what the archive does not have yet: instances that wait in the outbox."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from gateway.dimse.expansion import Target
from gateway.dimse.scratch import Content
from gateway.errors import SpoolBroken
from gateway.extent import Part, buffered
from gateway.outbox import Entry


class Waiting:
    """Hold an instance of the outbox: its delivery leaves the bytes while they are open."""

    data: bytes | None = None

    def __init__(self, part: Part) -> None:
        self.size = part.size
        self._part = part

    def open(self) -> BinaryIO:
        """Open it once more."""
        return buffered(Part(os.dup(self._part.fileno()), self._part.start, self.size))

    def put(self, path: Path) -> None:
        """Copy the bytes to a file; raises OSError."""
        with self.open() as source, path.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def discard(self) -> None:
        """Let go of it; a second call does nothing."""
        self._part.close()


def waiting(entry: Entry) -> Target:
    """Name an instance that waits in the outbox."""
    return Target(entry.study, entry.series, entry.sop_class, entry.sop_instance, entry.extent)


def take_waiting(target: Target) -> Content | None:
    """Hold the waiting instance; None when it was delivered."""
    if target.waiting is None:
        return None
    try:
        return Waiting(target.waiting.raw())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolBroken(f"an instance of the outbox cannot be read: {error.strerror}") from error
