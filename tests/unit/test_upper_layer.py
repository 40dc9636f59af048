import io
import random
import socket
import struct
import threading
import time

import pytest

from gateway.dimse.association import Association, Context
from gateway.dimse.pdu import P_DATA, RELEASE_REQUEST, RELEASE_RQ, PduError
from gateway.dimse.upper_layer import Connection, ConnectionLost, TimeIsUp, data_pdus, fragments


def pair(**options: float) -> tuple[socket.socket, Connection]:
    ours, theirs = socket.socketpair()
    return theirs, Connection(ours, max_pdu=16_384, timeout=options.get("timeout", 5))


def soon() -> float:
    return time.monotonic() + 5


def collect(connection: Connection, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        kind, body = connection.next_pdu(soon())
        assert kind == P_DATA
        for fragment in fragments(body):
            data += fragment.data
    return bytes(data)


@pytest.mark.parametrize("step", [1, 2, 7, 4096, 100_000])
def test_any_chunking_of_the_stream_gives_the_same_data(step: int) -> None:
    peer, connection = pair()
    data = random.Random(1).randbytes(30_000 if step < 8 else 3_000_000)
    stream = b"".join(bytes(piece) for piece in data_pdus(3, data, 16_384, command=False))

    def send() -> None:
        for start in range(0, len(stream), step):
            peer.sendall(stream[start : start + step])

    sender = threading.Thread(target=send)
    sender.start()
    assert collect(connection, len(data)) == data
    sender.join()
    connection.close()
    peer.close()


def test_the_fragments_in_the_buffer_come_as_one_piece_up_to_the_first_that_is_not_plain_data() -> None:
    peer, connection = pair()
    plain = [random.Random(number).randbytes(2 * number) for number in range(1, 200)]
    stream = b"".join(b"".join(data_pdus(3, piece, 16_384, command=False, last=False)) for piece in plain)
    two = struct.pack(">BxIIBB", P_DATA, 2 * 8, 4, 3, 0) + b"ab" + struct.pack(">IBB", 4, 3, 0) + b"cd"
    others = [
        b"".join(data_pdus(5, b"ef", 16_384, command=False, last=False)),
        b"".join(data_pdus(3, b"gh", 16_384, command=True, last=False)),
        b"".join(data_pdus(3, b"ij", 16_384, command=False)),
        struct.pack(">BxIIBB", P_DATA, 8, 1000, 3, 0) + b"no",
        RELEASE_REQUEST,
    ]
    for other in (two, *others):
        peer.sendall(stream + other)
        kind, body = connection.next_pdu(soon())
        found = bytes(body[6:])
        while connection.buffered and (data := connection.data(3)):
            found += data
        assert (kind, found) == (P_DATA, b"".join(plain))
        assert connection.next_pdu(soon()) == (other[0], other[6:])
    connection.close()
    peer.close()


@pytest.mark.parametrize("header", [struct.pack(">BxI", P_DATA, 16_385), struct.pack(">BxI", 9, 4), b"GET / "])
def test_a_forbidden_type_or_length_is_refused_from_its_header(header: bytes) -> None:
    peer, connection = pair()
    peer.sendall(header)
    with pytest.raises(PduError):
        connection.next_pdu(soon())
    connection.close()
    peer.close()


def test_a_pdu_that_stalls_ends_in_time_however_slowly_it_drips() -> None:
    peer, connection = pair(timeout=0.3)
    done = threading.Event()

    def drip() -> None:
        for byte in struct.pack(">BxI", P_DATA, 1000) + bytes(1000):
            if done.wait(0.05):
                return
            peer.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(TimeIsUp):
        connection.next_pdu(soon())
    assert time.monotonic() - begun < 2
    done.set()
    thread.join()
    connection.close()
    peer.close()


def test_a_closed_connection_is_told_from_silence() -> None:
    peer, connection = pair()
    with pytest.raises(TimeIsUp):
        connection.next_pdu(time.monotonic() + 0.05)
    peer.close()
    with pytest.raises(ConnectionLost):
        connection.next_pdu(soon())
    connection.close()


def test_wake_ends_a_wait_from_another_thread() -> None:
    peer, connection = pair()
    threading.Timer(0.1, connection.wake).start()
    begun = time.monotonic()
    assert connection.wait(10) is False
    assert time.monotonic() - begun < 5
    peer.sendall(RELEASE_REQUEST)
    assert connection.wait(10) is True
    assert connection.next_pdu(soon())[0] == RELEASE_RQ
    connection.close()
    peer.close()


@pytest.mark.parametrize("max_pdu", [0, 128, 4096, 131_072])
@pytest.mark.parametrize("size", [0, 1, 121, 122, 123, 4090, 300_001])
def test_fragments_are_even_but_the_last_and_fit_the_peer(max_pdu: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    stream = b"".join(bytes(piece) for piece in data_pdus(1, data, max_pdu, command=False))
    found, offset, last = b"", 0, []
    while offset < len(stream):
        (length,) = struct.unpack_from(">I", stream, offset + 2)
        assert not max_pdu or length <= max_pdu
        for fragment in fragments(memoryview(stream)[offset + 6 : offset + 6 + length]):
            last.append(fragment.last)
            assert fragment.last or len(fragment.data) % 2 == 0
            found += bytes(fragment.data)
        offset += 6 + length
    assert found == data
    assert last == [False] * (len(last) - 1) + [True]


@pytest.mark.parametrize("limit", [0, 4_294_967_295])
def test_a_peer_without_a_limit_worth_the_name_gets_no_pdu_as_large_as_the_instance(limit: int) -> None:
    peer, connection = pair()
    context = Context(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2")
    association = Association(connection, {1: context}, peer_max_pdu=limit, network_timeout=5, max_identifier=1_000)
    size = 3_000_000
    instance = threading.Thread(
        target=association.send_stream, args=(context, {"CommandField": 1}, io.BytesIO(bytes(size)), size)
    )
    instance.start()
    reader = Connection(peer, max_pdu=131_072, timeout=5)
    taken = 0
    while taken < size:
        _, body = reader.next_pdu(soon())
        taken += sum(len(fragment.data) for fragment in fragments(body) if not fragment.command)
    instance.join()
    assert taken == size
    connection.close()
    reader.close()


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\1\1\2", b"\0\0\1\0\1\2abc"])
def test_a_cut_or_overlong_fragment_is_refused(body: bytes) -> None:
    with pytest.raises(PduError):
        list(fragments(memoryview(body)))
