"""DICOM upper layer for load: PDUs are encoded once and replayed, answers are scanned, nothing is modelled.

Written apart from the gateway's own codec, so that a fault there cannot hide here.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE, C_GET, C_FIND, C_MOVE, C_CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0FFF
PENDING = (0xFF00, 0xFF01)

_HEADER = struct.Struct(">BxI")
DATA_HEADER = struct.Struct(">BxIIBB")  # of a P-DATA-TF PDU with its first presentation data value
_READ = 1 << 20
_MOST_VECTORS = 64


class WireError(Exception):
    """Say that the other side did not do what a benchmark relies on."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """Hold one presentation data value."""

    context: int
    is_command: bool
    is_last: bool
    data: memoryview


class Connection:
    """A TCP connection that is read PDU by PDU."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._buffer = bytearray(4 * _READ)
        self._start = self._end = 0
        self.accepted: frozenset[int] = frozenset()  # presentation context IDs

    def pdu(self) -> tuple[int, memoryview]:
        """Give the next PDU's type and body; the body is valid until the next call."""
        self._need(6)
        kind, length = _HEADER.unpack_from(self._buffer, self._start)
        self._need(6 + length)
        body = memoryview(self._buffer)[self._start + 6 : self._start + 6 + length]
        self._start += 6 + length
        return kind, body

    def _need(self, size: int) -> None:
        while self._end - self._start < size:
            if self._start and (self._start == self._end or len(self._buffer) - self._start < size + _READ):
                rest = self._buffer[self._start : self._end]
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if len(self._buffer) < size:
                raise WireError(f"a PDU of {size} bytes")
            got = self.sock.recv_into(memoryview(self._buffer)[self._end :])
            if not got:
                raise WireError("the connection was closed")
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._end += got

    def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send pieces as one stream, without joining them."""
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            sent = self.sock.sendmsg(left[:_MOST_VECTORS])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def fragments(body: memoryview) -> Iterator[Fragment]:
    """Yield the presentation data values of a P-DATA-TF body."""
    offset = 0
    while offset < len(body):
        length, context, control = struct.unpack_from(">IBB", body, offset)
        yield Fragment(context, bool(control & 1), bool(control & 2), body[offset + 6 : offset + 4 + length])
        offset += 4 + length


def associate(
    host: str,
    port: int,
    called: str,
    calling: str,
    contexts: Sequence[tuple[str, str]],
    *,
    scp_of: Sequence[str] = (),
) -> Connection:
    """Open an association; context IDs are 1, 3, 5 ... in the order of `contexts`; SCP of the classes `scp_of`."""
    connection = Connection(socket.create_connection((host, port), timeout=600))
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in enumerate(contexts):
        inner = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        items += _item(0x20, bytes((2 * number + 1, 0, 0, 0)) + inner)
    items += user_information(scp_of)
    fixed = struct.pack(">HH16s16s32s", 1, 0, called.encode().ljust(16), calling.encode().ljust(16), b"")
    try:
        connection.send((_HEADER.pack(ASSOCIATE_RQ, len(fixed + items)), fixed, items))
        kind, body = connection.pdu()
        if kind != ASSOCIATE_AC:
            raise WireError(f"association refused: {bytes(body).hex()}")
    except BaseException:
        connection.close()
        raise
    answers = [value for item, value in sub_items(bytes(body[68:])) if item == 0x21]
    connection.accepted = frozenset(value[0] for value in answers if value[2] == 0)
    return connection


def store(connection: Connection, context: int, sop_class: str, sop_instance: str, data_set: bytes) -> int:
    """Do one C-STORE in a context and give its status."""
    request = command(C_STORE, 1, sop_class, element(0x1000, uid(sop_instance)))
    connection.send(
        (
            p_data(context, request, 16_384, is_command=True),
            p_data(context, data_set, 16_384, is_command=False),
        )
    )
    return answer(connection)


def answer(connection: Connection) -> int:
    """Wait for a response in one PDU, without data set, and give its status."""
    kind, body = connection.pdu()
    if kind != P_DATA:
        raise WireError(f"PDU {kind} in place of a response")
    return status_of(bytes(next(fragments(body)).data))


def release(connection: Connection) -> None:
    """Release an association and close."""
    connection.send((_HEADER.pack(RELEASE_RQ, 4) + bytes(4),))
    kind, _ = connection.pdu()
    connection.close()
    if kind != RELEASE_RP:
        raise WireError(f"PDU {kind} in place of a release response")


def user_information(scp_of: Sequence[str] = ()) -> bytes:
    """Give the User Information item: 128 KiB PDUs, a name, and the SCP role for some classes."""
    roles = [_item(0x54, struct.pack(">H", len(sop_class)) + sop_class.encode() + b"\0\1") for sop_class in scp_of]
    return _item(
        0x50,
        _item(0x51, struct.pack(">I", 131_072)) + _item(0x52, b"2.25.1") + b"".join(roles) + _item(0x55, b"BENCH"),
    )


def sub_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the items in an association PDU."""
    offset = 0
    while offset < len(data):
        kind, length = struct.unpack_from(">BxH", data, offset)
        yield kind, data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def accept_pdu(request: bytes) -> bytes:
    """Build the A-ASSOCIATE-AC that takes every context of a request's body, in its first transfer syntax."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for kind, value in sub_items(request[68:]):
        if kind == 0x20:
            syntax = next(item for sub, item in sub_items(value[4:]) if sub == 0x40)
            items += _item(0x21, bytes((value[0], 0, 0, 0)) + _item(0x40, syntax))
    body = request[:68] + items + user_information()
    return _HEADER.pack(ASSOCIATE_AC, len(body)) + body


def release_answer() -> bytes:
    """Build the A-RELEASE-RP."""
    return _HEADER.pack(RELEASE_RP, 4) + bytes(4)


def command(field: int, message_id: int, sop_class: str, *more: bytes) -> bytes:
    """Encode the command set of a request that has a data set; `more` are elements above (0000,0800)."""
    body = (
        element(0x0002, uid(sop_class))
        + element(0x0100, struct.pack("<H", field))
        + element(0x0110, struct.pack("<H", message_id))
        + b"".join(piece for piece in more if piece[2:4] < b"\x00\x07")
        + element(0x0700, b"\0\0")
        + element(0x0800, b"\x01\x00")
        + b"".join(piece for piece in more if piece[2:4] >= b"\x00\x07")
    )
    return element(0x0000, struct.pack("<I", len(body))) + body


def element(number: int, value: bytes) -> bytes:
    """Encode an element of group 0000."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def uid(value: str) -> bytes:
    """Encode a UID, padded to even length."""
    return value.encode() + b"\0" * (len(value) % 2)


def p_data(context: int, data: bytes | memoryview, max_pdu: int, *, is_command: bool, is_last: bool = True) -> bytes:
    """Encode data as P-DATA-TF PDUs of at most `max_pdu` bytes, one presentation data value each."""
    room = max_pdu - 6
    pieces = []
    for start in range(0, len(data), room):
        piece = data[start : start + room]
        control = is_command | (2 if is_last and start + room >= len(data) else 0)
        pieces.append(struct.pack(">BxIIBB", P_DATA, len(piece) + 6, len(piece) + 2, context, control))
        pieces.append(bytes(piece))
    return b"".join(pieces)


def elements(command_set: bytes) -> dict[int, bytes]:
    """Give the values of a command set by element number of group 0000."""
    found, offset = {}, 0
    while offset < len(command_set):
        _, number, length = struct.unpack_from("<HHI", command_set, offset)
        found[number] = command_set[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return found


def status_of(command_set: bytes) -> int:
    """Find Status (0000,0900) in a response's command set."""
    return int.from_bytes(elements(command_set)[0x0900], "little")


def cancel(message_id: int) -> bytes:
    """Encode a C-CANCEL request's command set (PS3.7 9.3.2.3)."""
    body = (
        element(0x0100, struct.pack("<H", C_CANCEL))
        + element(0x0120, struct.pack("<H", message_id))
        + element(0x0800, b"\x01\x01")
    )
    return element(0x0000, struct.pack("<I", len(body))) + body


def store_response(request: bytes, context: int, status: int = 0) -> bytes:
    """Encode the response to a C-STORE request's command set."""
    values = elements(request)
    body = (
        element(0x0002, values[0x0002])
        + element(0x0100, b"\x01\x80")
        + element(0x0120, values[0x0110])
        + element(0x0800, b"\x01\x01")
        + element(0x0900, struct.pack("<H", status))
        + element(0x1000, values[0x1000])
    )
    return p_data(context, element(0, struct.pack("<I", len(body))) + body, 16_384, is_command=True)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value
