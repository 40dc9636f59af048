import json
import time
from pathlib import Path

import pytest
from scripted_server import Answer, scripted

from gateway import errors
from gateway.dicomweb.auth import Bearer, TokenFile
from gateway.dicomweb.client import Client, Outcome, Upload
from gateway.extent import Extent

JSON = {"Content-Type": "application/dicom+json"}
UID = "1.2.3.4"


def client(url: str, **options: object) -> Client:
    return Client(url, name="main", read_timeout=1, connect_timeout=1, **options)  # type: ignore[arg-type]


def upload(folder: Path, uid: str = UID) -> Upload:
    path = folder / f"{uid}.dcm"
    path.write_bytes(b"x" * 200_001)
    return Upload(Extent.of(path), "1.2.840.10008.5.1.4.1.1.2", uid, "1.2", "1.3")


def stow(stored: tuple[str, ...] = (), failed: tuple[tuple[str, int], ...] = (), warning: int | None = None) -> bytes:
    def item(uid: str, **more: object) -> dict[str, object]:
        return ({"00081155": {"vr": "UI", "Value": [uid]}} if uid else {}) | more

    warned = {"00081196": {"vr": "US", "Value": [warning]}} if warning is not None else {}
    return json.dumps(
        {
            "00081199": {"vr": "SQ", "Value": [item(uid, **warned) for uid in stored]},
            "00081198": {
                "vr": "SQ",
                "Value": [item(uid, **{"00081197": {"vr": "US", "Value": [code]}}) for uid, code in failed],
            },
        }
    ).encode()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.RequestRefused),
        (401, errors.SignInRefused),
        (403, errors.SignInRefused),
        (404, errors.NotFound),
        (406, errors.RequestRefused),
        (413, errors.TooLarge),
        (415, errors.RequestRefused),
        (429, errors.ArchiveBusy),
        (500, errors.ArchiveBroken),
        (503, errors.ArchiveBusy),
        (302, errors.AnswerUnreadable),
    ],
)
def test_each_http_failure_is_one_error_for_each_operation(
    status: int, error: type[errors.ArchiveError], tmp_path: Path
) -> None:
    answer = Answer(status, {"Retry-After": "7"}, b"<html>")
    with scripted(*[answer] * 4) as server, client(server.url) as archive:
        for action in (
            lambda: archive.store([upload(tmp_path)]),
            lambda: list(archive.search("studies", [])),
            lambda: archive.metadata(UID),
            lambda: archive.delete(UID),
        ):
            with pytest.raises(error) as caught:
                action()
            assert caught.value.http_status == status
            assert getattr(caught.value, "retry_after", 7) == 7


def test_a_store_request_has_what_azure_insists_on(tmp_path: Path) -> None:
    with scripted(Answer(200, JSON, stow((UID,)))) as server, client(server.url) as archive:
        assert archive.store([upload(tmp_path)]) == [Outcome(stored=True)]
        (request,) = server.requests
    assert request.headers["accept"] == "application/dicom+json"
    assert request.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert int(request.headers["content-length"]) == len(request.body)
    assert b"\r\nContent-Type: application/dicom\r\n\r\nxxx" in request.body
    assert request.body.count(b"x") == 200_001


@pytest.mark.parametrize("status", [200, 202, 409])
def test_the_outcome_is_read_per_instance_whatever_the_status(status: int, tmp_path: Path) -> None:
    body = stow(("1.1",), (("1.2", 45070), ("", 43264)))
    uploads = [upload(tmp_path, uid) for uid in ("1.3", "1.2", "1.1")]
    with scripted(Answer(status, JSON, body)) as server, client(server.url) as archive:
        assert archive.store(uploads) == [
            Outcome(stored=False, reason=43264, named=False),
            Outcome(stored=False, reason=45070),
            Outcome(stored=True),
        ]


def test_a_warning_reason_is_told(tmp_path: Path) -> None:
    with scripted(Answer(202, JSON, stow((UID,), warning=45063))) as server, client(server.url) as archive:
        assert archive.store([upload(tmp_path)]) == [Outcome(stored=True, warning=45063)]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", stow(("9.9",))])
def test_a_success_that_does_not_name_the_instance_is_not_one(body: bytes, tmp_path: Path) -> None:
    with scripted(Answer(200, JSON, body)) as server, client(server.url) as archive:
        with pytest.raises(errors.AnswerUnreadable):
            archive.store([upload(tmp_path)])


def test_a_204_to_a_store_is_not_a_success(tmp_path: Path) -> None:
    with scripted(Answer(204)) as server, client(server.url) as archive, pytest.raises(errors.ArchiveError):
        archive.store([upload(tmp_path)])


def test_a_repeated_request_has_its_whole_body_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    class Renewing(TokenFile):
        def renew(self, refused: str) -> bool:
            token.write_text("new")
            return super().renew(refused)

    with (
        scripted(Answer(401), Answer(200, JSON, stow((UID,)))) as server,
        client(server.url, auth=Renewing(token)) as archive,
    ):
        assert archive.store([upload(tmp_path)])[0].stored
        first, second = server.requests
    assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer old", "Bearer new")
    assert first.body == second.body


def test_a_401_with_nothing_to_renew_is_told_at_once() -> None:
    with scripted(Answer(401)) as server, client(server.url, auth=Bearer("t0ken")) as archive:
        with pytest.raises(errors.SignInRefused) as caught:
            archive.metadata(UID)
        assert "t0ken" not in str(caught.value) + repr(archive)


def test_a_search_pages_until_nothing_comes_and_a_short_page_is_not_the_last() -> None:
    def page(*numbers: int) -> Answer:
        entries = [{"0020000D": {"vr": "UI", "Value": [f"1.{number}"]}} for number in numbers]
        return Answer(200, JSON, json.dumps(entries).encode())

    with scripted(page(1, 2), page(3), page(4, 5), Answer(204)) as server, client(server.url) as archive:
        pages = list(archive.search("studies", [("PatientID", "a b"), ("includefield", "00100010,00100020")]))
        paths = [request.path for request in server.requests]
    assert [len(found) for found in pages] == [2, 1, 2]
    assert paths[0] == "/v2/studies?PatientID=a%20b&includefield=00100010,00100020&limit=100&offset=0"
    assert [path.rpartition("offset=")[2] for path in paths] == ["0", "2", "3", "5"]


def test_an_archive_that_repeats_its_only_page_is_not_asked_for_ever() -> None:
    answer = Answer(200, JSON, b'[{"0020000D": {"vr": "UI", "Value": ["1.1"]}}]')
    with scripted(answer) as server, client(server.url) as archive:
        assert len(list(archive.search("studies", []))) == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize("body", [b"<html>", b'{"a": 1}', b"[1]", b""])
def test_a_search_answer_that_is_not_a_list_of_objects_is_an_error(body: bytes) -> None:
    with scripted(Answer(200, JSON, body)) as server, client(server.url) as archive:
        with pytest.raises(errors.AnswerUnreadable):
            list(archive.search("studies", []))


def read(archive: Client) -> list[bytes]:
    with archive.retrieve("1.2", "1.3", UID) as instances:
        return [b"".join(instance.chunks) for instance in instances]


RELATED = {"Content-Type": "multipart/related; boundary=abc"}
PART = b"--abc\r\nContent-Type: application/dicom; transfer-syntax=*\r\n\r\nDATA\r\n"


def test_multipart_and_single_part_answers_are_read() -> None:
    with (
        scripted(
            Answer(200, RELATED, PART + PART + b"--abc--"),
            Answer(200, RELATED, b"--abc\r\n\r\nDATA\r\n--abc--"),
            Answer(200, {"Content-Type": "application/dicom"}, b"DATA"),
        ) as server,
        client(server.url) as archive,
    ):
        assert [read(archive), read(archive), read(archive)] == [[b"DATA", b"DATA"], [b"DATA"], [b"DATA"]]
        accept = server.requests[0].headers["accept"]
    assert accept == 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, RELATED, PART),
        Answer(200, RELATED, PART[:-10]),
        Answer(200, {"Content-Type": "multipart/related; boundary=other"}, PART + b"--abc--"),
        Answer(200, {"Content-Type": "text/html"}, b"<html>"),
        Answer(200, {"Content-Type": "application/dicom"}, b"DATA", cut=True),
        Answer(200, {}, b"DATA"),
    ],
    ids=["no closing boundary", "cut part", "wrong boundary", "HTML", "cut file", "no type"],
)
def test_a_damaged_retrieval_is_never_taken_for_an_instance(answer: Answer) -> None:
    with scripted(answer) as server, client(server.url) as archive, pytest.raises(errors.AnswerUnreadable):
        read(archive)


def test_an_archive_that_hangs_or_is_away_is_unreachable_in_time() -> None:
    begun = time.monotonic()
    with scripted(Answer(wait=20)) as server:
        with client(server.url) as archive, pytest.raises(errors.ArchiveUnreachable):
            archive.metadata(UID)
    with client(server.url) as archive, pytest.raises(errors.ArchiveUnreachable):
        archive.metadata(UID)
    assert time.monotonic() - begun < 15


def test_redirects_are_followed_on_the_same_server_only(tmp_path: Path) -> None:
    with (
        scripted(
            Answer(307, {"Location": "/v3/studies"}),
            Answer(200, JSON, stow((UID,))),
            Answer(308, {"Location": "http://127.0.0.2:9/steal"}),
            Answer(308, {"Location": "http://[2/"}),
        ) as server,
        client(server.url) as archive,
    ):
        assert archive.store([upload(tmp_path)])[0].stored
        assert server.requests[1].path == "/v3/studies"
        assert server.requests[0].body == server.requests[1].body
        for _ in range(2):
            with pytest.raises(errors.AnswerUnreadable):
                archive.metadata(UID)
        assert len(server.requests) == 4


@pytest.mark.parametrize("uid", ["1/../2", "1.2?x=1", "1.2\r\nX: 1", "1" * 65, "1%2e"])
def test_what_is_not_a_uid_never_enters_a_url(uid: str) -> None:
    with client("http://127.0.0.1:9") as archive, pytest.raises(errors.RequestRefused):
        archive.metadata(uid)
