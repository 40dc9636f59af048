"""WADO-RS, metadata and frames of the embedded archive."""

import pytest
from embedded_archive import JSON, ORIGINAL, image, instance, parts, running, values
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

INSTANCE = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
FRAMES = [bytes([number] * 9) for number in (1, 2, 3)]


@pytest.fixture
def archive(tmp_path):
    with running(tmp_path) as caller:
        yield caller


def test_study_series_and_instance_are_multipart_without_a_type(archive):
    files = [instance(), instance(sop="1.2.1.1.2")]
    archive.store(*files, instance(study="1.2.2"))
    for path, expected in (
        ("/studies/1.2.1", files),
        ("/studies/1.2.1/series/1.2.1.1", files),
        (INSTANCE, files[:1]),
    ):
        answer = archive.get(path, ORIGINAL)
        assert answer.headers["Content-Type"].startswith("multipart/related; boundary=")
        assert "type=" not in answer.headers["Content-Type"]
        assert [body for _, body in parts(answer)] == expected


def test_an_instance_comes_bare_when_asked_so(archive):
    archive.store(instance())
    answer = archive.get(INSTANCE, {"Accept": "application/dicom; transfer-syntax=*"})
    assert answer.content == instance()
    assert answer.headers["Content-Type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    "accept",
    [
        {},
        {"Accept": "application/dicom"},
        {"Accept": "application/dicom+json"},
        {"Accept": 'multipart/related; type="application/dicom"'},
        {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'},
        {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2'},
    ],
)
def test_several_instances_come_as_they_are_stored_only(archive, accept):
    archive.store(instance(), instance(sop="1.2.1.1.2"))
    assert archive.get("/studies/1.2.1", accept).status_code == 406


def test_one_instance_can_be_had_in_explicit_vr(archive, tmp_path):
    archive.store(instance(syntax=ImplicitVRLittleEndian))
    [(headers, body)] = parts(archive.get(INSTANCE, {"Accept": 'multipart/related; type="application/dicom"'}))
    assert headers["content-type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    (tmp_path / "x").write_bytes(body)
    dataset = dcmread(tmp_path / "x")
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert dataset.PatientName == "Doe^John"


def test_what_is_not_there_is_404_and_a_malformed_uid_400(archive):
    for suffix, headers in (("", ORIGINAL), ("/metadata", JSON)):
        assert archive.get("/studies/1.2.9" + suffix, headers).status_code == 404
        assert archive.get("/studies/1.2.x" + suffix, headers).status_code == 400


def test_metadata_have_no_bulk_values_at_any_depth(archive):
    archive.store(image(FRAMES, EncapsulatedDocument=b"12"), instance(sop="1.2.1.1.2"))
    assert archive.get("/studies/1.2.1/metadata", {}).status_code == 406
    answer = archive.get("/studies/1.2.1/metadata")
    first, second = answer.json()
    assert values(first, "00280008") == [3]
    assert not {"7FE00010", "00420011"} & set(first)
    assert values(second, "00080018") == ["1.2.1.1.2"]


def test_an_etag_is_unquoted_and_compared_exactly(archive):
    archive.store(instance(), instance(sop="1.2.1.1.2"))
    tag = archive.get("/studies/1.2.1/metadata").headers["ETag"]
    assert tag == "2-2"
    again = archive.get("/studies/1.2.1/metadata", JSON | {"If-None-Match": tag})
    assert (again.status_code, again.content, "ETag" in again.headers) == (304, b"", False)
    assert archive.get("/studies/1.2.1/metadata", JSON | {"If-None-Match": f'"{tag}"'}).status_code == 200
    assert archive.get(INSTANCE + "/metadata").headers["ETag"] == "1"


def test_native_frames_are_exact_and_in_the_order_asked(archive):
    archive.store(image(FRAMES))
    accept = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
    answer = archive.get(INSTANCE + "/frames/3,1", accept)
    assert [body for _, body in parts(answer)] == [FRAMES[2], FRAMES[0]]
    one = archive.get(INSTANCE + "/frames/2", {"Accept": "application/octet-stream; transfer-syntax=*"})
    assert one.content == FRAMES[1]


def test_encapsulated_frames_come_as_stored_or_decoded(archive):
    path = get_testdata_file("SC_rgb_rle_2frame.dcm")
    dataset = dcmread(path)
    with open(path, "rb") as file:  # noqa: PTH123
        assert archive.store(file.read()).status_code in {200, 202}
    url = (
        f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}/frames/2"
    )
    stored = archive.get(url, {"Accept": "application/octet-stream; transfer-syntax=*"})
    assert stored.content == list(generate_frames(dataset.PixelData, number_of_frames=2))[1]
    assert stored.headers["Content-Type"].endswith("transfer-syntax=1.2.840.10008.1.2.5")
    decoded = archive.get(url, {"Accept": "application/octet-stream"})
    assert len(decoded.content) == dataset.Rows * dataset.Columns * 3 * dataset.BitsAllocated // 8
    assert decoded.headers["Content-Type"].endswith("transfer-syntax=1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    ("frames", "status"), [("0", 400), ("x", 400), ("1,", 400), ("-1", 400), ("4", 404), ("1,2", 400)]
)
def test_frame_numbers_are_checked(archive, frames, status):
    archive.store(image(FRAMES))
    accept = {"Accept": "application/octet-stream; transfer-syntax=*"}
    assert archive.get(f"{INSTANCE}/frames/{frames}", accept).status_code == status


def test_an_instance_without_pixels_has_no_frames(archive):
    archive.store(instance())
    accept = {"Accept": "application/octet-stream; transfer-syntax=*"}
    assert archive.get(INSTANCE + "/frames/1", accept).status_code == 404
