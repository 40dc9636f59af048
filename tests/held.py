"""A gateway in front of an archive, with a proxy between them, whose outbox is held until a test lets it go."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import embedded_archive
from bench import wire
from destinations import Destination, destination
from meddling_proxy import Proxy, meddling
from processes import await_true

from gateway.app import running
from gateway.config import parse
from gateway.outbox import Ledger

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def data_set(file: bytes) -> bytes:
    """Cut preamble and File Meta off."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


@dataclass(frozen=True)
class Site:
    """The gateway's port, a destination that it knows as DEST, its archive, the proxy and its outbox."""

    port: int
    where: Destination
    archive: embedded_archive.Caller
    proxy: Proxy
    outbox: Ledger

    def store(self, *files: bytes) -> None:
        """Store Secondary Captures in Explicit VR Little Endian through the gateway, all acknowledged."""
        contexts = [(SECONDARY_CAPTURE, wire.EXPLICIT_LE)]
        connection = wire.associate("127.0.0.1", self.port, "GATEWAY", "BENCH", contexts)
        for file in files:
            uid = embedded_archive.uid_of(file)
            assert wire.store(connection, 1, SECONDARY_CAPTURE, uid, data_set(file)) == 0x0000
        wire.release(connection)

    def deliver(self) -> None:
        """Let go what is held and wait until the archive has it."""
        self.outbox.release()
        await_true(lambda: not self.outbox.count_waiting("main"), 30, "everything is delivered")


@contextmanager
def held(folder: Path, **archive: object) -> Iterator[Site]:
    """Run all of it; `archive` are options of the archive in the configuration."""
    with embedded_archive.running(folder / "archive") as caller, destination() as where:
        with meddling(caller.archive.url) as proxy:
            config = parse(
                {
                    "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
                    "archives": {"main": {"url": proxy.url, "profile": "embedded", **archive}},
                    "ae_titles": {"GATEWAY": {"archive": "main", "acknowledge": "spooled"}},
                    "peers": {"BENCH": {}, "DCMTK": {}, "DEST": where.peer},
                    "spool": {"folder": str(folder / "gateway"), "high_water": 1.0},
                },
                "test",
            )
            with running(config) as gateway, Ledger(folder / "gateway" / "outbox") as outbox:
                outbox.hold()
                yield Site(gateway.port, where, caller, proxy, outbox)
            assert not list((folder / "gateway").rglob("incoming/*"))
