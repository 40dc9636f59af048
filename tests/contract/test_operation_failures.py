"""Each operation of the client with each way in which it can fail: scripted, by the embedded archive, by Orthanc."""

import json
import re

import pytest
from embedded_archive import image
from meddling_proxy import Rule, meddling
from orthanc import Orthanc
from scripted_server import Answer, scripted

from gateway import errors
from gateway.dicomweb import Basic, Client, Held, State
from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults

STUDY, SERIES, INSTANCE = "1.2.1", "1.2.1.1", "1.2.1.1.1"
CONTENT = image([b"1" * 9, b"2" * 9], series=SERIES, sop=INSTANCE)
UPLOAD = Held(CONTENT, "1.2.840.10008.5.1.4.1.1.7", INSTANCE, STUDY, SERIES)
JSON = {"Content-Type": "application/dicom+json"}
RELATED = {"Content-Type": "multipart/related; boundary=abc"}
PART = b"--abc\r\nContent-Type: application/dicom; transfer-syntax=*\r\n\r\nDATA\r\n"


def read(instances):
    return [one.read() for one in instances]


STORES = {
    "store": lambda archive: archive.store([UPLOAD]),
    "store for a study": lambda archive: archive.store([UPLOAD], study=STUDY),
}
RETRIEVALS = {
    "retrieve a study": lambda archive: read(archive.retrieve(STUDY)),
    "retrieve a series": lambda archive: read(archive.retrieve(STUDY, SERIES)),
    "retrieve an instance": lambda archive: read(archive.retrieve(STUDY, SERIES, INSTANCE)),
    "retrieve frames": lambda archive: archive.frames(STUDY, SERIES, INSTANCE, [1]),
}
METADATA = {
    "metadata of a study": lambda archive: archive.attributes(STUDY),
    "metadata of a series": lambda archive: archive.attributes(STUDY, SERIES),
    "metadata of an instance": lambda archive: archive.attributes(STUDY, SERIES, INSTANCE),
}
SEARCHES = {
    "search studies": lambda archive: list(archive.studies(PatientID="ID1")),
    "search series": lambda archive: list(archive.series()),
    "search series in a study": lambda archive: list(archive.series(STUDY)),
    "search instances": lambda archive: list(archive.instances()),
    "search instances in a study": lambda archive: list(archive.instances(STUDY)),
    "search instances in a study and a series": lambda archive: list(archive.instances(STUDY, SERIES)),
}
DELETES = {
    "delete an instance": lambda archive: archive.delete(STUDY, SERIES, INSTANCE),
    "delete a series": lambda archive: archive.delete(STUDY, SERIES),
    "delete a study": lambda archive: archive.delete(STUDY),
}
ALL = STORES | RETRIEVALS | METADATA | SEARCHES | DELETES
STATUSES = {
    401: errors.SignInRefused,
    403: errors.SignInRefused,
    404: errors.NotFound,
    406: errors.RequestRefused,
    409: errors.RequestRefused,
    413: errors.TooLarge,
    415: errors.RequestRefused,
    429: errors.ArchiveBusy,
    503: errors.ArchiveBusy,
}


def each(operations):
    return pytest.mark.parametrize("operation", operations.values(), ids=operations)


@each(ALL)
@pytest.mark.parametrize("status", STATUSES)
def test_each_status_is_its_error(operation, status):
    answer = Answer(status, {"Retry-After": "7"}, b"text of the server")
    with scripted(answer) as server, Client(server.url, name="main") as archive:
        with pytest.raises(STATUSES[status]) as caught:
            operation(archive)
        assert caught.value.http_status == status
        assert str(caught.value).startswith(f"archive main: HTTP {status}")
        assert "text of the server" not in str(caught.value)
        assert len(server.requests) == 1


@each(RETRIEVALS)
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, RELATED, PART),
        Answer(200, RELATED, PART[:-10]),
        Answer(200, RELATED, PART + b"--abc--", cut=True),
        Answer(200, {"Content-Type": "multipart/related; boundary=other"}, PART + b"--abc--"),
        Answer(200, {"Content-Type": "multipart/related"}, PART + b"--abc--"),
        Answer(200, {"Content-Type": "text/html"}, b"<html>"),
        Answer(204),
    ],
    ids=["no closing boundary", "cut part", "cut connection", "wrong boundary", "no boundary", "HTML", "204"],
)
def test_a_damaged_retrieval_is_unreadable(operation, answer):
    with scripted(answer) as server, Client(server.url) as archive, pytest.raises(errors.AnswerUnreadable):
        operation(archive)


@each(RETRIEVALS)
def test_a_part_without_content_type_is_read_all_the_same(operation):
    answer = Answer(200, RELATED, b"--abc\r\n\r\nDATA\r\n--abc--")
    with scripted(answer) as server, Client(server.url) as archive:
        assert operation(archive) == [b"DATA"]


@each(METADATA | SEARCHES)
@pytest.mark.parametrize(
    "answer", [Answer(200, JSON, b'[{"00'), Answer(200, JSON, b"[{}]", cut=True), Answer(200, JSON, b'{"a": 1}')]
)
def test_damaged_json_is_unreadable(operation, answer):
    with scripted(answer) as server, Client(server.url) as archive, pytest.raises(errors.AnswerUnreadable):
        operation(archive)


@each(ALL)
def test_a_204_is_nothing_found_or_done_and_a_failure_where_something_was_wanted(operation):
    with scripted(Answer(204)) as server, Client(server.url) as archive:
        if operation in SEARCHES.values():
            assert operation(archive) == []
        elif operation in DELETES.values():
            assert operation(archive) is None
        else:
            with pytest.raises(errors.AnswerUnreadable):
                operation(archive)


@each(ALL)
def test_no_error_of_httpx_comes_through(operation):
    with scripted(Answer(drop=True)) as server, Client(server.url) as archive:
        with pytest.raises(errors.ArchiveError):
            operation(archive)
    with Client(server.url) as archive, pytest.raises(errors.ArchiveUnreachable):
        operation(archive)


# the embedded archive, as Azure's service fails


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    with EmbeddedArchive(tmp_path_factory.mktemp("archive")) as server:
        with Client(server.url, profile="embedded") as archive:
            archive.store([UPLOAD, UPLOAD_2])
            yield server, archive


UPLOAD_2 = Held(
    image([b"3" * 9], series=SERIES, sop=f"{SERIES}.2"), "1.2.840.10008.5.1.4.1.1.7", f"{SERIES}.2", STUDY, SERIES
)


@each(ALL)
@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(unauthorized=9), errors.SignInRefused),
        (Faults(throttled=9, retry_after="7"), errors.ArchiveBusy),
        (Faults(unavailable=9, retry_after="7"), errors.ArchiveBusy),
    ],
    ids=["401", "429", "503"],
)
def test_the_embedded_archive_fails_as_the_switch_says(embedded, operation, faults, error):
    server, archive = embedded
    with server.switches.on(faults), pytest.raises(error):
        operation(archive)
    assert len(list(archive.instances(STUDY))) == 2


@each(RETRIEVALS)
def test_a_cut_of_the_embedded_archive_is_unreadable(embedded, operation):
    server, archive = embedded
    with server.switches.on(Faults(cut=1, cut_after=60)), pytest.raises(errors.AnswerUnreadable):
        operation(archive)


def test_the_embedded_archive_refuses_what_azure_refuses(embedded):
    _, archive = embedded
    with pytest.raises(errors.RequestRefused) as caught:
        read(archive.retrieve(STUDY, transfer_syntax="1.2.840.10008.1.2.1"))
    assert caught.value.http_status == 406
    with pytest.raises(errors.RequestRefused) as caught:
        archive.frames(STUDY, SERIES, INSTANCE, [0])
    assert caught.value.http_status == 400
    with pytest.raises(errors.NotFound):
        archive.frames(STUDY, SERIES, INSTANCE, [3])
    (told,) = archive.upload([CONTENT], skip_present=False)  # 409 with Failure Reason 45070
    assert told.state is State.PRESENT
    (outcome,) = archive.store([UPLOAD])
    assert (outcome.stored, outcome.reason) == (False, 45070)


# Orthanc


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    settings = {"AuthenticationEnabled": True, "RegisteredUsers": {"gateway": "s3cret"}}
    with Orthanc(tmp_path_factory.mktemp("orthanc"), **settings) as server:
        yield server


@each(STORES | RETRIEVALS | METADATA | SEARCHES)
def test_orthanc_refuses_a_wrong_password(locked, operation):
    wrong = Client(locked.url, profile="orthanc", auth=Basic("gateway", "wrong"))
    with wrong, pytest.raises(errors.SignInRefused) as caught:
        operation(wrong)
    assert caught.value.http_status == 401


@each(RETRIEVALS | METADATA)
def test_what_orthanc_has_not_is_not_found(locked, operation):
    with Client(locked.url, profile="orthanc", auth=Basic("gateway", "s3cret")) as archive:
        with pytest.raises(errors.NotFound):
            operation(archive)


def test_orthanc_names_the_outcome_of_each_instance_and_refuses_another_study(locked):
    with Client(locked.url, profile="orthanc", auth=Basic("gateway", "s3cret")) as archive:
        assert [one.stored for one in archive.store([UPLOAD, UPLOAD_2], study=STUDY)] == [True, True]
        other = [one.stored for one in archive.store([UPLOAD], study="9.9")]
        assert other == [False]
        assert archive.frames(STUDY, SERIES, INSTANCE, [2]) == [b"2" * 9]


def test_answers_of_a_store_are_read_by_instance_even_in_a_409():
    item = {"00081155": {"vr": "UI", "Value": [INSTANCE]}, "00081197": {"vr": "US", "Value": [0xA700]}}
    body = json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
    with scripted(Answer(409, JSON, body)) as server, Client(server.url) as archive:
        (outcome,) = archive.store([UPLOAD])
    assert (outcome.stored, outcome.reason) == (False, 0xA700)


# both archives, with what stands between them and us: a gateway of an API, a load balancer, a broken line


class Between:
    """A client that reaches a real archive, which has two instances, through a proxy."""

    def __init__(self, kind, server, proxy, archive):
        self.kind, self.server, self.proxy, self.archive = kind, server, proxy, archive

    def failing(self, rule):
        self.proxy.rule, self.proxy.store_rule = (lambda _: rule), rule

    def mended(self, operation):
        """Let the same client do the same, on an archive that has everything again."""
        self.failing(Rule())
        if operation in DELETES.values() and self.kind == "orthanc":
            with pytest.raises(errors.ArchiveError):  # its plug-in has no DELETE
                operation(self.archive)
            return None
        done = operation(self.archive)
        if operation in DELETES.values():
            self.archive.store([UPLOAD, UPLOAD_2])
        return done


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def between(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    with EmbeddedArchive(folder) if request.param == "embedded" else Orthanc(folder) as server:
        with meddling(server.url) as proxy, Client(proxy.url, name="main", profile=request.param) as archive:
            assert [one.stored for one in archive.store([UPLOAD, UPLOAD_2])] == [True, True]
            yield Between(request.param, server, proxy, archive)


@each(ALL)
@pytest.mark.parametrize("status", STATUSES)
def test_after_each_refusal_of_a_real_archive_the_same_client_succeeds(between, operation, status):
    between.failing(Rule(status=status, retry_after="7"))
    with pytest.raises(STATUSES[status]) as caught:
        operation(between.archive)
    assert caught.value.http_status == status
    assert getattr(caught.value, "retry_after", 7) == 7
    assert str(caught.value).startswith(f"archive main: HTTP {status}")
    assert "Doe" not in str(caught.value)  # the body that came with it is a patient's
    between.mended(operation)


def without_types(body):
    """Take the Content-Type out of each part's header."""
    return re.sub(rb"(?i)(?<=\r\n)content-type:[^\r]*\r\n", b"", body)


DAMAGES = {
    "truncated": Rule(change=lambda body: body[: len(body) // 2]),
    "without its end": Rule(change=lambda body: body[: body.rindex(b"--", 0, -8)]),
    "connection cut": Rule(cut_after=100),
    "wrong boundary": Rule(kind="multipart/related; boundary=other"),
    "no boundary": Rule(kind="multipart/related"),
    "204": Rule(status=204),
}


@each(RETRIEVALS)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_real_answer_that_was_damaged_on_its_way_is_unreadable(between, operation, damage):
    whole = between.mended(operation)
    between.failing(damage)
    with pytest.raises(errors.AnswerUnreadable):
        operation(between.archive)
    assert between.mended(operation) == whole


@each(RETRIEVALS)
def test_a_real_answer_whose_parts_have_lost_their_types_is_the_same(between, operation):
    whole = between.mended(operation)
    between.failing(Rule(change=without_types))
    assert operation(between.archive) == whole


@each(STORES | METADATA | SEARCHES)
@pytest.mark.parametrize("damage", ["truncated", "connection cut"])
def test_a_real_answer_in_json_that_was_damaged_on_its_way_is_unreadable(between, operation, damage):
    between.failing(Rule())
    if operation in STORES.values() and between.kind == "embedded":
        between.archive.delete(STUDY, SERIES, INSTANCE)  # or the answer is a refusal, as Azure's is
    between.failing(DAMAGES[damage])
    with pytest.raises(errors.AnswerUnreadable):
        operation(between.archive)
    between.mended(operation)
    assert len(list(between.archive.instances(STUDY))) == 2


# the upload, which stores many instances in requests of its own


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_upload_ends_at_once_where_each_instance_would_end_the_same(between, status):
    between.failing(Rule(status=status))
    before = len(between.proxy.paths)
    with pytest.raises(STATUSES[status]):
        list(between.archive.upload([CONTENT, UPLOAD_2.content], skip_present=False))
    assert len(between.proxy.paths) == before  # it asks nothing but to store


@pytest.mark.parametrize("status", [406, 409, 413, 415])
def test_an_upload_tells_of_each_instance_that_a_status_refuses(between, status):
    between.failing(Rule(status=status))
    told = list(between.archive.upload([CONTENT, UPLOAD_2.content], skip_present=False))
    assert [one.state for one in told] == [State.REFUSED] * 2
    assert all(f"HTTP {status}" in one.problem for one in told)


@pytest.mark.parametrize(
    "rule", [Rule(status=429), Rule(status=503), DAMAGES["connection cut"]], ids=["429", "503", "cut"]
)
def test_an_upload_gives_an_archive_in_trouble_its_time_and_then_raises(between, monkeypatch, rule):
    monkeypatch.setattr("gateway.dicomweb.uploading._PAUSES", (0.01, 0.02))
    between.failing(rule)
    with pytest.raises(errors.ArchiveError) as caught:
        list(between.archive.upload([CONTENT], skip_present=False))
    assert caught.value.retry
    between.failing(Rule())
    (told,) = between.archive.upload([CONTENT])
    assert told.state is State.PRESENT
