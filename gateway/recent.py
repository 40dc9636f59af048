"""Remember what passed lately, for the status page: who called, who was refused, which studies, how many a minute.

A small database in the spool that every process of a gateway writes to and that a restart keeps. It knows UIDs, AE
titles and addresses. Nothing depends on it: what cannot be written is logged and forgotten.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from gateway.errors import SpoolBroken

log = structlog.get_logger("gateway")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS contacts (
    title TEXT PRIMARY KEY, address TEXT NOT NULL, last REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    calling TEXT, called TEXT, address TEXT, reason TEXT, count INTEGER NOT NULL, first REAL NOT NULL,
    last REAL NOT NULL, PRIMARY KEY (calling, called, address, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS studies (
    study TEXT, archive TEXT, peer TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL, bytes INTEGER NOT NULL,
    archived INTEGER NOT NULL, failed INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (study, archive)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS minutes (
    minute INTEGER PRIMARY KEY, received REAL NOT NULL, archived REAL NOT NULL, bytes REAL NOT NULL
) STRICT;
"""
_MOST = 200  # rows of a table; of minutes, a day's
_DAY = 1440
_KEEP_FREE = 4 << 20  # bytes; more than the outbox's own reserve
_LOG_PAGES = 64  # of 4096 bytes each, so that the log stays small
_MEMORY = Path(":memory:")
_BUSY = 2.0  # seconds to wait for another process's transaction
_PRUNE = "DELETE FROM {0} WHERE last < (SELECT last FROM {0} ORDER BY last DESC LIMIT 1 OFFSET {1})"


@dataclass(frozen=True, slots=True)
class Contact:
    """Say when a peer's last association was accepted (s since 1970), and from where."""

    title: str
    address: str
    last: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Say who knocked and was refused, how often and why; times in s since 1970."""

    calling: str
    called: str
    address: str
    reason: str
    count: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Passed:
    """Count the instances of a study whose senders waited for the archive; `reason` is of the last that failed."""

    study: str
    archive: str
    peer: str
    first: float
    last: float
    bytes: int
    archived: int
    failed: int
    reason: str


@dataclass(frozen=True, slots=True)
class Minute:
    """Count the instances, and the bytes that were received, of one minute since 1970."""

    minute: int
    received: float
    archived: float
    bytes: float


class Recent:
    """Note and tell what passed lately; safe from any thread. Open it after a fork.

    A file that cannot be opened, on a full disk for one, is replaced by memory: this process then remembers alone.
    """

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        self._folder: Path | None = path.parent
        self._full = False
        try:
            self._connection = _open(path)
        except sqlite3.Error as error:
            log.warning("what passes is not kept for the status page", file=path.name, reason=str(error))
            self._folder = None
            self._connection = _open(_MEMORY)

    def close(self) -> None:
        """Let go of the file."""
        with self._turn:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note_contact(self, title: str, address: str) -> None:
        """Note that an association was accepted."""
        self._write(
            "contacts",
            "INSERT INTO contacts VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET address = ?2, last = ?3 RETURNING 1",
            (title, address, time.time()),
        )

    def note_refusal(self, calling: str, called: str, address: str, reason: str) -> None:
        """Note that an association was rejected, and why."""
        self._write(
            "refusals",
            "INSERT INTO refusals VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5) "
            "ON CONFLICT DO UPDATE SET count = count + 1, last = ?5 RETURNING count",
            (calling, called, address, reason, time.time()),
        )

    def note_stored(self, study: str, archive: str, peer: str, size: int, failure: str) -> None:
        """Note what came of an instance whose sender waited for the archive; without `failure` it was stored."""
        self._write(
            "studies",
            "INSERT INTO studies VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6 = '', ?6 <> '', ?6) ON CONFLICT DO UPDATE SET "
            "peer = ?3, last = ?4, bytes = bytes + ?5, "
            "archived = archived + (?6 = ''), failed = failed + (?6 <> ''), "
            "reason = CASE ?6 WHEN '' THEN reason ELSE ?6 END RETURNING archived + failed",
            (study, archive, peer, time.time(), size, failure),
        )

    def note_minute(self, counted: Minute) -> None:
        """Add to the counts of a minute; forget those of yesterday."""
        self._execute(
            "INSERT INTO minutes VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET "
            "received = received + ?2, archived = archived + ?3, bytes = bytes + ?4",
            (counted.minute, counted.received, counted.archived, counted.bytes),
        )
        self._execute("DELETE FROM minutes WHERE minute <= ?1", (counted.minute - _DAY,))

    def contacts(self) -> list[Contact]:
        """List who called, the last first."""
        return [Contact(*row) for row in self._ask("SELECT * FROM contacts ORDER BY last DESC")]

    def refusals(self) -> list[Refusal]:
        """List who was refused, the last first."""
        return [Refusal(*row) for row in self._ask("SELECT * FROM refusals ORDER BY last DESC")]

    def studies(self) -> list[Passed]:
        """List the studies whose senders waited for the archive, the last first."""
        return [Passed(*row) for row in self._ask("SELECT * FROM studies ORDER BY last DESC")]

    def minutes(self, since: int) -> list[Minute]:
        """List what was counted from a minute on, in their order; minutes without anything may be missing."""
        rows = self._ask("SELECT * FROM minutes WHERE minute >= ? ORDER BY minute", (since,))
        return [Minute(*row) for row in rows]

    def _write(self, table: str, statement: str, values: Sequence[object]) -> None:
        """Insert or update; only a new row can make the table too long."""
        if self._execute(statement, values) == 1:
            self._execute(_PRUNE.format(table, _MOST - 1), ())

    def _execute(self, statement: str, values: Sequence[object]) -> int:
        if not self._has_room():
            return 0
        try:
            with self._turn:
                rows = self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            log.warning("not remembered for the status page", reason=str(error))
            return 0
        return int(rows[0][0]) if rows else 0

    def _has_room(self) -> bool:
        """Leave the last room of a disk to the outbox, which cannot make any without."""
        was, self._full = self._full, self._folder is not None and not _has_room(self._folder)
        if self._full and not was:
            log.warning("what passes is not kept for the status page", reason="the disk is full")
        return not self._full

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            with self._turn:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise SpoolBroken(f"what passed lately cannot be read: {error}") from error


def prepare(path: Path) -> None:
    """Remove a file that is no database before the processes start; all else is left to them."""
    try:
        _open(path).close()
    except sqlite3.OperationalError:
        return  # the disk is full, or not to be written: they tell
    except sqlite3.DatabaseError as error:
        log.warning("what passed lately is forgotten", file=path.name, reason=str(error))
        with contextlib.suppress(OSError):  # whoever opens it says that it cannot be used
            for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                name.unlink(missing_ok=True)


def _has_room(folder: Path) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize > _KEEP_FREE


def _open(path: Path) -> sqlite3.Connection:
    if path != _MEMORY and path.parent.exists() and not _has_room(path.parent):
        raise sqlite3.OperationalError("the disk is full")
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last seconds, never the file
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
