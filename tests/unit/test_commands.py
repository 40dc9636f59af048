from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom.dimse_messages import C_MOVE_RSP
from pynetdicom.dimse_primitives import C_MOVE

from gateway.dimse import commands
from gateway.dimse.pdu import PduError


def test_a_command_set_of_pynetdicom_is_read() -> None:
    primitive = C_MOVE()
    primitive.MessageIDBeingRespondedTo = 7
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.2.2.2"
    primitive.Status = 0xFF00
    primitive.NumberOfRemainingSuboperations = 3
    message = C_MOVE_RSP()
    message.primitive_to_message(primitive)
    raw = next(message.encode_msg(1, 0)).presentation_data_value_list[0][1][1:]
    command = commands.decode(raw)
    assert command["Status"] == 0xFF00
    assert command["NumberOfRemainingSuboperations"] == 3
    assert command["AffectedSOPClassUID"] == "1.2.840.10008.5.1.4.1.2.2.2"


def test_what_is_written_is_read_by_pydicom_and_by_ourselves() -> None:
    command: commands.Command = {
        "AffectedSOPClassUID": "1.2.840.10008.1.1",
        "CommandField": commands.C_ECHO_RSP,
        "MessageIDBeingRespondedTo": 65_535,
        "CommandDataSetType": commands.DATA_SET_ABSENT,
        "Status": 0xA700,
        "ErrorComment": "disk is full",
    }
    raw = commands.encode(command)
    theirs = read_dataset(BytesIO(raw), is_implicit_VR=True, is_little_endian=True)
    assert theirs[0x0000, 0x0000].value == len(raw) - 12
    assert theirs.ErrorComment == "disk is full"
    assert commands.decode(raw) == command


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read_but_never_break(raw: bytes) -> None:
    try:
        assert "CommandField" in commands.decode(raw)
    except PduError as error:
        assert str(error)


def test_a_command_set_without_command_field_is_refused() -> None:
    with pytest.raises(PduError):
        commands.decode(commands.encode({"MessageID": 1}))


def test_a_response_that_says_no_status_says_no_success() -> None:
    assert commands.status({"Status": 0x0000}) == 0x0000
    assert commands.status({"Status": 0xB000}) == 0xB000
    assert commands.status({"MessageIDBeingRespondedTo": 1}) == 0x0110
