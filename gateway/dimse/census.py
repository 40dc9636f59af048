"""Count associations over all processes of a gateway, in memory that they share."""

import fcntl
import mmap
import os
import struct
import threading

_ROW = struct.Struct("<I16s")  # the process, 0 for a free row; the calling AE title


class Census:
    """Keep one row per association, at most `most` of them; safe from any thread and process.

    Make it before the fork of those that share it. Raises OSError when there is no memory for it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._turn = threading.Lock()
        # Not in the spool: a page that does not fit on a full disk would kill who writes to it.
        self._descriptor = os.memfd_create("census", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(self._descriptor, 0, most * _ROW.size)
            self._rows = mmap.mmap(self._descriptor, most * _ROW.size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def enter(self, title: str, most_of_title: int) -> int | str:
        """Give the number of the association's row, or in words which limit is reached."""
        with self._turn:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)  # flock would be shared by those who forked
            try:
                return self._enter(title.encode("ascii", "replace"), most_of_title)
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def leave(self, row: int) -> None:
        """Free a row."""
        with self._turn:
            _ROW.pack_into(self._rows, row * _ROW.size, 0, b"")

    def close(self) -> None:
        """Let go of the memory."""
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
