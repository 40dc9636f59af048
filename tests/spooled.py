"""Instances for tests of the outbox: Part 10 files whose bytes say which they are."""

import errno
import hashlib
import os
from pathlib import Path

from blake3 import blake3

from gateway.extent import Extent
from gateway.outbox import Arrival, Entry, Incoming, Outbox, Receipt
from gateway.outbox.entry import Duplicates
from gateway.outbox.record import records
from gateway.translate.part10 import file_header

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def content(seed: object, length: int = 1000) -> bytes:
    """Make bytes that no other seed makes."""
    block = hashlib.sha256(repr(seed).encode()).digest()
    return (block * (length // len(block) + 1))[:length]


def arrival(instance: str = "1.2.3", *, study: str = "1.2", archive: str = "main", peer: str = "CT01") -> Arrival:
    return Arrival(archive, study, f"{study}.1", CT, instance, EXPLICIT, peer=peer, called="GATEWAY")


def digest(data: bytes) -> bytes:
    """Compute what the outbox notes of a data set."""
    return b"3" + blake3(data).digest()


def receive(outbox: Outbox, what: Arrival, data: bytes, *, expected: int = 0) -> Incoming:
    incoming = outbox.incoming(
        what.peer, file_header(what.sop_class, what.sop_instance, what.transfer_syntax), expected=expected
    )
    half = memoryview(data)[: len(data) // 2], memoryview(data)[len(data) // 2 :]
    incoming.write(*half)
    return incoming


def put(outbox: Outbox, what: Arrival, data: bytes, duplicates: Duplicates = "keep") -> Receipt:
    with receive(outbox, what, data) as incoming:
        return outbox.commit(incoming, what, duplicates=duplicates)


def data_set(extent: Extent) -> bytes:
    """Read what follows the File Meta Information."""
    with extent.open() as stream:
        file = stream.read()
    return file[144 + int.from_bytes(file[140:144], "little") :]


def lose(entry: Entry) -> None:
    """Lose the bytes of an entry, as when something overwrites them."""
    with entry.extent.path.open("r+b") as file:
        file.seek(entry.extent.start - entry.extent.lead)
        file.write(bytes(entry.extent.size))


def records_in(folder: Path) -> list[str]:
    """Name the instances whose records are in an outbox's segments, by their SOP Instance UIDs."""
    found = (records(path, int(path.stem, 16), 0) for path in sorted(folder.glob("*.seg")))
    return [record.arrival.sop_instance for each in found for record, _ in each]


def left_over(folder: Path) -> list[str]:
    """Name the files of an outbox that hold bytes of instances: segments whose room is given back hold none."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".seg", ".dcm") and has_data(path))


def has_data(path: Path) -> bool:
    """Tell whether a file has any blocks; False when it was removed meanwhile."""
    try:
        with path.open("rb") as file:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA) >= 0
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
