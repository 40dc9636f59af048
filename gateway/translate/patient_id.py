"""Find out whether an instance has a Patient ID, if only an empty one: Azure's service refuses it otherwise."""

from typing import IO

from pydicom.uid import UID

from gateway.translate.encoding import BIG_ENDIAN, EXPLICIT, IMPLICIT, Reader, header
from gateway.translate.tokens import Kind, tokens

_PATIENT_ID = 0x00100020


def missing(stream: IO[bytes], transfer_syntax: str) -> tuple[int, bytes] | None:
    """Return where in the stream an empty Patient ID belongs and its bytes, None where there is one.

    The stream stands at the data set and can seek; a deflated data set is left alone. Raises DataSetError when it
    cannot be read that far.
    """
    syntax = UID(transfer_syntax)
    encoding = EXPLICIT
    if syntax.is_transfer_syntax:
        if syntax.is_deflated:
            return None
        if not syntax.is_little_endian:
            encoding = BIG_ENDIAN
        elif syntax.is_implicit_VR:
            encoding = IMPLICIT
    reader = Reader(stream, stream)
    at, level = reader.position, 0
    for token in tokens(reader, encoding):
        if level == 0 and token.tag >= _PATIENT_ID:
            if token.tag == _PATIENT_ID:
                return None
            break
        level += {Kind.SEQUENCE: 1, Kind.SEQUENCE_END: -1}.get(token.kind, 0)
        if level == 0:
            at = token.at + token.length
    return at, header(encoding, _PATIENT_ID, "LO", 0)
