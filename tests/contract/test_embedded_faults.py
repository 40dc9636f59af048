"""The switches that make the embedded archive fail, and how it starts and stops."""

import socket
import threading
import time

import httpx
import pytest
from embedded_archive import JSON, ORIGINAL, image, instance, parts, reasons, running, running_archive, values

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


def mark(answer):
    return answer.headers["Content-Type"].partition("boundary=")[2].encode()


def test_an_answer_is_cut_behind_so_many_bytes(archive):
    archive.store(image([bytes(1 << 20)]), instance(sop="1.2.1.1.2"))
    whole = archive.get("/studies/1.2.1", ORIGINAL)
    with archive.archive.switches.on(Faults(cut=1, cut_after=len(whole.content) - 10)):
        got = []
        with archive.http.stream("GET", archive.archive.url + "/studies/1.2.1", headers=ORIGINAL) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                got.extend(answer.iter_bytes())
        assert answer.status_code == 200
        assert b"".join(got) == whole.content.replace(*(mark(one) for one in (whole, answer)))[:-10]


def test_a_file_that_is_gone_cuts_the_answer(archive, tmp_path):
    archive.store(instance(), image([bytes(1 << 20)], sop="1.2.1.1.2"))
    max(tmp_path.glob("instances/*/*.dcm"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(httpx.RemoteProtocolError):
        archive.get("/studies/1.2.1", ORIGINAL)
    assert archive.get("/studies").status_code == 200
    gone = archive.get(
        "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.2", {"Accept": "application/dicom; transfer-syntax=*"}
    )
    assert gone.status_code == 500


def test_parts_say_star_for_their_transfer_syntax(archive):
    archive.store(instance())
    with archive.archive.switches.on(Faults(star=True)):
        [(headers, body)] = parts(archive.get("/studies/1.2.1", ORIGINAL))
    assert headers == {"content-type": "application/dicom; transfer-syntax=*"}
    assert body == instance()


def test_a_request_hangs_until_the_client_gives_up(archive):
    with archive.archive.switches.on(Faults(hanging=1)):
        with pytest.raises(httpx.ReadTimeout):
            archive.http.get(archive.archive.url + "/studies", headers=JSON, timeout=0.3)
        assert archive.get("/studies").status_code == 204


def test_rows_of_the_page_before_come_again(archive):
    archive.store(*(instance(f"1.2.{number}", sop=f"1.2.{number}.1") for number in range(1, 5)))
    with archive.archive.switches.on(Faults(repeated=1)):
        pages = [archive.get(f"/studies?limit=2&offset={offset}").json() for offset in (0, 2, 4, 6)[:3]]
    found = [values(model, "0020000D")[0] for page in pages for model in page]
    assert found == ["1.2.4", "1.2.3", "1.2.3", "1.2.2", "1.2.1"]


def test_faults_that_a_test_turned_on_stay_as_it_wrote_them(archive):
    faults = Faults(unauthorized=2)
    archive.archive.switches.set(faults)
    archive.get("/studies")
    assert (faults.unauthorized, archive.archive.switches.faults.unauthorized) == (2, 1)


def test_health_needs_no_accept_header(archive):
    request = archive.http.build_request("GET", archive.archive.url.removesuffix("v2") + "health/check")
    del request.headers["Accept"]
    answer = archive.http.send(request)
    assert (answer.status_code, answer.json()) == (200, {"overallStatus": "Healthy"})


def test_running_archive_gives_its_url_and_its_switches(tmp_path):
    with running_archive(tmp_path, Faults(unavailable=1)) as (url, switches):
        assert httpx.get(url + "/studies", headers=JSON).status_code == 503
        assert httpx.get(url + "/studies", headers=JSON).status_code == 204
        assert len(switches.requests()) == 2


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


def test_answers_do_not_wait_for_delayed_acknowledgements(archive):
    archive.store(instance())

    def latency() -> float:
        begin = time.monotonic()
        assert archive.get("/studies").status_code == 200
        return time.monotonic() - begin

    assert min(latency() for _ in range(20)) < 0.035  # with Nagle's algorithm every answer takes 40 ms
