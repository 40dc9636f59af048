"""The door between the DICOM JSON model and data sets (PS3.18 F)."""

import json
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from gateway.translate.dicom_json import from_dataset, to_dataset
from gateway.translate.identifier import encode_identifier

FOLDERS = ("test_files", "charset_files")
FILES = [path for name in FOLDERS for path in sorted((Path(pydicom.__file__).parent / "data" / name).glob("*.dcm"))]


def come_through(tag, **element):
    dataset, lost = to_dataset({tag: element})
    assert lost == 0
    return dataset[tag].value or ""


@pytest.mark.parametrize(
    ("tag", "element", "value"),
    [
        ("00100010", {"vr": "PN", "Value": [{"Alphabetic": "A", "Ideographic": None, "Phonetic": "C"}]}, "A==C"),
        ("00100010", {"vr": "PN", "Value": [{"Ideographic": "B"}]}, "=B"),
        ("00100010", {"vr": "PN", "Value": [{"Alphabetic": None}]}, ""),
        ("00100010", {"vr": "PN", "Value": ["A^B"]}, "A^B"),
        ("00100010", {"vr": "PN", "Value": [None]}, ""),
        ("00100010", {"vr": "PN"}, ""),
        ("00081070", {"vr": "PN", "Value": [{"Alphabetic": "A"}, None, {"Alphabetic": "C"}]}, ["A", "", "C"]),
        ("00200013", {"vr": "IS", "Value": ["7"]}, 7),
        ("00200013", {"vr": "IS", "Value": [7.0]}, 7),
        ("00200013", {"vr": "IS", "Value": ["7.0"]}, 7),
        ("00101030", {"vr": "DS", "Value": ["70.5"]}, 70.5),
        ("00101030", {"vr": "DS", "Value": [70.5]}, 70.5),
        ("00280010", {"vr": "US", "Value": ["512"]}, 512),
        ("00280010", {"vr": "US", "Value": [512.0]}, 512),
        ("00080020", {"vr": "DA", "Value": [20200101]}, "20200101"),
        ("00100020", {"vr": "LO", "Value": [12]}, "12"),
        ("00100020", {"vr": "UC", "Value": ["12"]}, "12"),
        ("00080061", {"vr": "CS", "Value": ["CT", None, "MR"]}, ["CT", "", "MR"]),
        ("00324000", {"vr": "LT", "Value": ["a\\b"]}, "a\\b"),
        ("00720082", {"vr": "SV", "Value": ["-9223372036854775808"]}, -(2**63)),
        ("00720083", {"vr": "UV", "Value": [18446744073709551615]}, 2**64 - 1),
        ("0020000d", {"vr": "UI", "Value": ["1.2"]}, "1.2"),
        ("00209165", {"vr": "AT", "Value": ["00209056"]}, 0x00209056),
        ("00091001", {"vr": "UN", "InlineBinary": "AAE="}, b"\0\1"),
        ("00720074", {"vr": "FD", "Value": ["-Infinity"]}, float("-inf")),
    ],
)
def test_odd_but_clear_attributes_come_through(tag, element, value):
    assert come_through(tag, **element) == value


@pytest.mark.parametrize("number", [1 / 3, -1e-300, 123456789.123456789, 1e22, "0.333333333333333333", -(10**15)])
def test_a_decimal_string_is_shortened_without_losing_more_than_it_must(number):
    value = come_through("00101030", vr="DS", Value=[number])
    assert len(str(value)) <= 16
    assert float(value) == pytest.approx(float(number), rel=1e-8)


@pytest.mark.parametrize(
    "element",
    [
        None,
        "A",
        {"vr": None, "Value": [[]]},
        {"vr": "PN", "Value": [5]},
        {"vr": "PN", "Value": [{"Alphabetic": ["A"]}]},
        {"vr": "PN", "Value": [{"Alphabetic": "\ud800"}]},
        {"vr": "PN", "InlineBinary": "AAE="},
    ],
)
def test_a_malformed_attribute_is_lost_and_counted(element):
    dataset, lost = to_dataset({"00100010": element, "00100020": {"vr": "LO", "Value": ["1"]}})
    assert (lost, dataset.PatientID, "PatientName" in dataset) == (1, "1", False)


@pytest.mark.parametrize(
    ("tag", "element"),
    [
        ("00080020", {"vr": "DA", "Value": ["২০২০"]}),
        ("00200013", {"vr": "IS", "Value": ["seven"]}),
        ("00200013", {"vr": "IS", "Value": [7.5]}),
        ("00200013", {"vr": "IS", "Value": [10**13]}),
        ("00101030", {"vr": "DS", "Value": [float("nan")]}),
        ("00280010", {"vr": "US", "Value": [-1]}),
        ("00280010", {"vr": "US", "Value": [None]}),
        ("00280010", {"vr": "US", "Value": [True]}),
        ("00209165", {"vr": "AT", "Value": ["x"]}),
        ("00091001", {"vr": "UN", "InlineBinary": "?"}),
        ("00400275", {"vr": "SQ", "Value": ["x"]}),
        ("0010001", {"vr": "LO"}),
        ("00020010", {"vr": "UI", "Value": ["1.2"]}),
        ("FFFEE000", {"vr": "OB"}),
    ],
)
def test_what_no_vr_allows_is_lost_and_counted(tag, element):
    dataset, lost = to_dataset({tag: element})
    assert lost == 1
    assert list(dataset.keys()) == [0x00080005]


def test_losses_inside_sequences_are_counted_and_spare_the_rest():
    item = {"00400007": {"vr": "LO", "Value": ["kept"]}, "00400009": {"vr": "SH", "Value": [[]]}}
    dataset, lost = to_dataset({"00400275": {"vr": "SQ", "Value": [item, None, {}]}})
    assert lost == 1
    assert [len(one) for one in dataset.RequestAttributesSequence] == [1, 0, 0]


def test_bulk_data_left_behind_a_uri_is_dropped_and_not_counted():
    dataset, lost = to_dataset({"7FE00010": {"vr": "OW", "BulkDataURI": "../bulk/1"}})
    assert (lost, "PixelData" in dataset) == (0, False)


def test_nesting_without_end_is_cut():
    model = {"vr": "SQ", "Value": []}
    for _ in range(200):
        model = {"vr": "SQ", "Value": [{"00081110": model}]}
    _, lost = to_dataset({"00081110": model})
    assert lost == 1


def test_the_data_set_is_in_utf_8_whatever_the_model_says():
    dataset, _ = to_dataset(
        {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, "00100010": {"vr": "PN", "Value": ["Люк"]}}
    )
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert str(dataset.PatientName) == "Люк"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_sample_file_passes_both_ways(path):
    dataset = pydicom.dcmread(path, force=True)
    model = json.loads(json.dumps(from_dataset(dataset, bulk=True), allow_nan=False))
    again, lost = to_dataset(model)
    known_damage = {"badVR", "bad_sequence", "explicit_VR-UN"}
    assert lost == 0 or path.stem in known_damage
    returned = from_dataset(again, bulk=True)
    model["00080005"] = returned["00080005"]
    assert lost or without_charset(returned) == without_charset(model)


def without_charset(model):
    """Leave out (0008,0005) of items: those of JSON need none."""
    return {
        tag: {**element, "Value": [without_charset(item) for item in element["Value"]]}
        if element["vr"] == "SQ" and "Value" in element
        else element
        for tag, element in model.items()
        if tag != "00080005"
    }


@pytest.mark.parametrize("name", ["CT_small", "MR_small", "rtplan", "reportsi", "MR_small_bigendian", "priv_SQ"])
def test_the_model_is_pydicom_s(name):
    (path,) = [one for one in FILES if one.stem == name]
    dataset = pydicom.dcmread(path)
    assert comparable(from_dataset(dataset, bulk=False)) == comparable(dataset.to_json_dict())


def comparable(model):
    """Leave out bulk data, group lengths and the character set, and compare numbers as numbers."""
    return {
        tag: [comparable(item) if element["vr"] == "SQ" else item for item in element.get("Value", [])]
        for tag, element in model.items()
        if element["vr"] not in ("OB", "OW", "UN", "OF") and tag != "00080005" and not tag.endswith("0000")
    }


def test_bulk_data_are_dropped_at_all_depths():
    item = Dataset()
    item.add_new(0x00189004, "CS", "A")
    item.add_new(0x00091001, "UN", b"\0\1")
    dataset = Dataset()
    dataset.PixelData = b"\0\1"
    dataset["PixelData"].VR = "OW"
    dataset.ReferencedStudySequence = [item]
    assert from_dataset(dataset, bulk=False) == {
        "00081110": {"vr": "SQ", "Value": [{"00189004": {"vr": "CS", "Value": ["A"]}}]}
    }
    assert from_dataset(dataset, bulk=True)["7FE00010"] == {"vr": "OW", "InlineBinary": "AAE="}


def test_words_are_little_endian_in_json(tmp_path):
    dataset = Dataset()
    dataset.PixelData = b"\1\2\3\4"
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "x.dcm", dataset, enforce_file_format=False)
    read = pydicom.dcmread(tmp_path / "x.dcm", force=True)
    assert from_dataset(read, bulk=True)["7FE00010"]["InlineBinary"] == "AgEEAw=="


def test_words_are_swapped_for_a_big_endian_identifier():
    dataset, _ = to_dataset({"00091001": {"vr": "OW", "InlineBinary": "AgEEAw=="}})
    assert encode_identifier(dataset, ExplicitVRBigEndian).endswith(b"\1\2\3\4")
    assert encode_identifier(dataset, ExplicitVRLittleEndian).endswith(b"\2\1\4\3")


def test_numbers_that_json_has_not_are_texts():
    dataset = Dataset()
    dataset.add_new(0x00720074, "FD", [float("nan"), float("inf"), 1.5])
    model = from_dataset(dataset, bulk=False)
    assert json.loads(json.dumps(model, allow_nan=False))["00720074"]["Value"] == ["NaN", "inf", 1.5]


def test_bytes_that_are_no_values_of_their_vr_are_left_out():
    dataset = Dataset()
    dataset[0x00280010] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00280010), "US", 3, b"\0\1\2", 0, False, True
    )
    dataset.PatientID = "1"
    assert list(from_dataset(dataset, bulk=False)) == ["00100020"]
