"""Every way in which a query can fail has its status, and none of them is an empty result."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from find_client import Query, Response
from queries import identifier_of
from scripted_server import Answer, scripted

from gateway.app import running
from gateway.config import parse
from gateway.translate.identifier import encode_identifier

EXPLICIT = "1.2.840.10008.1.2.1"
JSON = {"Content-Type": "application/dicom+json"}
FOUND = Answer(200, JSON, json.dumps([{"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}]).encode())
FAILURE = range(0xA700, 0xD000)


@contextmanager
def gateway(folder: Path, url: str, **archive: object) -> Iterator[int]:
    config = parse(
        {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "peers": {"PEER": {}, "OLD": {"default_level": "STUDY"}, "LENIENT": {"lenient": True}},
            "archives": {"main": {"url": url, "profile": "azure", "read_timeout": 0.5, **archive}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "spool": {"folder": str(folder), "high_water": 1.0},
        },
        "test",
    )
    with running(config) as started:
        yield started.port


def ask(port: int, level: str = "STUDY", calling: str = "PEER", **keys: str) -> list[Response]:
    identifier = identifier_of(level, **(keys or {"StudyInstanceUID": ""}))
    if not level:
        del identifier.QueryRetrieveLevel
    with Query(port, encode_identifier(identifier, EXPLICIT), calling=calling) as query:
        return list(query.responses())


# status of HTTP -> status of C-FIND; what is busy is asked again for a while
HTTP = {
    400: 0xC001,
    401: 0xC002,
    403: 0xC002,
    404: 0xC003,
    406: 0xC001,
    408: 0xA700,
    409: 0xC001,
    410: 0xC003,
    413: 0xA700,
    415: 0xC001,
    424: 0xA700,
    429: 0xA700,
    500: 0xA700,
    502: 0xA700,
    503: 0xA700,
    504: 0xA700,
    507: 0xA700,
}


@pytest.mark.parametrize(("http", "status"), HTTP.items())
def test_an_http_failure_is_a_failure(http: int, status: int, tmp_path: Path) -> None:
    with scripted(Answer(http, {"Retry-After": "0"}, b"no")) as server, gateway(tmp_path, server.url) as port:
        (response,) = ask(port)
    assert response.status == status
    assert response.comment


@pytest.mark.parametrize(("http", "status"), [(400, 0xC001), (401, 0xC002), (413, 0xA700), (500, 0xA700)])
def test_a_failure_of_a_later_page_follows_what_was_found(http: int, status: int, tmp_path: Path) -> None:
    with scripted(FOUND, Answer(http)) as server, gateway(tmp_path, server.url) as port:
        assert [response.status for response in ask(port)] == [0xFF00, status]


@pytest.mark.parametrize(("http", "status"), [(404, 0xC003), (503, 0xA700)])
def test_a_failure_to_compute_an_attribute_is_a_failure(http: int, status: int, tmp_path: Path) -> None:
    trouble = Answer(http, {"Retry-After": "0"})
    with scripted(FOUND, trouble) as server, gateway(tmp_path, server.url) as port:
        responses = ask(port, StudyInstanceUID="", NumberOfStudyRelatedSeries="")
    assert [response.status for response in responses] == [status]


UNREADABLE = {
    "not JSON": Answer(200, JSON, b"<html>"),
    "cut": Answer(200, JSON, FOUND.body[:-2]),
    "an object": Answer(200, JSON, b"{}"),
    "a list of other things": Answer(200, JSON, b"[1]"),
    "deep": Answer(200, JSON, b"[" * 100_000),
    "not UTF-8": Answer(200, JSON, b'[{"0020000D":{"vr":"UI","Value":["\xff"]}}]'),
    "a broken encoding": Answer(200, {**JSON, "Content-Encoding": "gzip"}, b"nothing of the kind"),
    "empty": Answer(200, JSON, b""),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_answer_is_c004(name: str, tmp_path: Path) -> None:
    with scripted(UNREADABLE[name]) as server, gateway(tmp_path, server.url) as port:
        assert [response.status for response in ask(port)] == [0xC004]


def test_an_answer_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    with scripted(Answer(200, JSON, FOUND.body, cut=True)) as server, gateway(tmp_path, server.url) as port:
        (response,) = ask(port)
    assert response.status in FAILURE


def test_no_answer_in_time_is_a700(tmp_path: Path) -> None:
    with scripted(Answer(wait=20)) as server, gateway(tmp_path, server.url) as port:
        assert [response.status for response in ask(port)] == [0xA700]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v2", "http://nowhere.invalid/v2"], ids=["refused", "no name"])
def test_an_archive_that_cannot_be_reached_is_a700(url: str, tmp_path: Path) -> None:
    with gateway(tmp_path, url) as port:
        (response,) = ask(port)
    assert response.status == 0xA700
    assert response.comment == "archive main cannot be reached; send again later"


def test_a_connection_that_is_dropped_is_a_failure(tmp_path: Path) -> None:
    with scripted(Answer(drop=True)) as server, gateway(tmp_path, server.url) as port:
        (response,) = ask(port)
    assert response.status in FAILURE


def test_an_archive_that_does_not_speak_tls_is_a700(tmp_path: Path) -> None:
    with scripted(FOUND) as server, gateway(tmp_path, server.url.replace("http:", "https:")) as port:
        assert [response.status for response in ask(port)] == [0xA700]


@pytest.mark.parametrize("empty", [Answer(204), Answer(200, JSON, b"[]")], ids=["204", "an empty list"])
def test_only_an_empty_answer_is_an_empty_result(empty: Answer, tmp_path: Path) -> None:
    with scripted(empty) as server, gateway(tmp_path, server.url) as port:
        assert [response.status for response in ask(port)] == [0x0000]


MALFORMED: dict[str, dict[str, str]] = {
    "no level": {"level": "", "PatientID": "1"},
    "a level there is not": {"level": "FRAME", "PatientID": "1"},
    "a level that the model lacks": {"level": "PATIENT", "PatientID": "1"},
    "two levels": {"level": "STUDY\\SERIES", "PatientID": "1"},
    "no unique key above": {"level": "SERIES", "SeriesInstanceUID": ""},
    "a wildcard in the unique key above": {"level": "SERIES", "StudyInstanceUID": "1.2*"},
    "a date that is none": {"StudyDate": "2020-13-01x"},
    "a range that runs backwards": {"StudyDate": "20210101-20200101"},
    "a UID with a wildcard": {"StudyInstanceUID": "1.2.*"},
    "a number that is none": {"level": "SERIES", "StudyInstanceUID": "1.2", "SeriesNumber": "one"},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_identifier_is_a900_and_asks_the_archive_nothing(name: str, tmp_path: Path) -> None:
    with scripted(FOUND) as server, gateway(tmp_path, server.url) as port:
        (response,) = ask(port, **MALFORMED[name])
        assert not server.requests
    assert response.status == 0xA900
    assert response.comment


@pytest.mark.parametrize(
    ("calling", "name"), [("OLD", "no level"), ("LENIENT", "no unique key above")], ids=["level", "unique key"]
)
def test_a_peer_that_is_configured_for_it_may_leave_out(calling: str, name: str, tmp_path: Path) -> None:
    with scripted(Answer(204)) as server, gateway(tmp_path, server.url) as port:
        assert [response.status for response in ask(port, calling=calling, **MALFORMED[name])] == [0x0000]
        (request,) = server.requests
        assert request.path.startswith("/v2/studies?" if calling == "OLD" else "/v2/series?")


@pytest.mark.parametrize("data", [b"\x08\x00\x52\x00CS\xff\xff cut", b"\xff" * 40])
def test_bytes_that_are_no_identifier_cannot_be_processed(data: bytes, tmp_path: Path) -> None:
    with scripted(FOUND) as server, gateway(tmp_path, server.url) as port:
        with Query(port, data) as query:
            assert [response.status for response in query.responses()] == [0xC005]
        assert not server.requests


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_a_text_in_an_unknown_character_set_is_a900(tmp_path: Path) -> None:
    data = b"\x08\x00\x05\x00CS\x08\x00ISO_IR 7\x08\x00\x52\x00CS\x06\x00STUDY \x10\x00\x10\x00PN\x02\x00\xc4\xc4"
    with scripted(FOUND) as server, gateway(tmp_path, server.url) as port:
        with Query(port, data) as query:
            (response,) = query.responses()
    assert response.status == 0xA900
    assert "SpecificCharacterSet" in response.comment


def test_the_gateway_works_on_after_each_failure(tmp_path: Path) -> None:
    answers = [Answer(500), Answer(500), Answer(500), UNREADABLE["not JSON"], FOUND, Answer(204)]
    with scripted(*answers) as server, gateway(tmp_path, server.url) as port:
        statuses = [[response.status for response in ask(port)] for _ in range(5)]
    assert statuses[-1] == [0xFF00, 0x0000]
