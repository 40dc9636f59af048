"""Whatever goes wrong: the right status or rejection, a next association that works, one line in the log."""

from pathlib import Path

import dcmtk
import processes
import pydicom.data
import pytest
from bench import wire
from pydicom import dcmread

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
STUDY = str(dcmread(CT).StudyInstanceUID)
PATIENT_DATA = [str(dcmread(CT)[keyword].value) for keyword in ("PatientName", "PatientID", "StudyDate")]


@pytest.fixture
def said(gateway, log_lines):
    """Give the log lines since the test began; the next association must work and no patient be named."""
    before = len(log_lines(gateway))

    def said(**fields):
        def found():
            return [line for line in log_lines(gateway)[before:] if fields.items() <= line.items()]

        # the line is written after the response
        processes.await_true(found, 5, f"a log line with {fields}")
        lines = found()
        assert not [value for value in PATIENT_DATA if value in str(lines)]
        assert dcmtk.echoscu(gateway.port).status == 0x0000
        return lines

    return said


def test_a_wrong_called_ae_title_is_rejected(gateway, said):
    result = dcmtk.echoscu(gateway.port, called="NOBODY")
    assert result.rejected
    assert "Called AE Title Not Recognized" in result.output
    (line,) = said(event="association rejected", called="NOBODY")
    assert "ae_titles" in line["reason"]


def test_an_unknown_peer_is_rejected(gateway, said):
    result = dcmtk.echoscu(gateway.port, calling="STRANGER")
    assert result.rejected
    assert "Calling AE Title Not Recognized" in result.output
    (line,) = said(event="association rejected", calling="STRANGER")
    assert "peers" in line["reason"]


def test_an_unknown_move_destination_is_a801(gateway, said):
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
    assert dcmtk.movescu(gateway.port, "NOWHERE", *keys, model="S").status == 0xA801
    (line,) = said(event="C-MOVE", status="A801H")
    assert line["destination"] == "NOWHERE"


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("S", ("PatientName=Doe*",)),
        ("S", ("QueryRetrieveLevel=NONSENSE", "PatientName=Doe*")),
        ("S", ("QueryRetrieveLevel=PATIENT", "PatientID=1CT1")),
        ("S", ("QueryRetrieveLevel=SERIES", "SeriesInstanceUID")),
    ],
    ids=["no level", "unknown level", "a level that the model lacks", "no unique key of the level above"],
)
def test_a_malformed_identifier_of_a_query_is_a900(gateway, said, model, keys):
    result = dcmtk.findscu(gateway.port, *keys, model=model)
    assert result.statuses == [0xA900]
    assert "Error Comment" in result.output or "(0000,0902)" in result.output
    (line,) = said(event="C-FIND", status="A900H")
    assert line["reason"]


@pytest.mark.parametrize(
    "keys",
    [
        (f"StudyInstanceUID={STUDY}",),
        ("QueryRetrieveLevel=STUDY", "StudyInstanceUID"),
        ("QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.*"),
        ("QueryRetrieveLevel=STUDY", "PatientID=1CT1"),
    ],
    ids=["no level", "empty unique key", "wildcard", "no unique key"],
)
def test_a_malformed_identifier_of_a_retrieve_is_a900(gateway, receiver, said, keys, tmp_path):
    assert dcmtk.movescu(gateway.port, receiver.title, *keys, model="S").status == 0xA900
    assert len(said(event="C-MOVE", status="A900H")) == 1
    assert dcmtk.getscu(gateway.port, tmp_path, *keys, model="S").status == 0xA900
    assert len(said(event="C-GET", status="A900H")) == 1
    assert not receiver.files


def test_an_identifier_that_is_no_data_set_cannot_be_processed(gateway, said):
    connection = wire.associate(
        "127.0.0.1", gateway.port, "GATEWAY", "DCMTK", [(wire.STUDY_ROOT_FIND, wire.EXPLICIT_LE)]
    )
    request = wire.command(wire.C_FIND, 1, wire.STUDY_ROOT_FIND)
    connection.send(
        (
            wire.p_data(1, request, 16_384, is_command=True),
            wire.p_data(1, b"\x08\x00\x52\x00CS\xff\xff cut", 16_384, is_command=False),
        )
    )
    assert wire.answer(connection) == 0xC005
    wire.release(connection)
    assert len(said(event="C-FIND", status="C005H")) == 1


def test_a_destination_that_is_down_is_a702(gateway, said):
    assert dcmtk.storescu(gateway.port, CT).status == 0x0000
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
    result = dcmtk.movescu(gateway.port, "ABSENT", *keys, model="S")
    assert result.status == 0xA702
    assert result.counters[-1]["failed"] == 1
    (line,) = said(event="C-MOVE", status="A702H")
    assert line["destination"] == "ABSENT"
