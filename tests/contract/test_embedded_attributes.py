"""What the embedded archive makes of attributes that are no values of their VR, by version of the service."""

import io

import pytest
from embedded_archive import instance, multipart, parts, reasons, running, values
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from gateway.embedded.validation import findings

RELATED = "multipart/related; boundary=b"
INSTANCE = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"


@pytest.fixture
def archive(tmp_path):
    with running(tmp_path) as caller:
        yield caller


def raw(file, old, new):
    """Put bytes of the same length into a file: what no library would write."""
    assert file.count(old) == 1
    assert len(old) == len(new)
    return file.replace(old, new)


def stored(answer):
    [item] = values(answer.json(), "00081199")
    return item


def comments(item):
    return [values(finding, "00000902")[0] for finding in values(item, "00741048")]


def test_version_2_stores_an_invalid_attribute_but_neither_finds_nor_shows_it(archive):
    file = raw(instance(), b"20240102", b"20241302")
    answer = archive.store(file)
    assert answer.status_code == 202
    assert values(stored(answer), "00081196") == [1]
    assert comments(stored(answer)) == ["DICOM100: (0008,0020) - the value is not of VR DA"]
    assert (
        parts(archive.get("/studies/1.2.1", {"Accept": "multipart/related; transfer-syntax=*; type=*/*"}))[0][1]
        == file
    )
    assert "00080020" not in archive.get(INSTANCE + "/metadata").json()[0]
    assert "00080020" not in archive.get("/studies").json()[0]
    assert "00080020" not in archive.get("/studies?includefield=StudyTime").json()[0]
    assert archive.get("/studies?StudyDate=19000101-").status_code == 204


def test_version_1_refuses_an_invalid_attribute_that_it_indexes_and_lets_others_be(archive):
    def post(file):
        return archive.post(multipart([file]), RELATED, version="v1")

    refused = post(raw(instance(), b"20240102", b"20241302"))
    assert (refused.status_code, reasons(refused)) == (409, [43264])
    [item] = values(refused.json(), "00081198")
    assert comments(item) == ["DICOM100: (0008,0020) - the value is not of VR DA"]
    taken = post(raw(instance(SeriesDate="20240103"), b"20240103", b"20241303"))
    assert taken.status_code == 200
    assert "00741048" not in stored(taken)
    assert values(archive.get(INSTANCE + "/metadata").json()[0], "00080021") == ["20241303"]


def test_an_invalid_value_in_a_sequence_takes_the_attribute_of_the_data_set_away(archive):
    item = Dataset()
    item.Modality = "MR"
    file = raw(instance(RequestAttributesSequence=[item]), b"MR", b"mr")
    assert archive.store(file).status_code == 202
    [model] = archive.get(INSTANCE + "/metadata").json()
    assert "00080060" not in model
    assert values(values(model, "00400275")[0], "00080060") == ["mr"]


def test_several_values_where_one_is_indexed_are_warned_about(archive):
    answer = archive.store(instance(StudyDescription=["Head", "Neck"]), instance("1.2.2", sop="1.2.2.1"))
    assert answer.status_code == 200
    assert answer.headers["Warning"].startswith("299 ")
    assert archive.get("/studies?StudyDescription=head").status_code == 200
    assert archive.get("/studies?StudyDescription=neck").status_code == 204


@pytest.mark.parametrize(
    ("vr", "good", "bad"),
    [
        ("AE", ["GATEWAY", "A" * 16], ["A" * 17, "A\x07"]),
        ("AS", ["024Y", "003M"], ["24Y", "024y", "0240"]),
        ("CS", ["CT", "ISO_IR 100", ""], ["ct", "CT-1", "A" * 17]),
        ("DA", ["20240229"], ["2024.02.29", "20241301", "20240132", "2024", "2024022"]),
        ("DS", [1, 1.5], ["one"]),
        ("DT", ["2024", "20240229101500.123456+0100", "2024022910"], ["2024130", "2024022910150a", "20240229+99"]),
        ("IS", [0, -(2**31), 2**31 - 1], [2**31, "1.5"]),
        ("LO", ["x" * 64, "\x1b$B"], ["x" * 65, "a\nb"]),
        ("LT", ["x\r\n" * 100], ["x" * 10_241]),
        (
            "PN",
            [{"Alphabetic": "A^B^C^D^E"}, {"Ideographic": "x" * 64}],
            [{"Alphabetic": "A^B^C^D^E^F"}, {"Phonetic": "x" * 65}],
        ),
        ("SH", ["x" * 16], ["x" * 17]),
        ("ST", ["x" * 1024], ["x" * 1025]),
        ("TM", ["10", "1015", "235960", "101500.1"], ["24", "10:15", "101561", "1015.1", "101500."]),
        ("UI", ["1.2.0.3", "1" * 64], ["1.02", "1..2", ".1", "1" * 65, "a"]),
        ("US", [1], []),
        ("UN", [], []),
    ],
)
def test_values_are_judged_by_the_rules_of_their_vr(vr, good, bad):
    for value in [*good, None]:
        assert not list(findings({"00090010": {"vr": vr, "Value": [value]}})), value
    for value in bad:
        [(tag, text)] = findings({"00090010": {"vr": vr, "Value": [*good, value]}})
        assert (tag, text) == ("00090010", f"DICOM100: (0009,0010) - the value is not of VR {vr}"), value
    assert not list(findings({"00090010": {"vr": vr}}))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_metadata_come_from_every_encoding(archive, syntax):
    item = Dataset()
    item.CodeValue = "T-1"
    item.EncapsulatedDocument = b"12"
    file = instance(
        AnatomicRegionSequence=[item], NumberOfFrames=7, Rows=513, EncapsulatedDocument=b"12", syntax=syntax
    )
    assert archive.store(file).status_code == 200
    [model] = archive.get(INSTANCE + "/metadata").json()
    assert (values(model, "00280008"), values(model, "00280010")) == ([7], [513])
    assert values(model, "00082218") == [{"00080100": {"vr": "SH", "Value": ["T-1"]}}]
    assert "00420011" not in model


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_uids_are_digits_and_dots(archive, version):
    def post(uid):
        dataset = dcmread(io.BytesIO(instance()))
        dataset["SOPInstanceUID"].validation_mode = 0
        dataset.SOPInstanceUID = uid
        changed = io.BytesIO()
        dataset.save_as(changed, enforce_file_format=False)
        return archive.post(multipart([changed.getvalue()]), RELATED, version=version)

    for refused in ("1.2.a", "1.2.", "1" * 65, ""):
        assert reasons(post(refused)) == [43264], refused
    assert post("1.2.03").status_code == 200
    assert archive.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.03/metadata").status_code == 200
