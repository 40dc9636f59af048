"""Put the spool in order after a crash: the leases of the dead, bytes without a row, rows without their bytes."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from gateway.errors import ConfigError, Fault
from gateway.outbox import queue, reclaim
from gateway.outbox.entry import Limits, Place
from gateway.outbox.replay import replay
from gateway.outbox.rows import PLACE, extent
from gateway.outbox.schema import VERSION, create, upgrade, version
from gateway.outbox.segments import alone, segment_name

_NAME = re.compile(r"[0-9a-f]{16}\.dcm\Z")
_SEGMENT = re.compile(r"[0-9a-f]{16}\.seg\Z")
_NUMBERED = re.compile(r"[0-9a-f]{16}\.(seg|damaged)\Z")
_AT_ONCE = 500

Run = Callable[[Callable[[sqlite3.Connection], object]], object]


def prepare(folder: Path, connection: sqlite3.Connection) -> None:
    """Make the folders and the tables; call it with the folder's lock.

    Raises ConfigError when there are instances of version 1 but no database: they were acknowledged, for nobody knows
    whom. Segments say that themselves.
    """
    if version(connection) == 1:
        upgrade(connection)
    if _known(folder, connection):
        return
    if any(_NAME.match(name) for name in _names(folder)):
        raise _fault(folder, "holds instances (*.dcm) but no outbox.db: restore it, or move the files away")
    create(connection)
    if before := max((_owner(name) for name in _names(folder) if _NUMBERED.match(name)), default=0):
        # The database was lost: the numbers that are in use there must not be given out again.
        connection.execute("INSERT INTO owners (number, opened) VALUES (?, 0)", (before,))


def expect(folder: Path) -> None:
    """Raise ConfigError when there is no outbox: to open it would make one."""
    if not (folder / "outbox.db").exists():
        raise _fault(folder, "holds no outbox: no gateway has run with this folder, or it cannot be read")


def check(folder: Path, connection: sqlite3.Connection) -> None:
    """Raise ConfigError when the tables are not those that this version knows."""
    if not _known(folder, connection):
        raise _fault(folder, "holds an outbox without tables, or of a former version: start the gateway on it first")


def recover(folder: Path, connection: sqlite3.Connection, living: frozenset[int], now: float, limits: Limits) -> None:
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
    names = sorted(name for name in _names(folder) if _SEGMENT.match(name))
    dead = [int(name[:16], 16) for name in names if _owner(name) not in living]
    replayed = replay(folder, connection, dead, limits)
    for number in replayed.damaged:
        path = folder / segment_name(number)
        with suppress(FileExistsError):  # kept as it is, whatever becomes of the others in it
            path.with_suffix(".damaged").hardlink_to(path)
    reclaim.give_back(folder, replayed.unwanted)
    _sweep_segments(folder, connection, (int(name[:16], 16) for name in names))
    if _sweep(folder, connection, living) != _undelivered(connection) - _in_segments(connection):
        _miss(folder, connection, now, "segment = 0")
    known = [number for (number,) in connection.execute("SELECT number FROM segments")]
    gone = [number for number in known if not (folder / segment_name(number)).exists()]
    if gone:
        _sync(folder)  # the names must not come back after the rows have gone: all in them would be entered again
    for number in gone:
        _miss(folder, connection, now, f"segment = {number}")
        queue.forget_segment(connection, number)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep_segments(folder: Path, connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Remove the segments in which nothing waits and to which nobody writes."""
    for number in numbers:
        if queue.segment(connection, number)[0]:
            continue
        path = folder / segment_name(number)
        with suppress(FileNotFoundError), alone(path) as descriptor:
            # Looked at again: its writer may have entered its last instance before it let go of it just now.
            if descriptor is not None and not queue.segment(connection, number)[0]:
                path.unlink()


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


def _miss(folder: Path, connection: sqlite3.Connection, now: float, where: str) -> None:
    """Set aside the rows of some whose file is missing."""
    after = 0
    while True:
        rows = connection.execute(
            f"SELECT {PLACE} FROM entries WHERE id > ? AND {where} AND state <> 'done' "  # noqa: S608 - our own words
            "ORDER BY id LIMIT ?",
            (after, _AT_ONCE),
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        lost = [row[0] for row in rows if not extent(folder, Place(*row)).path.exists()]
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


def _in_segments(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT total(waiting) FROM segments").fetchone()[0])


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
