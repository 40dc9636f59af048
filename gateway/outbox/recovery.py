"""Put the spool in order after a crash: the leases of the dead, files without a row, rows without a file."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from gateway.errors import ConfigError, Fault
from gateway.outbox import queue
from gateway.outbox.entry import file_name
from gateway.outbox.schema import VERSION, create, version

_NAME = re.compile(r"[0-9a-f]{16}\.dcm\Z")
_AT_ONCE = 500

Run = Callable[[Callable[[sqlite3.Connection], object]], object]


def prepare(folder: Path, connection: sqlite3.Connection) -> None:
    """Make the folders and the tables; call it with the folder's lock.

    Raises ConfigError when there are instances but no database: they were acknowledged, for nobody knows whom.
    """
    if _known(folder, connection):
        return
    if any(_NAME.match(name) for name in _names(folder)):
        raise _fault(folder, "holds instances (*.dcm) but no outbox.db: restore it, or move the files away")
    create(connection)


def expect(folder: Path) -> None:
    """Raise ConfigError when there is no outbox: to open it would make one."""
    if not (folder / "outbox.db").exists():
        raise _fault(folder, "holds no outbox: no gateway has run with this folder, or it cannot be read")


def check(folder: Path, connection: sqlite3.Connection) -> None:
    """Raise ConfigError when the tables are not those that this version knows."""
    if not _known(folder, connection):
        raise _fault(folder, "holds an outbox without tables: start the gateway on it first")


def recover(folder: Path, connection: sqlite3.Connection, living: frozenset[int], now: float) -> None:
    """Clear up what the processes that are not `living` left behind; call it with the folder's lock."""
    connection.execute("BEGIN IMMEDIATE")
    # The requests of a dead process died with it: no need to wait until its leases run out.
    connection.execute(
        "UPDATE entries SET due = ? WHERE state = 'leased' AND owner NOT IN (SELECT value FROM json_each(?))",
        (now, json.dumps([*living])),
    )
    queue.take_back(connection, now)
    connection.execute("COMMIT")
    for name in _names(folder / "incoming"):
        if _owner(name) not in living:
            (folder / "incoming" / name).unlink(missing_ok=True)
    if _sweep(folder, connection, living) != _undelivered(connection):
        _miss(folder, connection, now)


def _sweep(folder: Path, connection: sqlite3.Connection, living: frozenset[int]) -> int:
    """Remove files whose row is missing (it was never acknowledged) or delivered; count those that wait."""
    waiting = 0
    names = (name for name in _names(folder) if _NAME.match(name))
    while some := {int(name[:16], 16): name for name in islice(names, _AT_ONCE)}:
        found = connection.execute(
            "SELECT id, state = 'done' FROM entries WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*some]),),
        )
        rows = dict(found.fetchall())
        for identifier, name in some.items():
            unknown = identifier not in rows and _owner(name) not in living
            if unknown or rows.get(identifier):
                (folder / name).unlink(missing_ok=True)
        waiting += sum(not done for done in rows.values())
    return waiting


def _miss(folder: Path, connection: sqlite3.Connection, now: float) -> None:
    """Set aside the rows whose file is missing."""
    after = 0
    while True:
        rows = connection.execute(
            "SELECT id FROM entries WHERE id > ? AND state <> 'done' ORDER BY id LIMIT ?", (after, _AT_ONCE)
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        lost = [identifier for (identifier,) in rows if not (folder / file_name(identifier)).exists()]
        if not lost:
            continue
        connection.execute("BEGIN IMMEDIATE")
        # It may have been delivered since it was read: such a row is done now and stays so.
        connection.executemany(
            "UPDATE entries SET state = 'set aside', owner = 0, due = ?, reason = ? WHERE id = ? AND state <> 'done'",
            ((now, queue.FILE_LOST, identifier) for identifier in lost),
        )
        connection.execute("COMMIT")


def _known(folder: Path, connection: sqlite3.Connection) -> bool:
    found = version(connection)
    if found > VERSION:
        raise _fault(folder, f"was written by a newer version (schema {found}, this one knows {VERSION})")
    return found == VERSION


def _undelivered(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT total(entries) FROM totals WHERE state <> 'done'").fetchone()[0])


def _owner(name: str) -> int:
    try:
        return int(name[:8], 16)
    except ValueError:
        return 0


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as found:
        for item in found:
            yield item.name


def _fault(folder: Path, problem: str) -> ConfigError:
    return ConfigError(str(folder), (Fault("spool.folder", problem),))
