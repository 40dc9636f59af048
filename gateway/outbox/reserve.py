"""Room kept on the disk for the database: an outbox that cannot write a row can never make room."""

import os
from pathlib import Path

from gateway.errors import SpoolFull
from gateway.outbox.faults import spool_error

LENGTH = 1 << 20
"""Bytes, enough for the log of some hundred deliveries."""


class Reserve:
    """Hold the room in a file of an outbox's folder, one for all processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"
        self._held = False

    def hold(self) -> None:
        """Take the room, unless it is held or there is none; raises OSError for all else."""
        if self._held:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, LENGTH)
            self._held = True
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if not isinstance(spool_error(error), SpoolFull):
                raise
        finally:
            os.close(descriptor)

    def give(self) -> None:
        """Give the room to whoever has to write now."""
        self._held = False
        self._path.unlink(missing_ok=True)
