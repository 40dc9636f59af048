import io

import pytest
from embedded_archive import instance
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.errors import DataSetError
from gateway.translate.part10 import read_file_meta
from gateway.translate.patient_id import missing


def opened(file: bytes) -> io.BytesIO:
    stream = io.BytesIO(file)
    stream.seek(read_file_meta(stream).offset)
    return stream


def nested(*, undefined: bool) -> Sequence:
    item = Dataset()
    item.PatientID = "of somebody else"
    item.StudyInstanceUID = "1.2"
    item.is_undefined_length_sequence_item = undefined
    sequence = Sequence([item, Dataset()])
    sequence.is_undefined_length = undefined
    return sequence


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [True, False])
def test_an_empty_patient_id_goes_to_its_place_whatever_stands_before_it(syntax: str, undefined: bool) -> None:
    file = instance(PatientID=None, syntax=syntax, ReferencedStudySequence=nested(undefined=undefined))
    found = missing(opened(file), syntax)
    assert found is not None
    at, element = found
    mended = dcmread(io.BytesIO(file[:at] + element + file[at:]))
    assert mended.PatientID == ""
    before = dcmread(io.BytesIO(file))
    assert [e.tag for e in mended] == sorted([*(e.tag for e in before), 0x00100020])
    assert [e.tag for e in dcmread(io.BytesIO(file[:at]))] == [e.tag for e in before if e.tag < 0x00100020]
    del mended.PatientID
    assert mended == before


def test_at_the_end_of_a_data_set_it_is_added_there() -> None:
    kept = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "PatientID": None}
    file = instance(**kept)  # type: ignore[arg-type]
    assert missing(opened(file), ExplicitVRLittleEndian) == (len(file), b"\x10\x00\x20\x00LO\x00\x00")


@pytest.mark.parametrize("value", ["", "ID1"])
def test_what_is_there_is_left_alone(value: str) -> None:
    assert missing(opened(instance(PatientID=value)), ExplicitVRLittleEndian) is None


def test_a_deflated_data_set_is_left_alone() -> None:
    file = instance(PatientID=None, syntax=DeflatedExplicitVRLittleEndian)
    assert missing(opened(file), DeflatedExplicitVRLittleEndian) is None


def test_nonsense_is_told() -> None:
    with pytest.raises(DataSetError):
        missing(io.BytesIO(b"nonsense, and more of it"), ExplicitVRLittleEndian)
