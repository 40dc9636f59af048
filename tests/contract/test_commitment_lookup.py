"""An archive is asked for many instances in few searches, and an instance is missing only if it says so itself."""

import json

import httpx
import pytest
from embedded_archive import instance, multipart, running_archive
from orthanc import Orthanc
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from scripted_server import Answer, scripted

from gateway.commitment.lookup import Lookup, Place
from gateway.dicomweb.client import Client
from gateway.embedded.switches import Faults
from gateway.errors import AnswerUnreadable, ArchiveUnreachable, RequestRefused
from gateway.translate.profiles import PROFILES

TWO_SERIES = {f"1.2.{series}.{number}": ("1.2", f"1.2.{series}") for series in (1, 2) for number in range(300)}
AWS = PROFILES["aws"]


def store(url, instances):
    files = [instance(study, series, uid) for uid, (study, series) in instances.items()]
    content_type = 'multipart/related; type="application/dicom"; boundary=b'
    headers = {"Accept": "application/dicom+json", "Content-Type": content_type}
    for start in range(0, len(files), 100):
        body = multipart(files[start : start + 100])
        httpx.post(f"{url}/studies", content=body, headers=headers, timeout=60).raise_for_status()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with running_archive(tmp_path_factory.mktemp("archive")) as (url, switches):
        store(url, TWO_SERIES)
        yield url, switches


@pytest.fixture
def look(archive):
    """Look up in the archive with a profile; give the classes and how many searches it took."""
    url, switches = archive

    def look(wanted, *, profile="azure", places=None):
        before = len(switches.requests())
        with Client(url, profile=PROFILES[profile] if isinstance(profile, str) else profile) as client:
            found = Lookup(client, places or {}).classes(wanted)
        return {uid: set(classes) for uid, classes in found.items()}, len(switches.requests()) - before

    return look


def as_found(wanted):
    return {uid: {SecondaryCaptureImageStorage} for uid in wanted}


def test_a_series_of_unknown_place_costs_one_search_and_its_pages(look):
    wanted = [uid for uid in TWO_SERIES if uid.startswith("1.2.1.")]
    found, searches = look(wanted)
    assert found == as_found(wanted)
    assert searches <= 4


def test_hundreds_in_two_series_are_found_in_a_handful_of_searches(look):
    found, searches = look(TWO_SERIES)
    assert found == as_found(TWO_SERIES)
    assert searches <= 8


def test_a_series_of_known_place_is_listed_without_looking_for_it(look):
    places = {uid: Place(*place) for uid, place in TWO_SERIES.items()}
    found, searches = look(TWO_SERIES, places=places, profile=AWS)
    assert found == as_found(TWO_SERIES)
    assert searches <= 6


def test_a_few_are_searched_one_by_one_instead_of_listing_their_series(look):
    wanted = ["1.2.1.7", "1.2.1.8"]
    assert look(wanted) == (as_found(wanted), 2)


def test_what_is_missing_is_not_found_however_it_is_asked_for(look):
    wanted = [*TWO_SERIES, "1.3.1", "1.3.2", "1.2.1.999"]
    found, _ = look(wanted)
    assert found == as_found(TWO_SERIES)
    places = dict.fromkeys(wanted, Place("1.2", "1.2.1"))
    found, _ = look(["1.2.1.5", "1.2.1.999"], places=places, profile=AWS)
    assert found == as_found(["1.2.1.5"])


def test_an_instance_that_is_not_where_it_was_is_found_where_it_is(look):
    found, _ = look(["1.2.2.5"], places={"1.2.2.5": Place("1.2", "1.2.1")})
    assert found == as_found(["1.2.2.5"])


def test_an_archive_that_takes_a_list_of_uids_literally_costs_searches_and_no_wrong_verdict(look):
    wanted = ["1.2.1.1", "1.2.1.2", "1.2.2.3"]
    found, _ = look(wanted, profile="standard")  # the embedded archive answers 204 to a list, as Azure does
    assert found == as_found(wanted)


def test_without_flat_searches_an_instance_of_unknown_place_cannot_be_judged(look):
    with pytest.raises(RequestRefused, match="study and series are not known"):
        look(["1.2.1.1"], profile=AWS)


def test_a_failure_in_the_midst_of_pages_gives_no_answer_at_all(archive):
    url, switches = archive
    steps = []

    def step():
        steps.append(1)
        if len(steps) == 2:
            switches.set(Faults(unavailable=3))

    with Client(url, profile=PROFILES["azure"]) as client, pytest.raises(Exception, match="HTTP 503"):
        Lookup(client, {}, step).classes([*TWO_SERIES])
    switches.set(Faults())


def test_an_archive_that_is_not_there_gives_no_answer():
    with Client("http://127.0.0.1:1") as client, pytest.raises(ArchiveUnreachable):
        Lookup(client, {}).classes(["1.2.3"])


def test_an_archive_that_heeds_no_key_is_not_read_for_ever():
    rows = [{"00080018": {"vr": "UI", "Value": [f"9.{number}"]}} for number in range(1000)]
    answers = []
    for page in range(110):
        for row, number in zip(rows, range(1000), strict=True):
            row["00080018"] = {"vr": "UI", "Value": [f"9.{page}.{number}"]}
        answers.append(Answer(200, {"Content-Type": "application/dicom+json"}, json.dumps(rows).encode()))
    with (
        scripted(*answers) as script,
        Client(script.url) as client,
        pytest.raises(AnswerUnreadable, match="more than"),
    ):
        Lookup(client, {}).classes(["1.2.3"])


def test_a_class_that_the_search_leaves_out_is_read_from_the_metadata():
    row = {
        tag: {"vr": "UI", "Value": [uid]}
        for tag, uid in (("0020000D", "1"), ("0020000E", "1.1"), ("00080018", "1.2"))
    }
    whole = row | {"00080016": {"vr": "UI", "Value": [CTImageStorage]}}
    kind = {"Content-Type": "application/dicom+json"}
    answers = [Answer(200, kind, json.dumps([one]).encode()) for one in (row, whole)]
    with scripted(*answers) as script, Client(script.url) as client:
        assert Lookup(client, {}).classes(["1.2"]) == {"1.2": {CTImageStorage}}
    assert script.requests[1].path.endswith("/studies/1/series/1.1/instances/1.2/metadata")


def test_orthanc_is_asked_for_hundreds_of_instances_in_searches_of_fifty(tmp_path):
    wanted = [uid for uid in TWO_SERIES if int(uid.rpartition(".")[2]) < 60]
    with Orthanc(tmp_path) as orthanc:
        store(orthanc.url, {uid: TWO_SERIES[uid] for uid in wanted})
        steps = []
        with Client(orthanc.url, profile=PROFILES["orthanc"]) as client:
            found = Lookup(client, {}, lambda: steps.append(1)).classes([*wanted, "1.3.1"])
    assert found == as_found(wanted)
    assert len(steps) <= 6
