"""Read and write DIMSE command sets (PS3.7 6.3 and Annex E): Implicit VR Little Endian, group 0000."""

import struct
from collections.abc import Mapping

from gateway.dimse.pdu import PduError
from gateway.status import PROCESSING_FAILURE

Command = dict[str, int | str]

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_GET_RQ, C_GET_RSP = 0x0010, 0x8010
C_FIND_RQ, C_FIND_RSP = 0x0020, 0x8020
C_MOVE_RQ, C_MOVE_RSP = 0x0021, 0x8021
C_ECHO_RQ, C_ECHO_RSP = 0x0030, 0x8030
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
N_ACTION_RQ, N_ACTION_RSP = 0x0130, 0x8130
C_CANCEL_RQ = 0x0FFF

DATA_SET_ABSENT = 0x0101
DATA_SET_PRESENT = 0x0001

# element of group 0000 -> (keyword, VR); PS3.7 Table E.1-1
_ELEMENTS = {
    0x0002: ("AffectedSOPClassUID", "UI"),
    0x0003: ("RequestedSOPClassUID", "UI"),
    0x0100: ("CommandField", "US"),
    0x0110: ("MessageID", "US"),
    0x0120: ("MessageIDBeingRespondedTo", "US"),
    0x0600: ("MoveDestination", "AE"),
    0x0700: ("Priority", "US"),
    0x0800: ("CommandDataSetType", "US"),
    0x0900: ("Status", "US"),
    0x0901: ("OffendingElement", "AT"),
    0x0902: ("ErrorComment", "LO"),
    0x0903: ("ErrorID", "US"),
    0x1000: ("AffectedSOPInstanceUID", "UI"),
    0x1001: ("RequestedSOPInstanceUID", "UI"),
    0x1002: ("EventTypeID", "US"),
    0x1008: ("ActionTypeID", "US"),
    0x1020: ("NumberOfRemainingSuboperations", "US"),
    0x1021: ("NumberOfCompletedSuboperations", "US"),
    0x1022: ("NumberOfFailedSuboperations", "US"),
    0x1023: ("NumberOfWarningSuboperations", "US"),
    0x1030: ("MoveOriginatorApplicationEntityTitle", "AE"),
    0x1031: ("MoveOriginatorMessageID", "US"),
}
_ORDER = {keyword: (element, vr) for element, (keyword, vr) in sorted(_ELEMENTS.items())}
_HEADER = struct.Struct("<HHI")


def decode(data: bytes) -> Command:
    """Read a command set; text is ASCII without padding, elements that no service here uses are left out.

    Raises PduError when it is cut or has no Command Field.
    """
    command: Command = {}
    offset, end = 0, len(data)
    while offset < end:
        if offset + 8 > end:
            raise PduError("the command set is cut")
        group, element, length = _HEADER.unpack_from(data, offset)
        offset += 8
        if group != 0 or offset + length > end:
            raise PduError("the command set is malformed")
        if element in _ELEMENTS:
            keyword, vr = _ELEMENTS[element]
            command[keyword] = _value(data[offset : offset + length], vr)
        offset += length
    if "CommandField" not in command:
        raise PduError("the command set has no Command Field")
    return command


def encode(command: Mapping[str, int | str]) -> bytes:
    """Write a command set with its group length (PS3.7 6.3.1)."""
    parts = []
    for keyword, (element, vr) in _ORDER.items():
        if keyword in command:
            value = _bytes(command[keyword], vr)
            parts.append(_HEADER.pack(0, element, len(value)) + value)
    body = b"".join(parts)
    return _HEADER.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def response(request: Command, status: int, comment: str = "") -> Command:
    """Make the response to a request, without data set (PS3.7 chapters 9.3 and 10.3)."""
    answer: Command = {
        "CommandField": number(request, "CommandField") | 0x8000,
        "MessageIDBeingRespondedTo": number(request, "MessageID"),
        "CommandDataSetType": DATA_SET_ABSENT,
        "Status": status,
    }
    for requested, affected in _ECHOED:
        if requested in request:
            answer[affected] = request[requested]
    if comment:
        answer["ErrorComment"] = comment
    return answer


_ECHOED = (
    ("AffectedSOPClassUID", "AffectedSOPClassUID"),
    ("AffectedSOPInstanceUID", "AffectedSOPInstanceUID"),
    ("RequestedSOPClassUID", "AffectedSOPClassUID"),
    ("RequestedSOPInstanceUID", "AffectedSOPInstanceUID"),
    ("ActionTypeID", "ActionTypeID"),
    ("EventTypeID", "EventTypeID"),
)


def number(command: Command, keyword: str) -> int:
    """Give a numeric element, 0 when it is absent."""
    value = command.get(keyword, 0)
    return value if isinstance(value, int) else 0


def status(response: Command) -> int:
    """Give the Status of a response; one that lacks it says no success (PS3.7 9.3), so it is a processing failure."""
    return number(response, "Status") if "Status" in response else PROCESSING_FAILURE


def text(command: Command, keyword: str) -> str:
    """Give a text element, empty when it is absent."""
    value = command.get(keyword, "")
    return value if isinstance(value, str) else ""


def _value(raw: bytes, vr: str) -> int | str:
    if vr == "US":
        if len(raw) != 2:
            raise PduError("a number of the command set has a wrong length")
        return int.from_bytes(raw, "little")
    if vr == "AT":
        return int.from_bytes(raw[:2], "little") << 16 | int.from_bytes(raw[2:4], "little")
    return raw.decode("ascii", "replace").strip(" \0")


def _bytes(value: int | str, vr: str) -> bytes:
    if vr == "US":
        return struct.pack("<H", value)
    if vr == "AT":
        tag = int(value)
        return struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    raw = str(value).encode("ascii", "replace")
    padding = b"\0" if vr == "UI" else b" "
    return raw if len(raw) % 2 == 0 else raw + padding
