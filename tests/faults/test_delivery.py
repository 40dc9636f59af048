"""What delivery makes of each thing an archive can do: real sockets, a real outbox, one documented outcome each."""

import io
import itertools
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from embedded_archive import instance
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scripted_server import Answer, Script, scripted
from spooled import arrival, content, data_set, lose

from gateway.delivery import Delivery, Item, RetryPolicy, Settings, Uploader
from gateway.delivery.breaker import Breaker, Circuit
from gateway.dicomweb.auth import TokenFile
from gateway.dicomweb.client import Client
from gateway.embedded.server import EmbeddedArchive
from gateway.extent import Extent
from gateway.outbox import FILE_LOST, Arrival, Duplicates, Entry, Limits, Outbox, State
from gateway.translate.multipart import boundary_of, split
from gateway.translate.part10 import file_header
from gateway.translate.profiles import PROFILES
from gateway.translate.stow_outcomes import Disposition, Verdict

JSON = {"Content-Type": "application/dicom+json"}
QUICK = RetryPolicy(first=0.02, longest=0.05)
UNREACHABLE = "http://127.0.0.1:1/"


def stow(*stored: str, failed: dict[str, int] | None = None, status: int = 200) -> Answer:
    def items(of: dict[str, int | None]) -> list[dict[str, object]]:
        return [
            {"00081155": {"vr": "UI", "Value": [uid]}}
            | ({} if reason is None else {"00081197": {"vr": "US", "Value": [reason]}})
            for uid, reason in of.items()
        ]

    body = {
        "00081199": {"vr": "SQ", "Value": items(dict.fromkeys(stored))},
        "00081198": {"vr": "SQ", "Value": items({**(failed or {})})},
    }
    return Answer(status, JSON, json.dumps(body).encode())


def retrieved(data: bytes, name: str = "1") -> Answer:
    what = arrival(name)
    file = file_header(what.sop_class, what.sop_instance, what.transfer_syntax) + data
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x--\r\n"
    return Answer(200, {"Content-Type": "multipart/related; boundary=x"}, body)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool", Limits(high_water=1)) as opened:
        yield opened


def put(
    outbox: Outbox, *names: str, what: Arrival | None = None, data: bytes = b"", policy: Duplicates = "keep"
) -> None:
    for name in names:
        arrived = what or arrival(name)
        header = file_header(arrived.sop_class, arrived.sop_instance, arrived.transfer_syntax)
        with outbox.incoming("CT01", header) as incoming:
            incoming.write(data or content(name))
            outbox.commit(incoming, arrived, duplicates=policy)


def sent(script: Script) -> list[list[bytes]]:
    """Give the data sets of each STOW-RS request."""
    found = []
    for request in script.requests:
        if request.method == "POST":
            parts = split([request.body], boundary_of(request.headers["content-type"]))
            files = [b"".join(part.body) for part in parts]
            found.append([file[144 + int.from_bytes(file[140:144], "little") :] for file in files])
    return found


@contextmanager
def delivering(
    outbox: Outbox,
    url: str,
    profile: str = "standard",
    *,
    breaker: Breaker | None = None,
    workers: int = 1,
    **options: object,
) -> Iterator[Delivery]:
    settings = Settings(workers=workers, retry=QUICK, **options)  # type: ignore[arg-type]
    circuit = breaker or Breaker(failures=3, pause=0.05, longest=0.1)
    with (
        Client(url, name="main", profile=PROFILES[profile], connect_timeout=2, read_timeout=1) as client,
        Delivery(outbox, client, settings, breaker=circuit) as delivery,
    ):
        yield delivery


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def settled(outbox: Outbox) -> bool:
    return all(entry.state in (State.DONE, State.SET_ASIDE) for entry in outbox.entries())


def outcome(outbox: Outbox) -> dict[str, State]:
    return {entry.sop_instance: entry.state for entry in outbox.entries()}


def reason(outbox: Outbox) -> str:
    (entry,) = outbox.entries(state=State.SET_ASIDE)
    return entry.reason


def test_as_many_go_in_one_request_as_the_profile_allows_byte_for_byte(outbox: Outbox) -> None:
    names = [str(number) for number in range(12)]
    put(outbox, *names)
    with scripted(stow(*names[:10]), stow(*names[10:])) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert sent(archive) == [[content(name) for name in names[:10]], [content(name) for name in names[10:]]]
    assert set(outcome(outbox).values()) == {State.DONE}


def test_what_does_not_fill_a_request_waits_for_what_comes_next(outbox: Outbox) -> None:
    names = [str(number) for number in range(20)]
    put(outbox, *names[:12])
    answers = [stow(*names[:10]), stow(*names[10:])]
    with scripted(*answers) as archive, delivering(outbox, archive.url, workers=2, gather=4):
        until(lambda: len(archive.requests) == 1)
        put(outbox, *names[12:])
        until(lambda: settled(outbox))
    assert [len(request) for request in sent(archive)] == [10, 10]
    assert set(outcome(outbox).values()) == {State.DONE}


def test_what_waits_to_fill_a_request_is_given_back_at_the_end(outbox: Outbox) -> None:
    names = [str(number) for number in range(12)]
    put(outbox, *names)
    with scripted(stow(*names)) as archive, delivering(outbox, archive.url, workers=2, gather=60):
        until(lambda: Counter(outcome(outbox).values())[State.DONE] == 10)
    states = Counter((entry.state, entry.attempts) for entry in outbox.entries())
    assert states == {(State.DONE, 1): 10, (State.TODO, 0): 2}


def test_an_archive_that_is_down_is_waited_for_and_left_alone(outbox: Outbox) -> None:
    put(outbox, *(str(number) for number in range(30)))
    with delivering(outbox, UNREACHABLE, workers=3) as delivery:
        until(lambda: delivery.breaker.state is Circuit.OPEN)
        time.sleep(0.5)
        entries = list(outbox.entries())
    assert {entry.state for entry in entries} <= {State.TODO, State.LEASED}
    # A few requests found out, probes of one instance followed; the rest was not touched.
    assert sum(entry.attempts for entry in entries) < 60
    assert all("connection failed" in entry.reason for entry in outbox.entries() if entry.attempts)
    names = [entry.sop_instance for entry in outbox.claim("main", count=99, max_bytes=10**9, lease=0)]
    assert len(names) > 20
    with scripted(*[stow(*map(str, range(30)))] * 40) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert sorted(itertools.chain(*sent(archive))) == sorted(content(str(number)) for number in range(30))


def test_503_is_tried_again(outbox: Outbox) -> None:
    put(outbox, "1")
    with scripted(Answer(503), Answer(502), stow("1")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert sent(archive) == [[content("1")]] * 3


def test_retry_after_is_honoured_for_the_whole_archive(outbox: Outbox) -> None:
    put(outbox, "1")
    with (
        scripted(Answer(429, {"Retry-After": "1"}), stow("2"), stow("1")) as archive,
        delivering(outbox, archive.url),
    ):
        until(lambda: len(archive.requests) == 1)
        begun = time.monotonic()
        put(outbox, "2")
        until(lambda: len(archive.requests) > 1)
        assert time.monotonic() - begun > 0.9
        until(lambda: settled(outbox))


def test_a_token_that_ran_out_is_read_anew(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "1")
    token = tmp_path / "token"
    token.write_text("old")
    with (
        scripted(Answer(401, wait=0.3), stow("1")) as archive,
        Client(archive.url, name="main", auth=TokenFile(token)) as client,
        Delivery(outbox, client, Settings(workers=1, retry=QUICK)),
    ):
        until(lambda: len(archive.requests) == 1)
        token.write_text("newer")
        until(lambda: settled(outbox))
    assert [request.headers["authorization"] for request in archive.requests] == ["Bearer old", "Bearer newer"]
    assert [entry.attempts for entry in outbox.entries()] == [1]


@contextmanager
def resetting() -> Iterator[tuple[str, list[int]]]:
    """Run an archive that resets the first connection in the middle of the body."""
    seen: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            seen.append(length)
            if len(seen) == 1:
                self.rfile.read(length // 2)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            self.rfile.read(length)
            body = stow("1").body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()
        thread.join()


def test_a_reset_in_the_middle_of_the_body_is_tried_again(outbox: Outbox) -> None:
    put(outbox, "1", data=content("1", 3_000_000))
    with resetting() as (url, seen), delivering(outbox, url):
        until(lambda: settled(outbox))
    assert len(seen) == 2
    assert outcome(outbox) == {"1": State.DONE}


def test_after_a_lost_answer_the_duplicate_with_the_same_bytes_is_our_own(outbox: Outbox) -> None:
    put(outbox, "1")
    cut = Answer(200, JSON, stow("1").body, cut=True)
    duplicate = stow(failed={"1": 45070}, status=409)
    with (
        scripted(cut, duplicate, retrieved(content("1"))) as archive,
        delivering(outbox, archive.url, duplicates="reject"),
    ):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE}


def test_an_archive_that_hangs_is_asked_again(outbox: Outbox) -> None:
    put(outbox, "1")
    with scripted(Answer(200, wait=30), stow("1")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert len(archive.requests) == 2


def test_202_with_failures_is_judged_instance_by_instance(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3")
    mixed = stow("1", failed={"2": 43264, "3": 272}, status=202)
    with scripted(mixed, stow("3")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE, "2": State.SET_ASIDE, "3": State.DONE}
    assert "A900H" in reason(outbox)
    assert sent(archive) == [[content("1"), content("2"), content("3")], [content("3")]]


def test_a_duplicate_with_the_same_bytes_is_done(outbox: Outbox) -> None:
    put(outbox, "1")
    duplicate = stow(failed={"1": 45070}, status=409)
    with scripted(duplicate, retrieved(content("1"))) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE}
    assert archive.requests[1].path == "/v2/studies/1.2/series/1.2.1/instances/1"


def test_a_duplicate_with_other_bytes_is_set_aside_never_dropped(outbox: Outbox) -> None:
    put(outbox, "1")
    duplicate = stow(failed={"1": 45070}, status=409)
    with scripted(duplicate, retrieved(content("other"))) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.SET_ASIDE}
    assert "keeps another object" in reason(outbox)
    (entry,) = outbox.entries()
    assert data_set(entry.extent) == content("1")


def test_a_duplicate_is_replaced_where_that_is_the_policy(outbox: Outbox) -> None:
    put(outbox, "1")
    duplicate = stow(failed={"1": 45070}, status=409)
    answers = (duplicate, retrieved(content("other")), Answer(204), stow("1"))
    with scripted(*answers) as archive, delivering(outbox, archive.url, "google", duplicates="replace"):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE}
    assert [request.method for request in archive.requests] == ["POST", "GET", "DELETE", "POST"]


def test_what_replaces_overwrites_without_being_told_of_a_duplicate(outbox: Outbox) -> None:
    put(outbox, "1")
    outbox.done([entry.id for entry in outbox.claim("main", count=1, max_bytes=10**9, lease=60)])
    put(outbox, "1", data=b"other", policy="replace")
    with scripted(Answer(404), stow("1")) as archive, delivering(outbox, archive.url, "google"):
        until(lambda: settled(outbox))
    assert [request.method for request in archive.requests] == ["DELETE", "POST"]
    assert sent(archive) == [[b"other"]]


def test_an_archive_that_silently_keeps_the_old_object_is_found_out(outbox: Outbox) -> None:
    put(outbox, "1")
    outbox.done([entry.id for entry in outbox.claim("main", count=1, max_bytes=10**9, lease=60)])
    put(outbox, "1", data=b"other", policy="replace")
    with scripted(stow("1"), retrieved(content("1"))) as archive, delivering(outbox, archive.url, "orthanc"):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.SET_ASIDE}


@pytest.mark.parametrize("status", [413, 400, 415, 409])
def test_one_that_spoils_a_request_is_set_aside_alone(outbox: Outbox, status: int) -> None:
    put(outbox, "1", "2", "3")
    refusal = Answer(status)
    with scripted(refusal, stow("1"), refusal, stow("3")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE, "2": State.SET_ASIDE, "3": State.DONE}
    assert str(status) in reason(outbox)


def test_one_that_failed_before_goes_alone(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    with scripted(Answer(500), *[stow("1", "2")] * 2) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert [len(request) for request in sent(archive)] == [2, 1, 1]


def test_an_archive_that_refuses_everything_stops_the_delivery_before_all_is_set_aside(outbox: Outbox) -> None:
    put(outbox, *(str(number) for number in range(40)))
    breaker = Breaker(failures=2, pause=600)
    with scripted(*[Answer(415)] * 60) as archive, delivering(outbox, archive.url, breaker=breaker) as delivery:
        until(lambda: delivery.breaker.state is Circuit.OPEN)
        time.sleep(0.2)
    states = list(outcome(outbox).values())
    assert states.count(State.SET_ASIDE) == 20
    assert states.count(State.TODO) == 20


def test_a_file_that_is_lost_is_set_aside_and_the_others_go(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    (first, _) = outbox.entries()
    lose(first)
    with scripted(*[stow("2")] * 3) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.SET_ASIDE, "2": State.DONE}
    assert reason(outbox) == FILE_LOST
    assert [entry.attempts for entry in outbox.entries()] == [1, 1]


def test_a_fault_of_our_own_loses_nothing(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    put(outbox, "1")
    store, calls = Client.store, itertools.count()

    def failing(self: Client, *arguments: object, **options: object) -> object:
        if next(calls) == 0:
            raise LookupError("a bug")
        return store(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "store", failing)
    with scripted(stow("1")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert outcome(outbox) == {"1": State.DONE}


def test_a_file_that_cannot_be_removed_ends_no_worker(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    put(outbox, "1", "2")
    for entry in outbox.claim("main", count=2, max_bytes=10**9, lease=60):
        outbox.retry(entry.id, 0, "so that each goes alone")
    unlink, calls = Path.unlink, itertools.count()

    def failing(self: Path, **options: bool) -> None:
        if self.suffix == ".dcm" and next(calls) == 0:
            raise PermissionError(1, "Operation not permitted")
        unlink(self, **options)

    monkeypatch.setattr(Path, "unlink", failing)
    with scripted(stow("1"), stow("2")) as archive, delivering(outbox, archive.url, lease=0.5):
        until(lambda: settled(outbox))
    assert set(outcome(outbox).values()) == {State.DONE}


def test_stopping_waits_for_the_running_request_and_gives_the_rest_back(outbox: Outbox) -> None:
    put(outbox, "1", "2")
    for entry in outbox.claim("main", count=2, max_bytes=10**9, lease=60):
        outbox.retry(entry.id, 0, "so that each goes alone")
    slow = Answer(200, JSON, stow("1").body, wait=0.5)
    with scripted(slow) as archive, delivering(outbox, archive.url) as delivery:
        until(lambda: len(archive.requests) == 1)
        assert delivery.stop(10)
    assert len(archive.requests) == 1
    assert outcome(outbox) == {"1": State.DONE, "2": State.TODO}
    assert [entry.attempts for entry in outbox.entries(state=State.TODO)] == [1]


@pytest.mark.parametrize("fails", [False, True], ids=["at the end", "when the archive fails"])
def test_what_was_claimed_for_a_later_request_is_given_back(fails: bool, outbox: Outbox) -> None:
    names = [str(number) for number in range(50)]
    put(outbox, *names[:10])
    answer = replace(Answer(503) if fails else stow(*names), wait=60)
    breaker = Breaker(failures=1, pause=60)
    with (
        scripted(answer) as archive,
        Client(archive.url, name="main", read_timeout=60) as client,
        Delivery(outbox, client, Settings(workers=2, retry=QUICK), breaker=breaker) as delivery,
    ):
        until(lambda: len(archive.requests) == 1)
        outbox.hold()
        put(outbox, *names[10:])
        outbox.release()  # the other worker claims for both, and the first one is busy
        until(lambda: len(archive.requests) == 2 and Counter(outcome(outbox).values())[State.LEASED] == 30)
        if not fails:
            delivery.end()
        archive.over.set()
        until(lambda: State.LEASED not in outcome(outbox).values())
    states = Counter((entry.state, entry.attempts) for entry in outbox.entries())
    assert states == {(State.TODO if fails else State.DONE, 1): 20, (State.TODO, 0): 30}


def test_stopping_does_not_wait_longer_than_its_grace(outbox: Outbox) -> None:
    put(outbox, "1")
    with scripted(Answer(503, wait=0.9)) as archive, delivering(outbox, archive.url) as delivery:
        until(lambda: len(archive.requests) == 1)
        begun = time.monotonic()
        assert not delivery.stop(0.1)
        assert time.monotonic() - begun < 0.6
        assert outcome(outbox) == {"1": State.LEASED}


def test_the_lease_of_a_long_upload_is_prolonged(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "1")
    slow = Answer(200, JSON, stow("1").body, wait=0.9)
    with scripted(slow) as archive, delivering(outbox, archive.url, lease=0.3), Outbox(tmp_path / "spool") as other:
        until(lambda: len(archive.requests) == 1)
        while not settled(outbox):
            assert other.claim("main", count=1, max_bytes=1, lease=60) == []
            time.sleep(0.02)
    assert outcome(outbox) == {"1": State.DONE}


def test_a_study_is_told_apart_from_one_with_the_same_instance_uid(outbox: Outbox) -> None:
    put(outbox, "x", what=arrival("1", study="1.2"), data=b"first")
    put(outbox, "x", what=arrival("1", study="1.3"), data=b"second")
    with scripted(stow("1"), stow("1")) as archive, delivering(outbox, archive.url):
        until(lambda: settled(outbox))
    assert sent(archive) == [[b"first"], [b"second"]]


def _real(outbox: Outbox, file: bytes, syntax: str) -> None:
    dataset = dcmread(io.BytesIO(file))
    what = Arrival(
        "main",
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
        syntax,
    )
    put(outbox, "x", what=what, data=file[144 + int.from_bytes(file[140:144], "little") :])


def test_the_embedded_archive_gets_what_its_profile_asks_for(outbox: Outbox, tmp_path: Path) -> None:
    _real(outbox, instance(sop="1.1", syntax=ImplicitVRLittleEndian), ImplicitVRLittleEndian)
    _real(outbox, instance(sop="1.2", PatientID=None), ExplicitVRLittleEndian)
    _real(outbox, instance(sop="1.3", PatientID=None, syntax=ImplicitVRLittleEndian), ImplicitVRLittleEndian)
    plain = instance(sop="1.4")
    _real(outbox, plain, ExplicitVRLittleEndian)
    verdicts: list[tuple[Entry, Verdict]] = []
    with (
        EmbeddedArchive(tmp_path / "archive") as archive,
        Client(archive.url, name="main", profile=PROFILES["azure"]) as client,
    ):
        with Delivery(outbox, client, Settings(), observe=lambda *known: verdicts.append(known)):
            until(lambda: settled(outbox))
        got = {}
        with client.retrieve("1.2.1") as instances:
            for stream in instances:
                file = b"".join(stream.chunks)
                got[dcmread(io.BytesIO(file)).SOPInstanceUID] = file
    assert {verdict.disposition for _, verdict in verdicts} == {Disposition.DONE}
    assert got.keys() == {"1.1", "1.2", "1.3", "1.4"}
    for file in got.values():
        dataset = dcmread(io.BytesIO(file))
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.PatientName == "Doe^John"
    assert dcmread(io.BytesIO(got["1.1"])).PatientID == "ID1"
    assert dcmread(io.BytesIO(got["1.3"])).PatientID == ""
    offset = 144 + int.from_bytes(plain[140:144], "little")
    assert got["1.4"][144 + int.from_bytes(got["1.4"][140:144], "little") :] == plain[offset:]
    assert list((tmp_path / "spool" / "incoming").iterdir()) == []


def test_what_cannot_be_converted_goes_as_it_came(outbox: Outbox) -> None:
    put(outbox, "1", what=Arrival("main", "1.2", "1.2.1", "1.2", "1", str(ImplicitVRLittleEndian)), data=b"nonsense")
    with scripted(stow(failed={"1": 43264}, status=409)) as archive, delivering(outbox, archive.url, "azure"):
        until(lambda: settled(outbox))
    assert sent(archive) == [[b"nonsense"]]
    assert outcome(outbox) == {"1": State.SET_ASIDE}


def test_a_peer_that_waits_gets_the_archives_verdict(outbox: Outbox, tmp_path: Path) -> None:
    file = tmp_path / "x.dcm"
    file.write_bytes(instance())
    item = Item(Extent.of(file), "1.2.1", "1.2.1.1", "1.2", "1", str(ExplicitVRLittleEndian))
    answers = (stow("1"), stow(failed={"1": 43264}, status=409), Answer(503), stow(failed={"1": 45071}, status=409))
    with scripted(*answers) as archive, Client(archive.url) as client:
        uploader = Uploader(client, outbox.scratch)
        statuses = [uploader.send([item])[0].status for _ in answers]
    assert statuses == [0x0000, 0xA900, 0xA700, 0xA700]
