"""Ask for instances by C-MOVE or C-GET on the wire, and see every response as it came."""

import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench import wire
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from gateway.dimse import commands

MESSAGE_ID = 7
NO_STATUS = -1
_COUNTERS = {0x1020: "remaining", 0x1021: "completed", 0x1022: "failed", 0x1023: "warning"}


@dataclass
class Response:
    """A C-MOVE or C-GET response: its counters as far as they are there, its failed UIDs, when it came."""

    status: int
    counters: dict[str, int]
    comment: str
    failed: list[str]
    at: float


@dataclass
class Got:
    """An instance that came over the association of a C-GET."""

    sop_class: str
    sop_instance: str
    context: int
    command: dict[int, bytes]
    data: bytes


@dataclass
class Retrieval:
    """A running C-MOVE or C-GET.

    `answers` gives a sub-operation's status, NO_STATUS for a response without one, None to stay silent.
    """

    connection: wire.Connection
    begun: float
    answers: Callable[[str], int | None]
    got: list[Got] = field(default_factory=list)

    def responses(self) -> Iterator[Response]:
        """Yield responses up to the final one."""
        while True:
            context, command, data = self._message()
            elements = wire.elements(command)
            if elements[0x0100] == b"\x01\x00":
                self._take(context, command, data)
                continue
            assert int.from_bytes(elements[0x0120], "little") == MESSAGE_ID
            status = wire.status_of(command)
            counters = {
                name: int.from_bytes(elements[number], "little")
                for number, name in _COUNTERS.items()
                if number in elements
            }
            comment = elements.get(0x0902, b"").decode().strip()
            yield Response(status, counters, comment, _failed(data), time.monotonic() - self.begun)
            if status != 0xFF00:
                return

    def all(self) -> list[Response]:
        """Wait for the end and release the association."""
        responses = list(self.responses())
        wire.release(self.connection)
        return responses

    def cancel(self) -> None:
        self.connection.send((wire.p_data(1, wire.cancel(MESSAGE_ID), 16_384, is_command=True),))

    def _take(self, context: int, command: bytes, data: bytes) -> None:
        elements = wire.elements(command)
        sop_class, sop_instance = (elements[number].decode().rstrip("\0") for number in (0x0002, 0x1000))
        self.got.append(Got(sop_class, sop_instance, context, elements, data))
        status = self.answers(sop_instance)
        if status == NO_STATUS:
            bare = {
                "CommandField": commands.C_STORE_RSP,
                "MessageIDBeingRespondedTo": int.from_bytes(elements[0x0110], "little"),
                "CommandDataSetType": commands.DATA_SET_ABSENT,
            }
            self.connection.send((wire.p_data(context, commands.encode(bare), 16_384, is_command=True),))
        elif status is not None:
            self.connection.send((wire.store_response(command, context, status),))

    def _message(self) -> tuple[int, bytes, bytes]:
        command, data = b"", b""
        while True:
            kind, body = self.connection.pdu()
            assert kind == wire.P_DATA, f"PDU {kind} in place of a message"
            for fragment in wire.fragments(body):
                if fragment.is_command:
                    command += fragment.data
                else:
                    data += fragment.data
                has_data = wire.elements(command)[0x0800] != b"\x01\x01" if fragment.is_command else True
                if fragment.is_last and (not fragment.is_command or not has_data):
                    return fragment.context, command, data


def move(
    port: int, destination: str, *, sop_class: str = wire.STUDY_ROOT_MOVE, calling: str = "BENCH", **keys: object
) -> Retrieval:
    """Send a C-MOVE request; `keys` are the identifier's elements."""
    connection = wire.associate("127.0.0.1", port, "GATEWAY", calling, [(sop_class, wire.EXPLICIT_LE)])
    padded = destination.encode() + b" " * (len(destination) % 2)
    return _ask(connection, wire.command(wire.C_MOVE, MESSAGE_ID, sop_class, wire.element(0x0600, padded)), keys)


def get(
    port: int,
    contexts: Sequence[tuple[str, str]],
    *,
    sop_class: str = wire.STUDY_ROOT_GET,
    without_role: Sequence[str] = (),
    answers: Callable[[str], int | None] = lambda _: 0,
    **keys: object,
) -> Retrieval:
    """Send a C-GET request; `contexts` are (storage class, transfer syntax), with the SCP role unless excepted."""
    scp_of = [uid for uid in dict.fromkeys(uid for uid, _ in contexts) if uid not in without_role]
    proposed = [(sop_class, wire.EXPLICIT_LE), *contexts]
    connection = wire.associate("127.0.0.1", port, "GATEWAY", "BENCH", proposed, scp_of=scp_of)
    retrieval = _ask(connection, wire.command(wire.C_GET, MESSAGE_ID, sop_class), keys)
    retrieval.answers = answers
    return retrieval


def _ask(connection: wire.Connection, request: bytes, keys: dict[str, object]) -> Retrieval:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, identifier)
    begun = time.monotonic()
    connection.send(
        (
            wire.p_data(1, request, 16_384, is_command=True),
            wire.p_data(1, encoded.getvalue(), 16_384, is_command=False),
        )
    )
    return Retrieval(connection, begun, lambda _: 0)


def _failed(data: bytes) -> list[str]:
    if not data:
        return []
    found = read_dataset(DicomBytesIO(data), is_implicit_VR=False, is_little_endian=True)
    with contextlib.suppress(struct.error):
        values = found.FailedSOPInstanceUIDList
        if isinstance(values, bytes):  # what is too long for its VR's length is UN (PS3.5 6.2.2)
            return values.decode().rstrip("\0").split("\\")
    return [str(values)] if isinstance(values, str) else [str(value) for value in values]
