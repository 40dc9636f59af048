"""Read rejection notes: Key Object Selections whose title rejects the instances they name (IHE RAD TF-2 4.66)."""

import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from pydicom.uid import UID

from gateway.errors import DataSetError
from gateway.translate import charset
from gateway.translate.encoding import Inflated, Reader
from gateway.translate.part10 import encoding_of
from gateway.translate.tokens import Kind, Token, tokens

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MOST_REFERENCES = 100_000
"""Instances that one note may name and be acted upon."""

_LONGEST_VALUE = 1024
_CHARACTER_SET, _PATIENT_ID = 0x00080005, 0x00100020
_TITLE, _CODE, _SCHEME = 0x0040A043, 0x00080100, 0x00080102
_EVIDENCE, _SERIES, _INSTANCES = 0x0040A375, 0x00081115, 0x00081199
_STUDY_UID, _SERIES_UID, _SOP_UID = 0x0020000D, 0x0020000E, 0x00081155
_ITEM_UIDS = {
    (_EVIDENCE,): _STUDY_UID,
    (_EVIDENCE, _SERIES): _SERIES_UID,
    (_EVIDENCE, _SERIES, _INSTANCES): _SOP_UID,
}  # where an item stands -> the UID that names it


class Title(NamedTuple):
    """Describe a document title: the option that says what it does, and whether a later copy is taken again."""

    option: str
    readmits: bool


TITLES: Mapping[str, Title] = MappingProxyType(
    {
        "113001": Title("quality", readmits=False),
        "113037": Title("safety", readmits=False),
        "113038": Title("worklist", readmits=False),
        "113039": Title("retention", readmits=True),
    }
)
"""Code Value (DCM, PS3.16 CID 7011) -> what it means here. What expired may be restored, what is wrong may not."""


class Reference(NamedTuple):
    """Name an instance that a note rejects."""

    study: str
    series: str
    sop_instance: str


class Note(NamedTuple):
    """Hold a rejection note: its title's code, its patient's digest, and what it rejects."""

    title: str
    patient: str
    references: tuple[Reference, ...]


def patient_digest(patient_id: str) -> str:
    """Make of a Patient ID what can be kept and compared without knowing it; spaces around it do not count."""
    return hashlib.sha256(patient_id.strip(" \0").encode()).hexdigest()


def read_patient_id(stream: BinaryIO, transfer_syntax: str) -> str:
    """Read an instance's Patient ID, the stream standing at the data set; raises DataSetError."""
    found: dict[int, bytes] = {}
    level = 0
    reader, walk = _opened(stream, transfer_syntax)
    for token in walk:
        if level == 0 and token.tag > _PATIENT_ID:
            break
        level += {Kind.SEQUENCE: 1, Kind.SEQUENCE_END: -1}.get(token.kind, 0)
        if level == 0 and token.tag in (_CHARACTER_SET, _PATIENT_ID):
            found[token.tag] = _value(token, reader)
    return _patient_id(found)


def read_note(stream: BinaryIO, transfer_syntax: str) -> Note | None:
    """Read a note, the stream standing at a Key Object Selection's data set; None when its title rejects nothing.

    Current Requested Procedure Evidence Sequence has to list all that the note names (PS3.3 C.17.6.2). Raises
    DataSetError when it cannot be read or names more than MOST_REFERENCES.
    """
    root: dict[int, bytes] = {}
    title: dict[int, str] = {}
    evidence = _Evidence()
    path: list[int] = []
    reader, walk = _opened(stream, transfer_syntax)
    for token in walk:
        if token.kind is Kind.SEQUENCE:
            path.append(token.tag)
        elif token.kind is Kind.SEQUENCE_END:
            path.pop()
        elif token.kind is Kind.ELEMENT and path == [_TITLE]:
            title[token.tag] = _text(_value(token, reader))
        elif token.kind is Kind.ELEMENT and not path and token.tag in (_CHARACTER_SET, _PATIENT_ID):
            root[token.tag] = _value(token, reader)
        elif path and path[0] == _EVIDENCE:
            evidence.take(tuple(path), token, reader)
    if title.get(_SCHEME) != "DCM" or title.get(_CODE) not in TITLES:
        return None
    return Note(title[_CODE], patient_digest(_patient_id(root)), tuple(evidence.references))


class _Evidence:
    """Collect references from the inside out: in order of tags, an item's own UID comes after what it holds."""

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self._uids: dict[int, str] = {}
        self._series_from = self._study_from = 0

    def take(self, path: tuple[int, ...], token: Token, reader: Reader) -> None:
        wanted = _ITEM_UIDS.get(path)
        if wanted is None:
            return
        if token.kind is Kind.ITEM:
            self._uids.pop(wanted, None)
        elif token.kind is Kind.ELEMENT and token.tag == wanted:
            self._uids[wanted] = _text(_value(token, reader))
        elif token.kind is Kind.ITEM_END:
            self._close(wanted, self._uids.get(wanted, ""))

    def _close(self, kind: int, uid: str) -> None:
        if not uid:
            raise DataSetError("a reference of the note has no UID")
        references = self.references
        if kind == _SOP_UID:
            if len(references) >= MOST_REFERENCES:
                raise DataSetError(f"the note names more than {MOST_REFERENCES} instances")
            references.append(Reference("", "", uid))
        elif kind == _SERIES_UID:
            references[self._series_from :] = [one._replace(series=uid) for one in references[self._series_from :]]
            self._series_from = len(references)
        else:
            references[self._study_from :] = [one._replace(study=uid) for one in references[self._study_from :]]
            self._study_from = len(references)


def _opened(stream: BinaryIO, transfer_syntax: str) -> tuple[Reader, Iterator[Token]]:
    syntax = UID(transfer_syntax)
    deflated = syntax.is_transfer_syntax and syntax.is_deflated
    reader = Reader(Inflated(stream), None) if deflated else Reader(stream, stream)
    return reader, tokens(reader, encoding_of(syntax))


def _value(token: Token, reader: Reader) -> bytes:
    if token.kind is not Kind.ELEMENT or token.length > _LONGEST_VALUE:
        return b""
    return reader.take(token.length) if token.length else b""


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _patient_id(found: Mapping[int, bytes]) -> str:
    terms = [charset.defined_term(term) for term in _text(found.get(_CHARACTER_SET, b"")).split("\\")]
    known = [term for term in terms if term is not None]
    return charset.decode(found.get(_PATIENT_ID, b""), known, errors="replace")
