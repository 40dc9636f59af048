"""STOW-RS and DELETE of the embedded archive."""

import io
from contextlib import closing
from http.client import HTTPConnection

import pytest
from embedded_archive import JSON, ORIGINAL, instance, multipart, parts, reasons, running, values
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from gateway.embedded.switches import Faults

RELATED = "multipart/related; boundary=b"


@pytest.fixture
def archive(tmp_path):
    with running(tmp_path) as caller:
        yield caller


def test_bytes_out_are_bytes_in(archive):
    file = instance(ImageComments="\r\n--b\r\n"[2:4] * 100)
    assert archive.store(file).status_code == 200
    [(headers, body)] = parts(archive.get("/studies/1.2.1", ORIGINAL))
    assert body == file
    assert headers == {"content-type": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"}


def test_instances_outlive_a_restart(tmp_path):
    file = instance()
    with running(tmp_path) as caller:
        caller.store(file)
    with running(tmp_path) as caller:
        assert parts(caller.get("/studies/1.2.1", ORIGINAL))[0][1] == file


def test_stored_items_name_the_instance_and_its_url(archive):
    model = archive.store(instance(), path="/studies/1.2.1").json()
    [item] = values(model, "00081199")
    assert values(item, "00081155") == ["1.2.1.1.1"]
    assert values(item, "00081190") == [f"{archive.archive.url}/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"]
    assert item["00741048"] == {"vr": "SQ"}
    assert values(model, "00081190") == [f"{archive.archive.url}/studies/1.2.1"]
    assert "00081198" not in model


def test_no_accept_is_406_and_stores_nothing(archive):
    for accept in ({"Accept": ""}, {"Accept": "application/dicom"}):
        headers = accept | {"Content-Type": RELATED}
        answer = archive.http.post(archive.archive.url + "/studies", content=multipart([instance()]), headers=headers)
        assert (answer.status_code, answer.content) == (406, b"")
    assert archive.get("/studies").status_code == 204


@pytest.mark.parametrize(
    "part", ["application/dicom; transfer-syntax=1.2.840.10008.1.2.1", "application/octet-stream"]
)
def test_a_part_with_another_type_is_415_and_stores_nothing(archive, part):
    body = multipart([instance()])[:-7] + b"\r\n" + multipart([instance(sop="1.2.9")], part)
    assert archive.post(body, RELATED).status_code == 415
    assert archive.get("/studies").status_code == 204


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/related", 415),
        ("application/dicom+json", 415),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", 415),
        ("multipart/related; boundary=b; start=x", 400),
        ("multipart/related; boundary=other", 400),
    ],
)
def test_a_wrong_request_is_refused_as_a_whole(archive, content_type, status):
    assert archive.post(multipart([instance()]), content_type).status_code == status
    assert archive.get("/studies").status_code == 204


@pytest.mark.parametrize(
    ("accept", "faults", "status"),
    [
        ("application/dicom+json", Faults(), 415),
        ("application/dicom", Faults(), 406),
        ("application/dicom+json", Faults(unavailable=1), 503),
    ],
)
def test_a_refusal_reaches_a_client_that_is_still_sending(archive, accept, faults, status):
    archive.archive.switches.set(faults)
    body = multipart([b"", bytes(64 << 20)], "text/plain")
    client = HTTPConnection(archive.archive.url.split("/")[2], timeout=20)
    with closing(client):
        client.request("POST", "/v2/studies", body, {"Accept": accept, "Content-Type": RELATED})
        assert client.getresponse().status == status


def test_a_cut_body_stores_nothing(archive):
    assert archive.post(multipart([instance()])[:-4], RELATED).status_code == 400
    assert archive.get("/studies").status_code == 204


def test_only_the_first_part_may_leave_its_type_out(archive):
    assert archive.store(instance(), part=None).status_code == 200
    assert archive.store(instance(sop="1.2.8"), instance(sop="1.2.9"), part=None).status_code == 415


def test_a_single_part_request_is_taken(archive):
    assert archive.post(instance(), "application/dicom").status_code == 200


def test_no_parts_are_204(archive):
    assert archive.post(b"--b--\r\n", RELATED).status_code == 204


def test_duplicates_go_by_the_three_uids(archive):
    archive.store(instance())
    again = archive.store(instance())
    assert (again.status_code, reasons(again)) == (409, [45070])
    assert archive.store(instance(series="1.2.1.2")).status_code == 200
    both = archive.store(instance(sop="1.2.7"), instance(sop="1.2.7"))
    assert (both.status_code, reasons(both)) == (202, [45070])


def test_what_is_no_instance_gets_only_a_reason(archive):
    answer = archive.store(b"not DICOM", instance())
    assert answer.status_code == 202
    [item] = values(answer.json(), "00081198")
    assert item == {"00081197": {"vr": "US", "Value": [43264]}}


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "PatientID"])
def test_required_attributes_are_required(archive, missing):
    file = instance()
    dataset = dcmread(io.BytesIO(file))
    delattr(dataset, missing)
    changed = io.BytesIO()
    dataset.save_as(changed, enforce_file_format=False)
    answer = archive.store(changed.getvalue())
    assert (answer.status_code, reasons(answer)) == (409, [43264])


def test_an_empty_patient_id_is_a_warning_in_version_2_and_a_failure_in_version_1(archive):
    former = archive.post(multipart([instance(PatientID="")]), RELATED, version="v1")
    assert (former.status_code, reasons(former)) == (409, [43264])
    answer = archive.store(instance(PatientID=""))
    assert answer.status_code == 202
    assert values(values(answer.json(), "00081199")[0], "00081196") == [1]


def test_implicit_vr_is_stored_with_a_warning(archive):
    answer = archive.store(instance(syntax=ImplicitVRLittleEndian))
    assert answer.status_code == 202
    assert values(values(answer.json(), "00081199")[0], "00081196") == [45063]
    former = archive.post(multipart([instance(sop="1.2.9", syntax=ImplicitVRLittleEndian)]), RELATED, version="v1")
    assert former.status_code == 200


def test_another_study_than_the_urls_is_refused_by_instance(archive):
    answer = archive.store(instance(), instance(study="1.2.2"), path="/studies/1.2.1")
    assert (answer.status_code, reasons(answer)) == (202, [43264])
    assert archive.store(instance(), path="/studies/abc").status_code == 400


@pytest.mark.parametrize("level", ["", "/series/1.2.1.1", "/series/1.2.1.1/instances/1.2.1.1.1"])
def test_delete_is_204_then_404_and_the_instance_can_be_stored_again(archive, level, tmp_path):
    archive.store(instance())
    assert archive.delete("/studies/1.2.1" + level).status_code == 204
    assert archive.delete("/studies/1.2.1" + level).status_code == 404
    assert archive.get("/studies").status_code == 204
    assert archive.get("/series", JSON).status_code == 204
    assert not list(tmp_path.glob("instances/*/*.dcm"))
    assert archive.store(instance()).status_code == 200


def test_nothing_is_left_in_the_incoming_folder(archive, tmp_path):
    archive.store(instance(), b"not DICOM", instance())
    archive.store(instance(), part="text/plain")
    assert not list(tmp_path.glob("incoming/*"))
    assert len(list(tmp_path.glob("instances/*/*.dcm"))) == 1
