"""Generate load: replay pre-encoded instances on several associations, query, move, and take what is moved."""

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Self

from bench import wire
from bench.instances import SOP_CLASS, Batch

CALLING = "BENCH"


@dataclass(frozen=True, slots=True)
class Target:
    """Say where the load goes."""

    port: int
    called: str
    host: str = "127.0.0.1"

    def associate(self, *contexts: tuple[str, str]) -> wire.Connection:
        """Open an association."""
        return wire.associate(self.host, self.port, self.called, CALLING, contexts)


def store(target: Target, batch: Batch, associations: int) -> float:
    """Store a batch, split over associations, each waiting for its response; give the seconds it took.

    Association set-up and release are outside the measure, as with a modality that keeps its association.
    """
    connections = [target.associate((SOP_CLASS, wire.EXPLICIT_LE)) for _ in range(associations)]
    with ThreadPoolExecutor(associations) as pool:
        begun = perf_counter()
        parts = [
            pool.submit(_store, connection, batch, range(first, batch.count, associations))
            for first, connection in enumerate(connections)
        ]
        for part in parts:
            part.result()
        seconds = perf_counter() - begun
    for connection in connections:
        wire.release(connection)
    return seconds


def _store(connection: wire.Connection, batch: Batch, numbers: Sequence[int]) -> None:
    for number in numbers:
        connection.send((batch.prefixes[number], batch.tail))
        status = wire.answer(connection)
        if status != 0:
            raise wire.WireError(f"C-STORE status {status:04X}H")


def find(target: Target, identifier: bytes) -> tuple[int, float]:
    """Do a Study Root C-FIND; give the number of matches and the seconds from request to final response."""
    connection = target.associate((wire.STUDY_ROOT_FIND, wire.EXPLICIT_LE))
    request = wire.command(wire.C_FIND, 1, wire.STUDY_ROOT_FIND)
    begun = perf_counter()
    statuses = _ask(connection, request, identifier)
    seconds = perf_counter() - begun
    if statuses[-1] != 0:
        raise wire.WireError(f"C-FIND status {statuses[-1]:04X}H")
    wire.release(connection)
    return len(statuses) - 1, seconds


def move(target: Target, identifier: bytes, destination: str) -> float:
    """Do a Study Root C-MOVE; give the seconds from request to final response."""
    connection = target.associate((wire.STUDY_ROOT_MOVE, wire.EXPLICIT_LE))
    padded = destination.encode() + b" " * (len(destination) % 2)
    request = wire.command(wire.C_MOVE, 1, wire.STUDY_ROOT_MOVE, wire.element(0x0600, padded))
    begun = perf_counter()
    statuses = _ask(connection, request, identifier)
    seconds = perf_counter() - begun
    if statuses[-1] != 0:
        raise wire.WireError(f"C-MOVE status {statuses[-1]:04X}H")
    wire.release(connection)
    return seconds


def _ask(connection: wire.Connection, request: bytes, identifier: bytes) -> list[int]:
    """Send a request and collect the statuses of its responses up to the final one."""
    connection.send(
        (
            wire.p_data(1, request, 16_384, is_command=True),
            wire.p_data(1, identifier, 16_384, is_command=False),
        )
    )
    statuses: list[int] = []
    while not statuses or statuses[-1] in wire.PENDING:
        kind, body = connection.pdu()
        if kind != wire.P_DATA:
            raise wire.WireError(f"PDU {kind} in place of a response")
        statuses += [wire.status_of(bytes(fragment.data)) for fragment in wire.fragments(body) if fragment.is_command]
    return statuses


class Sink:
    """Accept associations and answer each C-STORE with Success, keeping nothing; use as a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self.instances = 0
        self.size = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(wire.Connection(sock),), daemon=True).start()

    def _serve(self, connection: wire.Connection) -> None:
        with contextlib.suppress(wire.WireError, OSError, struct.error), contextlib.closing(connection):
            _, body = connection.pdu()
            connection.send((wire.accept_pdu(bytes(body)),))
            request = b""
            size = 0
            while True:
                kind, body = connection.pdu()
                if kind != wire.P_DATA:
                    connection.send((wire.release_answer(),))
                    return
                for fragment in wire.fragments(body):
                    if fragment.is_command:
                        request, size = bytes(fragment.data), 0
                        continue
                    size += len(fragment.data)
                    if fragment.is_last:
                        connection.send((wire.store_response(request, fragment.context),))
                        with self._lock:
                            self.instances += 1
                            self.size += size
