"""Generate load: replay pre-encoded instances on several associations, query, move, and take what is moved."""

import contextlib
import multiprocessing
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from statistics import median
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


@dataclass(frozen=True)
class Load:
    """Hold what a load gave: seconds from the first byte to the last response, and for each instance."""

    seconds: float
    responses: Sequence[float]

    @property
    def median(self) -> float:
        """Give the median time to a response in seconds."""
        return median(self.responses)


def store(target: Target, batch: Batch, associations: int) -> Load:
    """Store a batch, split over associations in a process each, every one waiting for its responses.

    Association set-up and release are outside the measure, as with a modality that keeps its association.
    """
    batch.encode()  # before the fork: once for all
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(associations)
    parts = []
    for first in range(associations):
        receiver, sender = fork.Pipe(duplex=False)
        numbers = range(first, batch.count, associations)
        process = fork.Process(target=_store, args=(target, batch, numbers, start, sender), daemon=True)
        process.start()
        sender.close()
        parts.append((process, receiver))
    found = [_received(receiver) for _, receiver in parts]
    for process, _ in parts:
        process.join()
    begun, ended = min(part[0] for part in found), max(part[1] for part in found)
    return Load(ended - begun, [took for part in found for took in part[2]])


def _received(receiver: Connection) -> tuple[float, float, list[float]]:
    try:
        begun, ended, took = receiver.recv()
    except EOFError as error:
        raise wire.WireError("a sender broke off; its trace is above") from error
    return begun, ended, took


def _store(target: Target, batch: Batch, numbers: Sequence[int], start: Barrier, result: Connection) -> None:
    try:
        connection = target.associate((SOP_CLASS, wire.EXPLICIT_LE))
        start.wait(60)
        took, begun = [], perf_counter()
        before = begun
        for number in numbers:
            connection.send((batch.prefixes[number], *batch.tails))
            status = wire.answer(connection)
            if status != 0:
                raise wire.WireError(f"C-STORE status {status:04X}H")
            now = perf_counter()
            took.append(now - before)
            before = now
        result.send((begun, before, took))
        wire.release(connection)
    except BaseException:
        start.abort()
        raise


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
