"""Instances for tests of the outbox: Part 10 files whose bytes say which they are."""

import hashlib
from pathlib import Path

from gateway.outbox import Arrival, Incoming, Outbox, Receipt
from gateway.outbox.entry import Duplicates
from gateway.translate.part10 import file_header

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def content(seed: object, length: int = 1000) -> bytes:
    """Make bytes that no other seed makes."""
    block = hashlib.sha256(repr(seed).encode()).digest()
    return (block * (length // len(block) + 1))[:length]


def arrival(instance: str = "1.2.3", *, study: str = "1.2", archive: str = "main", peer: str = "CT01") -> Arrival:
    return Arrival(archive, study, f"{study}.1", CT, instance, EXPLICIT, peer=peer, called="GATEWAY")


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


def data_set(path: Path) -> bytes:
    """Read what follows the File Meta Information."""
    file = path.read_bytes()
    return file[144 + int.from_bytes(file[140:144], "little") :]
