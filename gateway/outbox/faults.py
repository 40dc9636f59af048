"""How a failing disk or database shows: SpoolFull when room is missing, SpoolBroken for all else."""

import errno
import sqlite3

from gateway.errors import GatewayError, SpoolBroken, SpoolFull

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# SQLite says IOERR, not FULL, when the log's index (shared memory) cannot grow on a full disk.
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
_DAMAGED = "is damaged; move it and its -wal and -shm away, and it is made again of the segments (*.seg) beside it"
_WORDS = (
    *((name, "has no room on the disk") for name in _FULL),
    ("SQLITE_BUSY", "is locked by another program"),
    ("SQLITE_CORRUPT", _DAMAGED),
    ("SQLITE_NOTADB", _DAMAGED),
    ("SQLITE_READONLY", "cannot be written"),
    ("SQLITE_CANTOPEN", "cannot be opened"),
)


def spool_error(error: OSError | sqlite3.Error, database: str = "outbox.db") -> GatewayError:
    """Translate an error of the disk or of a database of that name."""
    if isinstance(error, OSError):
        text = error.strerror or type(error).__name__
        return SpoolFull(text) if error.errno in _NO_ROOM else SpoolBroken(text)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    text = f"{database}: {next((words for begin, words in _WORDS if name.startswith(begin)), 'fails')} ({name})"
    return SpoolFull(text) if name.startswith(_FULL) else SpoolBroken(text)
