"""Whatever bytes come to the port cost their own connection only (dimse-requirements SEC-02)."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hostile import HALF_A_STORE, MESSAGES, OPENINGS, associated, connect, echoes, receive, request

from gateway.app import running
from gateway.config import parse
from gateway.dimse import pdu


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


@pytest.mark.parametrize("name", OPENINGS)
def test_a_hostile_opening_ends_its_connection_and_nothing_else(port: int, name: str) -> None:
    with connect(port) as sock:
        sock.sendall(OPENINGS[name])
        answer = receive(sock)
    assert answer[:1] in (b"", bytes((pdu.ABORT,)))
    assert echoes(port)


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
    with associated(port) as sock:
        sock.sendall(HALF_A_STORE)
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


def test_a_connection_that_gets_no_thread_is_closed_and_the_next_is_served(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, []

    def failing(self: threading.Thread) -> None:
        if not refused and "_serve" in repr(getattr(self, "_target", "")):
            refused.append(self)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with connect(port) as sock:
        sock.sendall(request())
        assert receive(sock) == b""
    assert refused
    assert echoes(port)
