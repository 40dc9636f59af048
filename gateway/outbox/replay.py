"""Enter what lies in segments and in no row: a power cut took the row, or the database was lost."""

import sqlite3
from collections.abc import Iterable
from functools import partial
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from gateway.outbox import queue
from gateway.outbox.digest import digest_of
from gateway.outbox.entry import Limits, Place, Receipt
from gateway.outbox.record import Record, extent, records
from gateway.outbox.segments import segment_name

_AT_ONCE = 200


def replay(folder: Path, connection: sqlite3.Connection, segments: Iterable[int], limits: Limits) -> list[Place]:
    """Enter the whole instances behind what the database knows of some segments; give what is not wanted any more.

    In the order in which they came, and each as it would have been: what was dropped then is dropped again. One
    that is not whole was never acknowledged, or has been given back. Raises OSError, sqlite3.Error, SpoolBroken.
    """
    found = [
        records(folder / segment_name(number), number, queue.segment(connection, number)[1]) for number in segments
    ]
    arrived = merge(*found, key=lambda one: one[0].when)
    unwanted: list[Place] = []
    while some := list(islice(arrived, _AT_ONCE)):
        whole = [(record, duplicates) for record, duplicates in some if _is_whole(folder, record)]
        connection.execute("BEGIN IMMEDIATE")
        for record, duplicates in whole:
            receipt, other = queue.enter(connection, record, partial(_data_set, folder, record), duplicates, limits)
            dropped = receipt not in (Receipt.QUEUED, Receipt.REPLACED)
            unwanted += [Place(record.id, record.segment, record.position, record.size)] if dropped else []
            unwanted += [other] if other else []
        connection.execute("COMMIT")
    return unwanted


def _is_whole(folder: Path, record: Record) -> bool:
    try:
        with _data_set(folder, record) as stream:
            return digest_of(stream) == record.digest
    except FileNotFoundError:  # nothing waited in it, and somebody has removed it
        return False


def _data_set(folder: Path, record: Record) -> BinaryIO:
    stream = extent(folder / segment_name(record.segment), record.id, record.position, record.size).open()
    stream.seek(record.offset)
    return stream
