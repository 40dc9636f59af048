"""How a query flows: pages ahead, cancel, limit, and what is held in memory (PS3.4 C.4.1, PS3.7 9.3.2.3)."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from find_client import Query
from processes import await_true
from queries import identifier_of
from scripted_server import Answer, Script, scripted
from structlog.testing import capture_logs

from gateway.app import running
from gateway.config import parse
from gateway.translate.identifier import encode_identifier

PAGE, PAGES = 200, 6
EXPLICIT = "1.2.840.10008.1.2.1"
JSON = {"Content-Type": "application/dicom+json"}
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"


def page(number: int, comments: str = "", malformed: bool = False) -> Answer:
    """Give a page of studies of their own, each with a text as long as one wants."""
    rows = [
        {
            "00080020": {"vr": "DA", "Value": [20200101] if malformed else ["20200101"]},
            "00100020": {"vr": "LO", "Value": [f"{number}-{row % 50}"]},
            "00104000": {"vr": "LT", "Value": [comments]},
            "0020000D": {"vr": "UI", "Value": [f"1.2.{number}.{row}"]},
        }
        for row in range(number * PAGE, (number + 1) * PAGE)
    ]
    return Answer(200, JSON, json.dumps(rows).encode())


KEYS = encode_identifier(identifier_of(StudyInstanceUID="", StudyDate="", PatientComments=""), EXPLICIT)


@contextmanager
def gateway(folder: Path, server: Script, **archive: object) -> Iterator[int]:
    config = parse(
        {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "unknown_peers": "accept",
            "archives": {"main": {"url": server.url, "profile": "azure", **archive}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "spool": {"folder": str(folder), "high_water": 1.0},
        },
        "test",
    )
    with running(config) as started:
        yield started.port


def test_one_page_is_fetched_ahead_while_the_peer_does_not_read_and_no_other(tmp_path: Path) -> None:
    long = "x" * 60_000  # a page of 12 MB, more than the kernel takes for the peer
    answers = [*(page(number, long) for number in range(PAGES)), Answer(204)]
    with scripted(*answers) as server, gateway(tmp_path, server) as port:
        with Query(port, KEYS, receive_buffer=262_144) as query:
            await_true(lambda: len(server.requests) == 2, 20, "the second page is asked for")
            time.sleep(1)
            assert len(server.requests) == 2
            statuses = []
            for response in query.responses():
                statuses.append(response.status)
                pages_read = len(statuses) // PAGE
                assert len(server.requests) <= pages_read + 3  # and the kernel has up to a page
        assert statuses == [0xFF00] * PAGE * PAGES + [0x0000]
        assert len(server.requests) == PAGES + 1


def test_a_cancel_between_responses_ends_the_query_at_once(tmp_path: Path) -> None:
    answers = [*(page(number, "x" * 30_000) for number in range(PAGES)), Answer(204)]
    with scripted(*answers) as server, gateway(tmp_path, server) as port:
        with Query(port, KEYS, receive_buffer=262_144) as query:
            responses = query.responses()
            assert [next(responses).status for _ in range(5)] == [0xFF00] * 5
            query.cancel()
            cancelled = time.monotonic()
            statuses = [response.status for response in responses]
            assert time.monotonic() - cancelled < 1.5  # most of it to read what was under way
        assert statuses[-1] == 0xFE00
        assert len(statuses) < PAGE * PAGES - 5
        assert len(server.requests) <= 4


def test_a_cancelled_query_by_patient_stops_reading_the_archive(tmp_path: Path) -> None:
    slow = [page(number) for number in range(PAGES)]
    for answer in slow:
        answer.wait = 0.3
    identifier = encode_identifier(identifier_of("PATIENT", PatientID=""), EXPLICIT)
    with scripted(*slow, Answer(204)) as server, gateway(tmp_path, server) as port:
        with Query(port, identifier, model=PATIENT_ROOT) as query:
            await_true(lambda: len(server.requests) == 2, 10, "the second page is asked for")
            query.cancel()
            assert [response.status for response in query.responses()] == [0xFE00]
            time.sleep(1)
            assert len(server.requests) <= 3


def test_patients_are_answered_once_whatever_page_their_studies_are_on(tmp_path: Path) -> None:
    identifier = encode_identifier(identifier_of("PATIENT", PatientID=""), EXPLICIT)
    with scripted(page(0), page(1), page(0), Answer(204)) as server, gateway(tmp_path, server) as port:
        with Query(port, identifier, model=PATIENT_ROOT) as query:
            found = [response.identifier for response in query.responses()]
    assert len(set(found[:-1])) == len(found) - 1 == 2 * 50


def test_a_query_that_reads_too_much_is_a700_with_what_to_do_and_all_that_was_found(tmp_path: Path) -> None:
    answers = [*(page(number) for number in range(PAGES)), Answer(204)]
    with scripted(*answers) as server, gateway(tmp_path, server, max_scanned=2 * PAGE) as port:
        with Query(port, KEYS) as query:
            responses = list(query.responses())
    assert [response.status for response in responses] == [0xFF00] * 2 * PAGE + [0xA700]
    assert responses[-1].comment == "query too broad; narrow it by date, ID or name"


def test_as_many_entries_as_may_be_read_are_no_failure(tmp_path: Path) -> None:
    with scripted(page(0), page(1), Answer(204)) as server, gateway(tmp_path, server, max_scanned=2 * PAGE) as port:
        with Query(port, KEYS) as query:
            assert [response.status for response in query.responses()][-1] == 0x0000


@pytest.mark.parametrize("asked", ["", "20200101"], ids=["in a match", "in the reason for no match"])
def test_malformed_attributes_of_the_archive_are_counted_in_the_log(tmp_path: Path, asked: str) -> None:
    identifier = encode_identifier(identifier_of(StudyInstanceUID="", StudyDate=asked), EXPLICIT)
    broken = page(0, malformed=True)
    broken.body = broken.body.replace(b"[20200101]", b"[{}]")
    with capture_logs() as lines, scripted(broken, page(1), Answer(204)) as server:
        with gateway(tmp_path, server) as port, Query(port, identifier) as query:
            statuses = [response.status for response in query.responses()]
    assert statuses == [0xFF00] * (PAGE if asked else 2 * PAGE) + [0x0000]
    (line,) = (line for line in lines if line["event"] == "C-FIND")
    assert line["malformed"] == PAGE
    assert line["scanned"] == 2 * PAGE
    assert line["matches"] == len(statuses) - 1
