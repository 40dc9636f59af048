"""The switches that make the embedded archive fail, and how it starts and stops."""

import socket
import threading
import time

import httpx
import pytest
from embedded_archive import ORIGINAL, instance, reasons, running

from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults


@pytest.fixture
def archive(tmp_path):
    with running(tmp_path) as caller:
        yield caller


@pytest.mark.parametrize(
    ("faults", "status", "retry_after"),
    [
        (Faults(unauthorized=1), 401, None),
        (Faults(throttled=1), 429, None),
        (Faults(throttled=1, retry_after="3"), 429, "3"),
        (Faults(unavailable=1, retry_after="0"), 503, "0"),
    ],
)
def test_a_request_fails_as_often_as_the_switch_says(archive, faults, status, retry_after):
    with archive.archive.switches.on(faults):
        first = archive.store(instance())
        assert (first.status_code, first.headers.get("Retry-After")) == (status, retry_after)
        assert archive.store(instance()).status_code == 200


def test_instances_fail_with_the_reasons_of_a_busy_service(archive):
    with archive.archive.switches.on(Faults(unexpected=1, being_created=1)):
        answer = archive.store(instance(), instance(sop="1.2.8"), instance(sop="1.2.9"))
    assert (answer.status_code, reasons(answer)) == (202, [272, 45071])


def test_an_answer_is_cut_within_a_part(archive):
    archive.store(instance())
    with archive.archive.switches.on(Faults(cut=1)):
        with pytest.raises(httpx.RemoteProtocolError):
            archive.get("/studies/1.2.1", ORIGINAL)
        assert archive.get("/studies/1.2.1", ORIGINAL).status_code == 200


def test_pages_are_short_though_more_follow(archive):
    archive.store(instance(), instance(study="1.2.2"))
    with archive.archive.switches.on(Faults(short_page=1)):
        assert len(archive.get("/studies?limit=2").json()) == 1


def test_answers_wait(archive):
    with archive.archive.switches.on(Faults(delay=0.2)):
        begin = time.monotonic()
        archive.get("/studies")
        assert time.monotonic() - begin >= 0.2


def test_requests_are_noted(archive):
    archive.get("/studies?limit=3")
    assert archive.archive.switches.requests() == ["GET /v2/studies?limit=3"]


def test_a_taken_port_is_an_oserror(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"), EmbeddedArchive(tmp_path, port=taken.getsockname()[1]):
            pass


def test_the_same_instance_from_many_clients_is_stored_once(archive):
    statuses = []

    def send():
        statuses.append(archive.store(instance()).status_code)

    clients = [threading.Thread(target=send) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert sorted(statuses) == [200] + [409] * 7
