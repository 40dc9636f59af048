"""The outbox's database: its tables, its indexes, how a connection to it is opened."""

import sqlite3
from contextlib import closing
from pathlib import Path

VERSION = 2
"""Stands in PRAGMA user_version; 0 is a database without tables."""

_ROOM = 1 << 20  # bytes
_STAMP = f"PRAGMA user_version = {VERSION};"
_BUSY = 10.0  # seconds that a reader may keep the log from beginning anew

# The columns up to `replaces` are Entry's fields, in their order; `segment` and `position` stay the last.
# Each index answers one question: is this object known? whose study? what goes next? whose lease ran out? what can
# be forgotten? who needs the operator? what waits longest?
# Totals are kept by triggers because back-pressure asks for them per instance.
_SCHEMA = """
CREATE TABLE owners (number INTEGER PRIMARY KEY AUTOINCREMENT, opened REAL NOT NULL) STRICT;
CREATE TABLE holds (study TEXT, archive TEXT, PRIMARY KEY (study, archive)) STRICT, WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    archive TEXT NOT NULL,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    peer TEXT NOT NULL,
    called TEXT NOT NULL,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL,
    received REAL NOT NULL,
    state TEXT NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    owner INTEGER NOT NULL DEFAULT 0,
    replaces INTEGER NOT NULL DEFAULT 0,
    place REAL NOT NULL,
    segment INTEGER NOT NULL DEFAULT 0,
    position INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX identity ON entries (sop_instance, series, study, archive);
CREATE INDEX by_study ON entries (study, archive);
CREATE INDEX ready ON entries (archive, due) WHERE state = 'todo';
CREATE INDEX leases ON entries (due) WHERE state = 'leased';
CREATE INDEX delivered ON entries (due) WHERE state = 'done';
CREATE INDEX troubled ON entries (due) WHERE state IN ('set aside', 'held');
CREATE INDEX undelivered ON entries (archive, received) WHERE state <> 'done';

-- What is held is never to be delivered, whichever way it comes to that state; '' stands for each.
CREATE TRIGGER comes_held AFTER INSERT ON entries WHEN new.state = 'todo' AND EXISTS (
    SELECT 1 FROM holds WHERE study IN (new.study, '') AND archive IN (new.archive, '')
) BEGIN UPDATE entries SET state = 'held' WHERE id = new.id; END;
CREATE TRIGGER stays_held AFTER UPDATE OF state ON entries WHEN new.state = 'todo' AND EXISTS (
    SELECT 1 FROM holds WHERE study IN (new.study, '') AND archive IN (new.archive, '')
) BEGIN UPDATE entries SET state = 'held' WHERE id = new.id; END;

CREATE TABLE totals (
    archive TEXT, peer TEXT, state TEXT, entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (archive, peer, state)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER entered AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (new.archive, new.peer, new.state, 1, new.size)
    ON CONFLICT DO UPDATE SET entries = entries + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER changed AFTER UPDATE OF state ON entries WHEN old.state <> new.state BEGIN
    INSERT INTO totals VALUES (old.archive, old.peer, old.state, -1, -old.size),
        (new.archive, new.peer, new.state, 1, new.size)
    ON CONFLICT DO UPDATE SET entries = entries + excluded.entries, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER deleted AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - old.size
    WHERE archive = old.archive AND peer = old.peer AND state = old.state;
END;
"""

# How many of a segment's entries wait, and up to where the database knows it: what is behind `known` is entered again
# after a power cut, which may take the last transactions of a receiving process.
_SEGMENTS = """
CREATE TABLE segments (number INTEGER PRIMARY KEY, waiting INTEGER NOT NULL, known INTEGER NOT NULL) STRICT;
CREATE TRIGGER appended AFTER INSERT ON entries WHEN new.segment <> 0 BEGIN
    INSERT INTO segments VALUES (new.segment, 1, new.position + new.size)
    ON CONFLICT DO UPDATE SET waiting = waiting + 1, known = max(known, excluded.known);
END;
CREATE TRIGGER finished AFTER UPDATE OF state ON entries
WHEN new.state = 'done' AND old.state <> 'done' AND new.segment <> 0
BEGIN UPDATE segments SET waiting = waiting - 1 WHERE number = new.segment; END;
CREATE TRIGGER removed AFTER DELETE ON entries WHEN old.state <> 'done' AND old.segment <> 0
BEGIN UPDATE segments SET waiting = waiting - 1 WHERE number = old.segment; END;
"""

# Version 1 had a file for each instance; those that wait keep theirs.
_FROM_1 = """
ALTER TABLE entries ADD COLUMN segment INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
"""


def connect(path: Path, *, busy: float) -> sqlite3.Connection:
    """Open the database for any thread; `busy` is how long to wait for another process's transaction, in seconds."""
    connection = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL syncs the log at each commit; WAL's default would lose the last commits in a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def version(connection: sqlite3.Connection) -> int:
    """Read which schema the database has, 0 for none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, all or none, in a file that has room for some hundred rows before it has to grow."""
    connection.execute("CREATE TABLE IF NOT EXISTS room (filler BLOB)")
    connection.execute("INSERT INTO room VALUES (zeroblob(?))", (_ROOM,))
    connection.executescript(f"BEGIN IMMEDIATE;DROP TABLE room;{_SCHEMA}{_SEGMENTS}{_STAMP}COMMIT;")
    _checkpoint(connection)


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring the tables of version 1 up to date, all or none."""
    connection.executescript(f"BEGIN IMMEDIATE;{_FROM_1}{_SEGMENTS}{_STAMP}COMMIT;")


def begin_log_anew(path: Path) -> None:
    """Bring the log's pages into the database, so that what is written next takes their place and no new room.

    On a full disk it fails when the database itself would have to grow. Raises OSError, sqlite3.Error.
    """
    with closing(connect(path, busy=_BUSY)) as connection:
        _checkpoint(connection)


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
