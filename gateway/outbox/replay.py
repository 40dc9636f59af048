"""Enter what lies in segments and in no row: a power cut took the row, or the database was lost."""

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import merge
from pathlib import Path
from typing import BinaryIO

import structlog

from gateway.outbox import queue
from gateway.outbox.digest import digest_of
from gateway.outbox.entry import Duplicates, Limits, Place
from gateway.outbox.record import HeadDamagedError, Record, ends_early, extent, records
from gateway.outbox.rows import is_there
from gateway.outbox.segments import segment_name

log = structlog.get_logger("gateway.outbox")

_AT_ONCE = 200
_MOST_BYTES = 1 << 30

Known = tuple[Record, Duplicates]


@dataclass(slots=True)
class Replayed:
    """Say whose bytes are not wanted any more, and which segments have something that cannot be read."""

    unwanted: list[Place] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)


def replay(folder: Path, connection: sqlite3.Connection, segments: Iterable[int], limits: Limits) -> Replayed:
    """Enter the whole instances behind what the database knows of some segments that nobody writes to.

    In the order in which they came, and each as it would have been: what was dropped then is dropped again. One
    that is not whole was never acknowledged, or has been given back. Raises OSError, sqlite3.Error.
    """
    result = Replayed()
    found = [
        _unknown(folder / segment_name(number), number, queue.segment(connection, number)[1], result)
        for number in segments
    ]
    arrived = merge(*found, key=lambda one: one[0].when)
    for some in _batches(arrived):
        whole = [known for known in some if _is_whole(folder, known[0], result)]
        connection.execute("BEGIN IMMEDIATE")
        for record, duplicates in whole:
            receipt, other = queue.enter(
                connection, record, partial(_data_set, folder, record), partial(is_there, folder), duplicates, limits
            )
            if not receipt.is_taken:
                queue.pass_by(connection, record)
                result.unwanted.append(record.place)
            result.unwanted += [other] if other else []
        connection.execute("COMMIT")
    return result


def _batches(arrived: Iterable[Known]) -> Iterator[list[Known]]:
    """Divide them so that each batch is read in some seconds: who is killed while starting goes on from there."""
    batch: list[Known] = []
    for one in arrived:
        batch.append(one)
        if len(batch) == _AT_ONCE or sum(record.size for record, _ in batch) >= _MOST_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _unknown(path: Path, number: int, known: int, result: Replayed) -> Iterator[tuple[Record, Duplicates]]:
    try:
        yield from records(path, number, known)
    except HeadDamagedError as error:
        # A power cut in the middle of writing it leaves this, but who knows.
        log.warning("an instance's record cannot be read", segment=path.name, reason=str(error))
        result.damaged.add(number)
    except OSError as error:
        _note_damage(error, number, result)


def _note_damage(error: OSError, number: int, result: Replayed) -> None:
    """Go on without what the disk cannot read; raises what is not that."""
    if error.errno != errno.EIO:
        raise error
    log.warning("a segment cannot be read", segment=segment_name(number), reason=error.strerror)
    result.damaged.add(number)


def _is_whole(folder: Path, record: Record, result: Replayed) -> bool:
    try:
        with _data_set(folder, record) as stream:
            whole = digest_of(stream) == record.digest
    except FileNotFoundError:  # nothing waited in it, and somebody has removed it
        return False
    except OSError as error:
        _note_damage(error, record.segment, result)
        return False
    if not whole and ends_early(folder / segment_name(record.segment), record):
        result.unwanted.append(record.place)  # its writer was killed in the middle of it
    elif not whole:
        log.warning("an instance is not whole", segment=segment_name(record.segment), entry=f"{record.id:016x}")
        result.damaged.add(record.segment)
    return whole


def _data_set(folder: Path, record: Record) -> BinaryIO:
    stream = extent(folder / segment_name(record.segment), record.id, record.position, record.size).open()
    stream.seek(record.offset)
    return stream
