"""A record of a segment: a block that says what the instance is and where it goes, then its Part 10 file.

Records begin at multiples of a block, so that a sync never writes a block again that was acknowledged, and so that
the room of each can be given back by itself.
"""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.errors import SpoolBroken
from gateway.extent import Extent
from gateway.outbox.entry import Arrival, Duplicates, Place

BLOCK = 4096
"""Bytes; a record's first block is its head, its file begins with the next."""

_MARK = b"dicom-gateway record 1 %016x\n"
_LENGTH = len(_MARK % 0)


class Record(NamedTuple):
    """Describe a Part 10 file that lies in a segment; `when` in seconds since 1970.

    It has `size` bytes, its data set begins at `offset`; the record's head is at `position`.
    """

    id: int
    arrival: Arrival
    size: int
    offset: int
    digest: bytes
    when: float
    segment: int
    position: int

    @property
    def place(self) -> Place:
        """Say where it is."""
        return Place(self.id, self.segment, self.position, self.size)


def mark(identifier: int) -> bytes:
    """Give what a record's head begins with."""
    return _MARK % identifier


def end(position: int, size: int) -> int:
    """Say where the next record may begin behind one whose head is at `position`."""
    return -(-(position + BLOCK + size) // BLOCK) * BLOCK


@dataclass(slots=True)
class Small:
    """Hold a record's head and its file, to be written along with others; then `segment` and `position` say where."""

    head: bytes
    file: bytearray
    segment: int = 0
    position: int = 0


def extent(path: Path, identifier: int, position: int, size: int) -> Extent:
    """Name the bytes of a record's file."""
    return Extent(path, size, position + BLOCK, mark(identifier), BLOCK)


def head(record: Record, duplicates: Duplicates) -> bytes:
    """Write a record's head, from which its row can be made again; raises SpoolBroken when it does not fit."""
    told = {
        "arrival": record.arrival._asdict(),
        "size": record.size,
        "offset": record.offset,
        "digest": record.digest.hex(),
        "when": record.when,
        "duplicates": duplicates,
    }
    written = mark(record.id) + json.dumps(told).encode()
    if len(written) > BLOCK:
        raise SpoolBroken("what is to be noted of an instance is too long: its archive's name may be")
    return written.ljust(BLOCK, b"\0")


class HeadDamagedError(Exception):
    """Report a head that cannot be read, and where it is."""


def records(path: Path, segment: int, known: int) -> Iterator[tuple[Record, Duplicates]]:
    """Yield the records of a segment that have a head, behind that whose file ended at `known` (0 for all).

    It ends at one that is not finished; what was given back in between is skipped. Nothing is open between two.
    Raises OSError, HeadDamagedError.
    """
    at = end(known, 0) if known else 0
    while True:
        at, block = _next_block(path, at)
        if not block.startswith(_MARK[: _MARK.index(b"%")]):
            return
        try:
            record, duplicates = _read(block, segment, at)
        except (KeyError, TypeError, ValueError) as error:
            raise HeadDamagedError(f"byte {at}") from error
        yield record, duplicates
        at = end(at, record.size)


def ends_early(path: Path, record: Record) -> bool:
    """Tell whether a segment ends before a record does; raises OSError."""
    return path.stat().st_size < record.position + BLOCK + record.size


def has_more(path: Path, segment: int, known: int) -> bool:
    """Tell whether a segment has records behind that whose file ended at `known`, readable or not; raises OSError."""
    try:
        return any(records(path, segment, known))
    except HeadDamagedError:
        return True


def _read(block: bytes, segment: int, at: int) -> tuple[Record, Duplicates]:
    told = json.loads(block[_LENGTH:].rstrip(b"\0"))
    identifier = int(block[_LENGTH - 17 : _LENGTH - 1], 16)
    size, offset, when, duplicates = (told[name] for name in ("size", "offset", "when", "duplicates"))
    arrival, digest = Arrival(**told["arrival"]), bytes.fromhex(told["digest"])
    return Record(identifier, arrival, size, offset, digest, when, segment, at), duplicates


def _next_block(path: Path, at: int) -> tuple[int, bytes]:
    """Read the next block that is not empty, none at the end; say where it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # nothing waited in it, and somebody has removed it
        return at, b""
    try:
        while (block := os.pread(descriptor, BLOCK, at)) and not block.strip(b"\0"):
            at = os.lseek(descriptor, at + len(block), os.SEEK_DATA) // BLOCK * BLOCK
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data from there on
            raise
        block = b""
    finally:
        os.close(descriptor)
    return at, block
