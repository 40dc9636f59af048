"""Count associations over all processes of a gateway, in a file that they map into memory."""

import fcntl
import mmap
import os
import struct
import threading
from pathlib import Path

_ROW = struct.Struct("<I16s")  # the process, 0 for a free row; the calling AE title


class Census:
    """Keep one row per association, at most `most` of them; safe from any thread and process.

    Raises OSError when the file cannot be used.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._most = most
        self._turn = threading.Lock()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < most * _ROW.size:
                os.truncate(descriptor, most * _ROW.size)
            self._rows = mmap.mmap(descriptor, most * _ROW.size)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def enter(self, title: str, most_of_title: int) -> int | str:
        """Give the number of the association's row, or in words which limit is reached."""
        with self._turn:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                return self._enter(title.encode("ascii", "replace"), most_of_title)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def leave(self, row: int) -> None:
        """Free a row."""
        with self._turn:
            _ROW.pack_into(self._rows, row * _ROW.size, 0, b"")

    def close(self) -> None:
        """Let go of the file."""
        with self._turn:
            self._rows.close()
            os.close(self._descriptor)

    def _enter(self, title: bytes, most_of_title: int) -> int | str:
        rows = list(_ROW.iter_unpack(self._rows[: self._most * _ROW.size]))
        living = _living({process for process, _ in rows})
        row = next((number for number, (process, _) in enumerate(rows) if process not in living), None)
        if row is None:
            return "listen.max_associations is reached"
        title = title.ljust(16, b"\0")
        if sum(name == title and process in living for process, name in rows) >= most_of_title:
            return "listen.max_associations_per_peer is reached"
        _ROW.pack_into(self._rows, row * _ROW.size, os.getpid(), title)
        return row


def _living(processes: set[int]) -> set[int]:
    """Say which processes still run: a killed one could not free its rows."""
    return {process for process in processes if process and _runs(process)}


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # gone, or the number is somebody else's now
        return False
    return True
