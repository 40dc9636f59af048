import gzip
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import trustme
from scripted_server import Answer, scripted

from gateway import errors
from gateway.dicomweb.auth import Basic, Bearer, TokenFile
from gateway.dicomweb.carrier import carrier
from gateway.dicomweb.client import Client, Held, Outcome, Upload
from gateway.extent import Extent
from gateway.translate.profiles import PROFILES

JSON = {"Content-Type": "application/dicom+json"}
RELATED = {"Content-Type": 'multipart/related; type="application/dicom"; boundary="a b"'}
PART = b"--a b\r\nContent-Type: application/dicom\r\n\r\nDATA\r\n"
STUDIES = b'[{"0020000D": {"vr": "UI", "Value": ["1.1"]}}]'
METADATA = Answer(200, JSON, b'[{"00080018": {"vr": "UI", "Value": ["1"]}}]')


def client(url: str, **options: object) -> Client:
    return Client(url, name="main", **{"read_timeout": 2, "connect_timeout": 2} | options)  # type: ignore[arg-type]


def upload(folder: Path, uid: str, size: int = 1000) -> Upload:
    path = folder / f"{uid}.dcm"
    path.write_bytes(b"x" * size)
    return Upload(Extent.of(path), "1.2.840.10008.5.1.4.1.1.2", uid, "1.2", "1.3")


def item(uid: str = "", **numbers: int) -> dict[str, object]:
    named = {"00081155": {"vr": "UI", "Value": [uid]}} if uid else {}
    return named | {tag.lstrip("_"): {"vr": "US", "Value": [number]} for tag, number in numbers.items()}


def stow(**sequences: list[dict[str, object]]) -> bytes:
    return json.dumps({tag.lstrip("_"): {"vr": "SQ", "Value": items} for tag, items in sequences.items()}).encode()


def read(archive: Client) -> list[bytes]:
    with archive.retrieve("1.2", "1.3", "1.4") as instances:
        return [b"".join(instance.chunks) for instance in instances]


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Let `serve` handle the first connection to a socket, byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


# what keeps a connection, and what is sent


def test_every_kind_of_answer_leaves_the_connection_for_the_next_request(tmp_path: Path) -> None:
    stored = stow(_00081199=[item("1.4")])
    with (
        scripted(
            Answer(204),
            Answer(404, {}, b"nothing here"),
            Answer(200, RELATED, PART + b"--a b--\r\nepilogue"),
            Answer(200, JSON, stored),
            Answer(200, JSON, STUDIES),
            Answer(204),
            Answer(204),
        ) as server,
        client(server.url) as archive,
    ):
        assert list(archive.search("studies", [])) == []
        with pytest.raises(errors.NotFound):
            archive.metadata("1.2")
        assert read(archive) == [b"DATA"]
        assert archive.store([upload(tmp_path, "1.4")])[0].stored
        assert len(list(archive.search("studies", []))) == 1
        archive.delete("1.2")
        assert len(server.requests) == 7
        assert len({request.connection for request in server.requests}) == 1


def test_cookies_come_back_and_a_url_may_name_a_user() -> None:
    with scripted(Answer(204, {"Set-Cookie": "server=2; Path=/"}), Answer(204)) as server:
        with client(server.url.replace("//", "//user:p%40ss@")) as archive:
            assert [list(archive.search("studies", [])) for _ in range(2)] == [[], []]
        first, second = (request.headers for request in server.requests)
    assert (first.get("cookie"), second["cookie"]) == (None, "server=2")
    assert first["authorization"] == Basic("user", "p@ss").header()
    assert "@" not in first["host"]


@pytest.mark.parametrize(("kept", "succeeds"), [(True, True), (False, False)])
def test_a_get_is_sent_again_only_when_a_kept_connection_was_closed_meanwhile(kept: bool, succeeds: bool) -> None:
    first = [Answer(200, JSON, STUDIES)] * kept
    with (
        scripted(*first, Answer(drop=True), Answer(200, JSON, STUDIES)) as server,
        httpx.Client(transport=carrier(server.url, verify=False, connections=1, proxy=None)) as http,
    ):
        for _ in first:
            assert http.get(server.url).status_code == 200
        with nullcontext() if succeeds else pytest.raises(httpx.RemoteProtocolError):
            assert http.get(server.url).content == STUDIES
        assert http.get(server.url).content == STUDIES  # its place was given back


def test_headers_that_cannot_be_read_are_no_answer() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\n[]")

    with (
        serving(serve) as url,
        httpx.Client(transport=carrier(url, verify=False, connections=1, proxy=None)) as http,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        http.get(url)


def test_to_close_ends_an_answer_that_another_thread_reads() -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[")
        over.wait(60)

    with serving(serve) as url, ThreadPoolExecutor(1) as pool:
        http = httpx.Client(transport=carrier(url, verify=False, connections=1, proxy=None), timeout=50)
        with http.stream("GET", url) as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == b"["
            rest = pool.submit(next, pieces)
            http.close()
            with pytest.raises(httpx.TransportError):
                rest.result(40)
        over.set()


def test_an_instance_is_asked_for_uncompressed_and_read_compressed_all_the_same() -> None:
    body = gzip.compress(PART + b"--a b--")
    with scripted(Answer(200, RELATED | {"Content-Encoding": "gzip"}, body)) as server, client(server.url) as archive:
        assert read(archive) == [b"DATA"]
        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_json_may_come_compressed() -> None:
    body = gzip.compress(METADATA.body)
    with scripted(Answer(200, JSON | {"Content-Encoding": "gzip"}, body)) as server, client(server.url) as archive:
        assert len(archive.metadata("1.2")) == 1
        assert "gzip" in server.requests[0].headers["accept-encoding"]


def test_a_broken_content_encoding_is_an_unreadable_answer() -> None:
    answer = Answer(200, RELATED | {"Content-Encoding": "gzip"}, b"not gzip")
    with scripted(answer) as server, client(server.url) as archive, pytest.raises(errors.AnswerUnreadable):
        read(archive)


def test_each_request_but_delete_says_what_it_accepts() -> None:
    frame = Answer(200, {"Content-Type": "application/octet-stream"}, b"FRAME")
    with scripted(METADATA, frame, Answer(204)) as server, client(server.url) as archive:
        archive.metadata("1.2")
        assert archive.frames("1.2", "1.3", "1.4", [2]) == [b"FRAME"]
        assert list(archive.search("studies/1.2/series", [])) == []
        accepted = [(request.path, request.headers["accept"]) for request in server.requests]
    assert accepted == [
        ("/v2/studies/1.2/metadata", "application/dicom+json"),
        (
            "/v2/studies/1.2/series/1.3/instances/1.4/frames/2",
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        ),
        ("/v2/studies/1.2/series?limit=100&offset=0", "application/dicom+json"),
    ]


def test_a_correlated_client_names_the_operation_on_its_requests_only() -> None:
    with scripted(METADATA) as server, client(server.url) as archive:
        archive.correlated("a1/7\r\nX: y").metadata("1.2")
        archive.metadata("1.2")
        assert [request.headers.get("x-request-id") for request in server.requests] == ["a1/7__X:_y", None]
        assert server.requests[0].connection == server.requests[1].connection


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with scripted(METADATA) as server, client(server.url) as archive:
        assert len(archive.metadata("1.2")) == 1


def test_a_configured_proxy_is_used() -> None:
    with scripted(METADATA) as server, client("http://archive.invalid/v2", proxy=server.url[:-3]) as archive:
        assert len(archive.metadata("1.2")) == 1
        assert server.requests[0].path == "http://archive.invalid/v2/studies/1.2/metadata"


# what is repeated, and what is not


def test_a_query_outlasts_a_short_trouble() -> None:
    trouble = (Answer(503), Answer(drop=True))
    with scripted(*trouble, METADATA) as server, client(server.url) as archive:
        assert len(archive.metadata("1.2")) == 1
        assert len(server.requests) == 3


def test_a_trouble_that_lasts_is_told_after_three_attempts() -> None:
    with scripted(Answer(429, {"Retry-After": "0"})) as server, client(server.url) as archive:
        with pytest.raises(errors.ArchiveBusy) as caught:
            archive.metadata("1.2")
        assert (len(server.requests), caught.value.retry_after) == (3, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 413, 500])
def test_what_asking_again_cannot_mend_is_asked_once(status: int) -> None:
    with scripted(Answer(status)) as server, client(server.url) as archive:
        with pytest.raises(errors.ArchiveError):
            archive.metadata("1.2")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "low", "high"), [("120", 120, 120), ("a date in 90 s", 60, 90), ("9" * 400, 3600, 3600)]
)
def test_a_long_retry_after_is_handed_on_instead_of_waited_for(header: str, low: float, high: float) -> None:
    if header == "a date in 90 s":  # counted from now, not from when the tests were collected
        header = formatdate(time.time() + 90, usegmt=True)
    with scripted(Answer(503, {"Retry-After": header})) as server, client(server.url) as archive:
        with pytest.raises(errors.ArchiveBusy) as caught:
            archive.metadata("1.2")
        assert caught.value.retry_after is not None
        assert low <= caught.value.retry_after <= high
        assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["", "soon", "\u00b2", "-1", "Mon, 99 Foo"])
def test_a_retry_after_that_says_nothing_is_none(header: str, tmp_path: Path) -> None:
    with scripted(Answer(503, {"Retry-After": header})) as server, client(server.url) as archive:
        with pytest.raises(errors.ArchiveBusy) as caught:
            archive.store([upload(tmp_path, "1.4")])
        assert caught.value.retry_after is None


@pytest.mark.parametrize("answer", [Answer(503), Answer(429), Answer(drop=True)], ids=["503", "429", "dropped"])
def test_a_store_is_never_repeated_behind_the_callers_back(answer: Answer, tmp_path: Path) -> None:
    with scripted(answer) as server, client(server.url) as archive:
        with pytest.raises(errors.ArchiveError):
            archive.store([upload(tmp_path, "1.4")])
        assert len(server.requests) == 1


def test_a_store_is_not_repeated_when_a_kept_connection_was_closed_meanwhile(tmp_path: Path) -> None:
    stored = Answer(200, JSON, stow(_00081199=[item("1.4")]))
    with scripted(stored, Answer(drop=True), stored) as server, client(server.url) as archive:
        assert archive.store([upload(tmp_path, "1.4")])[0].stored
        with pytest.raises(errors.ArchiveUnreachable):
            archive.store([upload(tmp_path, "1.4")])
        assert len(server.requests) == 2
        assert archive.store([upload(tmp_path, "1.4")])[0].stored  # its place was given back


def test_redirects_in_a_circle_end() -> None:
    with scripted(Answer(307, {"Location": "/v2/studies/1.2/metadata"})) as server, client(server.url) as archive:
        with pytest.raises(errors.AnswerUnreadable):
            archive.metadata("1.2")
        assert len(server.requests) == 5


def test_a_hang_in_the_middle_of_an_answer_ends_in_time() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary=b\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\n--b\r\n\r\nDATA")
        connection.recv(1)  # until the client has gone

    begun = time.monotonic()
    with serving(serve) as url, client(url, read_timeout=0.5) as archive:
        with pytest.raises(errors.ArchiveUnreachable):
            read(archive)
    assert time.monotonic() - begun < 5


# STOW-RS


def test_a_refusal_before_the_body_was_read_is_understood(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with serving(serve) as url, client(url) as archive, pytest.raises(errors.TooLarge):
        archive.store([upload(tmp_path, "1.4", 20_000_000)])


def test_what_a_400_names_as_stored_is_stored_and_the_rest_is_not_known(tmp_path: Path) -> None:
    # Orthanc 1.10: a part that it cannot parse ends the request, what came before stays stored
    uploads = [upload(tmp_path, "1.5"), upload(tmp_path, "1.4")]
    answer = Answer(400, {}, stow(_00081199=[item("1.4")], _00081198=[]))
    with scripted(answer) as server, client(server.url) as archive:
        unknown, known = archive.store(uploads)
    assert known == Outcome(stored=True)
    assert (unknown.stored, unknown.reason, unknown.named) == (False, None, False)


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("body", [b"", b"no", stow(_00081199=[], _00081198=[]), b"[" * 100_000])
def test_a_refusal_that_names_nothing_is_one_of_the_whole_request(status: int, body: bytes, tmp_path: Path) -> None:
    with scripted(Answer(status, {}, body)) as server, client(server.url) as archive:
        with pytest.raises(errors.RequestRefused) as caught:
            archive.store([upload(tmp_path, "1.4")])
        assert caught.value.http_status == status


def test_an_instance_that_is_sent_twice_has_two_outcomes(tmp_path: Path) -> None:
    twice = [upload(tmp_path, "1.4")] * 2
    with scripted(Answer(200, JSON, stow(_00081199=[item("1.4")] * 2))) as server, client(server.url) as archive:
        assert archive.store(twice) == [Outcome(stored=True)] * 2
    body = stow(_00081199=[item("1.4")], _00081198=[item("1.4", _00081197=45070)])
    with scripted(Answer(202, JSON, body)) as server, client(server.url) as archive:
        assert archive.store(twice) == [Outcome(stored=True), Outcome(stored=False, reason=45070)]


def test_failures_without_uids_go_to_the_instances_named_nowhere_in_order(tmp_path: Path) -> None:
    uploads = [upload(tmp_path, f"1.{number}") for number in (4, 5, 6)]
    body = stow(
        _00081199=[item("1.5"), item()],
        _00081198=[item(_00081197=43264)],
        _0008119A=[item(_00081197=272)],
    )
    with scripted(Answer(202, JSON, body)) as server, client(server.url) as archive:
        assert archive.store(uploads) == [
            Outcome(stored=False, reason=43264, named=False),
            Outcome(stored=True),
            Outcome(stored=False, reason=272, named=False),
        ]


def test_an_item_without_uid_stores_nothing(tmp_path: Path) -> None:
    nameless = replace(upload(tmp_path, "1.4"), sop_instance="")
    with scripted(Answer(200, JSON, stow(_00081199=[item()]))) as server, client(server.url) as archive:
        with pytest.raises(errors.AnswerUnreadable):
            archive.store([nameless])


@pytest.mark.parametrize("reason", ["Infinity", "[]", '"A900"', "null", "{}"])
def test_a_failure_reason_that_is_no_number_is_a_failure_without_reason(reason: str, tmp_path: Path) -> None:
    body = stow(_00081198=[item("1.4", _00081197=1)]).replace(b"[1]", f"[{reason}]".encode())
    with scripted(Answer(409, JSON, body)) as server, client(server.url) as archive:
        assert archive.store([upload(tmp_path, "1.4")]) == [Outcome(stored=False, reason=None)]


@pytest.mark.parametrize("how", ["plain", "TLS", "proxy"])
def test_files_of_every_size_arrive_as_they_are_and_are_counted(how: str, tmp_path: Path) -> None:
    sizes = [1, 65_536, 65_537, 10, 20, 700_001, 262_144]
    uploads = [upload(tmp_path, f"1.{number}", size) for number, size in enumerate(sizes)]
    for number, one in enumerate(uploads):
        one.extent.path.write_bytes(random.Random(number).randbytes(one.size))
    uploads.append(Held(b"h" * 300_000, "1.2.840.10008.5.1.4.1.1.2", "1.9", "1.2", "1.3"))  # type: ignore[arg-type]
    answer = Answer(200, JSON, stow(_00081199=[item(one.sop_instance) for one in uploads]))
    passed: list[int] = []
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with scripted(answer, tls=tls if how == "TLS" else None) as server:
        url = "http://archive.invalid/v2" if how == "proxy" else server.url
        proxy, ca = (server.url[:-3] if how == "proxy" else None), (tmp_path / "ca.pem" if how == "TLS" else None)
        with client(url, proxy=proxy, ca=ca) as archive:
            assert all(outcome.stored for outcome in archive.store(uploads, progress=passed.append))
        (request,) = server.requests
    boundary = request.headers["content-type"].rpartition("boundary=")[2].encode()
    head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
    whole = b"".join(head + b"".join(one.chunks()) + b"\r\n" for one in uploads) + b"--" + boundary + b"--\r\n"
    assert request.body == whole
    assert sum(passed) == sum(sizes) + 300_000


def test_interim_answers_are_passed_over(tmp_path: Path) -> None:
    body = stow(_00081199=[item("1.4")])

    def serve(connection: socket.socket) -> None:
        received = b""
        while not received.endswith(b"--\r\n"):
            received += connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with serving(serve) as url, client(url) as archive:
        assert archive.store([upload(tmp_path, "1.4")])[0].stored


def test_an_archive_that_stops_taking_a_file_is_unreachable_in_time(tmp_path: Path) -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        over.wait(60)

    with serving(serve) as url:
        with client(url, read_timeout=0.5) as archive, pytest.raises(errors.ArchiveUnreachable, match="WriteTimeout"):
            archive.store([upload(tmp_path, "1.4", 50_000_000)])
        over.set()


def test_to_close_ends_a_file_that_another_thread_sends(tmp_path: Path) -> None:
    over, begun = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        begun.set()
        over.wait(60)

    with serving(serve) as url, ThreadPoolExecutor(1) as pool:
        archive = client(url, read_timeout=50)
        sent = pool.submit(archive.store, [upload(tmp_path, "1.4", 50_000_000)])
        assert begun.wait(20)
        archive.close()
        with pytest.raises(errors.ArchiveError):
            sent.result(40)
        over.set()


@pytest.mark.parametrize("size", [None, 10, 70_000])
def test_a_file_that_is_gone_or_not_as_long_as_it_was_is_never_sent_whole(size: int | None, tmp_path: Path) -> None:
    broken = upload(tmp_path, "1.4", 1000)
    if size is None:
        broken.extent.path.unlink()
    else:
        broken.extent.path.write_bytes(b"y" * size)
    with scripted(Answer(200, JSON, stow(_00081199=[item("1.4")]))) as server, client(server.url) as archive:
        with pytest.raises(errors.SpoolBroken):
            archive.store([broken])
        assert archive.store([upload(tmp_path, "1.4")])[0].stored


# QIDO-RS


def test_an_archive_that_caps_its_pages_silently_loses_nothing() -> None:
    def page(first: int) -> Answer:
        entries = [{"0020000D": {"vr": "UI", "Value": [f"1.{number}"]}} for number in range(first, min(first + 3, 8))]
        return Answer(200, JSON, json.dumps(entries).encode())

    with scripted(page(0), page(3), page(6), Answer(200, JSON, b"[]")) as server, client(server.url) as archive:
        assert sum(len(found) for found in archive.search("studies", [])) == 8
        assert [request.path[-8:] for request in server.requests] == ["offset=0", "offset=3", "offset=6", "offset=8"]


def test_one_page_of_repeats_does_not_end_a_search() -> None:
    more = Answer(200, JSON, STUDIES.replace(b"1.1", b"1.2"))
    page = Answer(200, JSON, STUDIES)
    with scripted(page, page, more, Answer(204)) as server, client(server.url) as archive:
        assert len(list(archive.search("studies", []))) == 2


def studies(*numbers: int) -> Answer:
    entries = [{"0020000D": {"vr": "UI", "Value": [f"1.{number}"]}} for number in numbers]
    return Answer(200, JSON, json.dumps(entries).encode())


def test_pages_of_repeats_that_new_entries_pushed_back_do_not_end_a_search() -> None:
    pages = [studies(5, 4), studies(3, 2), studies(3, 2), studies(5, 4), studies(3), studies(1), Answer(204)]
    with scripted(*pages) as server, client(server.url) as archive:
        assert [len(page) for page in archive.search("studies", [])] == [2, 2, 1]


def test_an_archive_that_does_not_page_is_read_once() -> None:
    with scripted(studies(1, 2, 3)) as server, client(server.url) as archive:
        assert [len(page) for page in archive.search("studies", [])] == [3]
        assert len(server.requests) == 3


def test_a_search_ends_behind_the_last_entry_of_an_archive_that_goes_on_growing() -> None:
    with scripted(studies(3, 2), studies(2, 1), studies(1)) as server, client(server.url) as archive:
        assert [len(page) for page in archive.search("studies", [])] == [2, 2]
        assert len(server.requests) == 4


def test_pages_that_repeat_without_end_are_a_failure() -> None:
    with scripted(studies(1, 2), studies(3, 4), studies(3, 4)) as server, client(server.url) as archive:
        with pytest.raises(errors.AnswerUnreadable):
            list(archive.search("studies", []))
        assert len(server.requests) < 100


def test_without_a_limit_there_is_one_page() -> None:
    profile = replace(PROFILES["standard"], max_limit=0)
    with scripted(Answer(200, JSON, STUDIES)) as server, client(server.url, profile=profile) as archive:
        assert len(list(archive.search("studies", [("PatientID", "a/b*;c&d=e%\u00e9")]))) == 1
        assert [request.path for request in server.requests] == ["/v2/studies?PatientID=a/b*%3Bc%26d%3De%25%C3%A9"]


# what never leaves or enters


@pytest.mark.parametrize("uid", ["", ".", "..", ".1", "1/..", "\u0661.2"])
def test_nothing_but_a_uid_names_what_is_deleted_or_retrieved(uid: str) -> None:
    with scripted(Answer(204)) as server, client(server.url) as archive:
        for action in (
            lambda: archive.delete(uid),
            lambda: archive.delete("1.2", uid, "1.4"),
            lambda: archive.metadata(uid),
            lambda: archive.frames("1.2", "1.3", uid, [1]),
            lambda: list(archive.search(f"studies/{uid}/series", [])),
        ):
            with pytest.raises(errors.RequestRefused):
                action()
        assert server.requests == []


@pytest.mark.parametrize("token", ["s3cret\r\nX-Other: 1", "s3cret s3cret", "s3cr\u00e9t", ""])
def test_a_token_that_cannot_be_sent_is_a_refused_sign_in_and_never_told(token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    for auth in (Bearer(token), TokenFile(file)):
        with scripted(METADATA) as server, client(server.url, auth=auth) as archive:
            with pytest.raises(errors.SignInRefused) as caught:
                archive.metadata("1.2")
            assert "s3c" not in str(caught.value) + repr(auth) + repr(archive)
            assert server.requests == []


def test_a_header_that_cannot_be_sent_is_refused_without_its_value() -> None:
    headers = {"X-Key": "s3cret\nX-Other: 1"}
    with scripted(METADATA) as server, client(server.url, headers=headers) as archive:
        with pytest.raises(errors.RequestRefused) as caught:
            archive.metadata("1.2")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_user_name_and_password_are_sent_as_basic_credentials() -> None:
    with scripted(METADATA) as server, client(server.url, auth=Basic("Aladdin", "open sesame")) as archive:
        archive.metadata("1.2")
        assert server.requests[0].headers["authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_a_token_that_another_thread_has_renewed_is_not_given_up(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    auth = TokenFile(file)
    refused = auth.header()
    file.write_text("new")
    assert auth.renew(refused)
    assert auth.renew(refused)
    assert not auth.renew("Bearer new")


def test_a_token_file_that_is_away_is_a_refused_sign_in(tmp_path: Path) -> None:
    with scripted(METADATA) as server, client(server.url, auth=TokenFile(tmp_path / "none")) as archive:
        with pytest.raises(errors.SignInRefused):
            archive.metadata("1.2")


def test_neither_sign_in_nor_body_follows_a_redirect_to_another_server(tmp_path: Path) -> None:
    with scripted(METADATA) as other, scripted(Answer(308, {"Location": f"{other.url}/x"})) as server:
        with client(server.url, auth=Bearer("t0ken")) as archive:
            with pytest.raises(errors.AnswerUnreadable):
                archive.metadata("1.2")
            with pytest.raises(errors.AnswerUnreadable):
                archive.store([upload(tmp_path, "1.4")])
        assert other.requests == []
