"""How a failing disk or database shows: SpoolFull when room is missing, SpoolBroken for all else."""

import errno
import sqlite3

from gateway.errors import GatewayError, SpoolBroken, SpoolFull

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def spool_error(error: OSError | sqlite3.Error) -> GatewayError:
    """Translate an error of the disk or the database."""
    if isinstance(error, OSError):
        text = error.strerror or type(error).__name__
        return SpoolFull(text) if error.errno in _NO_ROOM else SpoolBroken(text)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    # SQLite says IOERR, not FULL, when the log's index (shared memory) cannot grow on a full disk.
    return SpoolFull(name) if name in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"} else SpoolBroken(name)
