"""Whatever bytes come to the port cost their own connection only (dimse-requirements SEC-02)."""

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pynetdicom import AE

from gateway.app import running
from gateway.config import parse
from gateway.dimse import commands, pdu
from gateway.dimse.pdu import AssociateRequest, ProposedContext, UserInformation, encode_request

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    config = parse(
        {
            "listen": {
                "host": "127.0.0.1",
                "port": 0,
                "grace": 1,
                "negotiation_timeout": 1.5,
                "network_timeout": 1.5,
                "max_associations": 6,
            },
            "unknown_peers": "accept",
            "archives": {"main": {"url": "http://127.0.0.1:9/v2"}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "spool": {"folder": str(folder), "high_water": 1.0},
        },
        "test",
    )
    with running(config) as gateway:
        yield gateway.port


def request(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "called": "GATEWAY",
        "calling": "HOSTILE",
        "protocol_version": 1,
        "application_context": pdu.APPLICATION_CONTEXT,
        "contexts": (
            ProposedContext(1, VERIFICATION, (IMPLICIT,)),
            ProposedContext(3, CT, (IMPLICIT,)),
        ),
        "user": UserInformation(16_384, "1.2.3", "HOSTILE"),
    }
    return encode_request(AssociateRequest(**{**fields, **changes}))  # type: ignore[arg-type]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


def associated(port: int) -> socket.socket:
    sock = connect(port)
    sock.sendall(request())
    answer = receive(sock)
    assert answer[0] == pdu.ASSOCIATE_AC
    return sock


def receive(sock: socket.socket) -> bytes:
    """Read one PDU, empty when the connection ends."""
    sock.settimeout(6)
    data = b""
    try:
        while len(data) < 6 or len(data) < 6 + struct.unpack(">I", data[2:6])[0]:
            more = sock.recv(65_536)
            if not more:
                return data
            data += more
    except ConnectionResetError:
        return b""
    return data


def echoes(port: int) -> bool:
    entity = AE(ae_title="FRIEND")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port, ae_title="GATEWAY")
    if not association.is_established:
        return False
    status = association.send_c_echo().Status
    association.release()
    return bool(status == 0)


OPENINGS = {
    "random": random.Random(5).randbytes(4000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(240),
    "huge length": struct.pack(">BxI", 1, 0xFFFFFFFF),
    "unknown type": struct.pack(">BxI", 9, 4) + bytes(4),
    "data first": struct.pack(">BxI", 4, 6) + bytes(6),
    "release first": pdu.RELEASE_REQUEST,
    "short request": struct.pack(">BxI", 1, 10) + bytes(10),
    "even context": request(contexts=(ProposedContext(2, VERIFICATION, (IMPLICIT,)),)),
    "repeated context": request(contexts=(ProposedContext(1, VERIFICATION, (IMPLICIT,)),) * 2),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_hostile_opening_ends_its_connection_and_nothing_else(port: int, name: str) -> None:
    with connect(port) as sock:
        sock.sendall(OPENINGS[name])
        answer = receive(sock)
    assert answer[:1] in (b"", bytes((pdu.ABORT,)))
    assert echoes(port)


MESSAGES = {
    "unknown context": struct.pack(">BxIIBB", 4, 8, 4, 99, 3) + b"xx",
    "cut fragment": struct.pack(">BxIIBB", 4, 8, 400, 1, 3) + b"xx",
    "random command": struct.pack(">BxIIBB", 4, 106, 102, 1, 3) + random.Random(1).randbytes(100),
    "data before command": struct.pack(">BxIIBB", 4, 8, 4, 1, 2) + b"xx",
    "associate again": request(),
    "too long": struct.pack(">BxI", 4, 200_000),
    "endless command": (struct.pack(">BxIIBB", 4, 60_006, 60_002, 1, 1) + bytes(60_000)) * 2,
    "response": struct.pack(">BxIIBB", 4, 6 + 66, 68 - 0, 1, 3) + bytes(66),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_message_aborts_its_association_and_nothing_else(port: int, name: str) -> None:
    with associated(port) as sock:
        sock.sendall(MESSAGES[name])
        answer = receive(sock)
    assert answer[:1] == bytes((pdu.ABORT,))
    assert echoes(port)


def test_half_open_and_dripping_peers_are_cut_in_time(port: int) -> None:
    silent, begun = connect(port), time.monotonic()
    dripping = connect(port)
    done = threading.Event()

    def drip() -> None:
        for byte in request():
            if done.wait(0.05):
                return
            try:
                dripping.sendall(bytes([byte]))
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    assert receive(silent) == b""
    receive(dripping)
    assert time.monotonic() - begun < 5
    done.set()
    thread.join()
    silent.close()
    dripping.close()
    assert echoes(port)


def test_a_store_broken_off_in_the_middle_leaves_nothing(port: int) -> None:
    command = commands.encode(
        {
            "AffectedSOPClassUID": CT,
            "CommandField": commands.C_STORE_RQ,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": commands.DATA_SET_PRESENT,
            "AffectedSOPInstanceUID": "1.2.3",
        }
    )
    with associated(port) as sock:
        sock.sendall(struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, 3, 3) + command)
        sock.sendall(struct.pack(">BxIIBB", 4, 10_006, 10_002, 3, 0) + bytes(10_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert echoes(port)


def test_at_the_limit_the_next_is_rejected_as_transient_and_never_met_with_silence(port: int) -> None:
    held = [associated(port) for _ in range(6)]
    with connect(port) as sock:
        sock.sendall(request())
        assert receive(sock)[6:] == bytes((0, 2, 3, 2))
    for sock in held:
        sock.sendall(pdu.RELEASE_REQUEST)
        assert receive(sock)[0] == pdu.RELEASE_RP
        sock.close()
    time.sleep(0.2)
    assert echoes(port)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"called": "OTHER"}, (0, 1, 1, 7)),
        ({"application_context": "1.2.3"}, (0, 1, 1, 2)),
    ],
)
def test_a_request_for_something_else_is_rejected_with_its_reason(
    port: int, changes: dict[str, object], answer: tuple[int, ...]
) -> None:
    with connect(port) as sock:
        sock.sendall(request(**changes))
        assert receive(sock)[6:] == bytes(answer)


def test_two_hundred_associations_leave_no_thread_and_no_descriptor_behind(port: int) -> None:
    process = psutil.Process()
    assert echoes(port)
    time.sleep(0.5)
    before = (process.num_fds(), threading.active_count())
    for _ in range(200):
        with associated(port) as sock:
            sock.sendall(pdu.RELEASE_REQUEST)
            assert receive(sock)[0] == pdu.RELEASE_RP
    time.sleep(0.5)
    after = (process.num_fds(), threading.active_count())
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 1
    assert os.getpid() == process.pid
