"""Write and read the header of Part 10 files, and find an instance's UIDs in its data set (PS3.10 chapter 7)."""

import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom import config
from pydicom.uid import UID

from gateway.errors import DataSetError
from gateway.translate.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    SHORT_LENGTH,
    UNDEFINED,
    Encoding,
    Inflated,
    Reader,
    read_header,
)
from gateway.translate.tokens import NESTING, Kind, tokens

IMPLEMENTATION_CLASS_UID = "2.25.305828488182831875890203105390285383139"
IMPLEMENTATION_VERSION_NAME = "DICOMGATEWAY01"

_PREAMBLE = 128
_LONGEST_META = 1 << 16
_LONGEST_UID = 64
_UID = re.compile(r"[0-9][0-9.]{0,63}")  # PS3.5 9.1, but for zeros in front, which are met
_META = {0x00020002: "sop_class", 0x00020003: "sop_instance", 0x00020010: "transfer_syntax"}
_IDENTITY = {0x00080016: "sop_class", 0x00080018: "sop_instance", 0x0020000D: "study", 0x0020000E: "series"}
_LAST = 0x0020000E
_DELIMITERS = (ITEM_END, SEQUENCE_END)
_SHORT = frozenset(vr.encode() for vr in SHORT_LENGTH)
_SHORT_HEAD, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<I")
_LONGEST_HEAD = 12
_WINDOW = 4096  # bytes read at a time while going from header to header
_IMPLICIT_OF_GE = "1.2.840.113619.5.2"  # implicit VR with pixels in big endian


@dataclass(frozen=True, slots=True)
class FileMeta:
    """Hold what File Meta Information says; the data set begins at `offset`."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Hold the UIDs of a data set, empty where it has none."""

    study: str = ""
    series: str = ""
    sop_class: str = ""
    sop_instance: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether each of them is there and can stand in the URL of a resource."""
        return all(map(_UID.fullmatch, (self.study, self.series, self.sop_class, self.sop_instance)))


def file_header(sop_class: str, sop_instance: str, transfer_syntax: str, *, source_ae: str = "") -> bytes:
    """Make preamble, prefix and File Meta Information for a data set that follows (PS3.10 7.1)."""
    elements = [
        struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\x00\x01",
        _element(0x0002, b"UI", sop_class),
        _element(0x0003, b"UI", sop_instance),
        _element(0x0010, b"UI", transfer_syntax),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
    ]
    if source_ae:
        elements.append(_element(0x0016, b"AE", source_ae))
    body = b"".join(elements)
    return bytes(_PREAMBLE) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def read_file_meta(stream: BinaryIO) -> FileMeta:
    """Read File Meta Information from the start of a file; raises DataSetError when there is none."""
    if stream.read(_PREAMBLE + 4)[_PREAMBLE:] != b"DICM":
        raise DataSetError("the file does not begin like a Part 10 file")
    reader = Reader(stream, stream)
    begin, found = reader.position, dict.fromkeys(_META.values(), "")
    while True:
        offset = reader.position
        group = stream.read(2)  # what follows File Meta may be implicit or deflated: no header to our eyes
        stream.seek(offset)
        head = read_header(reader, EXPLICIT) if group == b"\x02\x00" else None
        if head is None:
            break
        tag, _, length = head
        if reader.position + length > begin + _LONGEST_META:
            raise DataSetError("the File Meta Information is too long")
        value = reader.take(length) if length else b""
        if tag in _META:
            found[_META[tag]] = _uid(value)
    if not found["transfer_syntax"]:
        raise DataSetError("the File Meta Information names no transfer syntax")
    return FileMeta(**found, offset=offset)


def read_identity(stream: BinaryIO, transfer_syntax: str) -> Identity:
    """Read the UIDs of the data set at the stream's position, and see that it is not cut.

    Values are skipped, nothing is held. Raises DataSetError when it cannot be read up to the Series Instance
    UID or ends in the middle of an element; what is odd behind the UIDs is the archive's to judge.
    """
    syntax = UID(transfer_syntax, config.IGNORE)  # it is the peer's: whatever stands there, no warning
    deflated = syntax.is_transfer_syntax and syntax.is_deflated
    encoding = encoding_of(syntax)
    begin = None if deflated else stream.tell()
    if begin is not None and encoding.order == "<":
        found = _walk(stream, explicit=encoding.explicit)
        if found is not None:
            return found
        stream.seek(begin)
    return _read_identity(stream, encoding, deflated=deflated)


def _read_identity(stream: BinaryIO, encoding: Encoding, *, deflated: bool) -> Identity:
    reader = Reader(Inflated(stream), None) if deflated else Reader(stream, stream)
    end = None if deflated else _end(stream)
    found: dict[str, str] = {}
    level, passed, cut = 0, False, False
    try:
        for token in tokens(reader, encoding):
            level += {Kind.SEQUENCE: 1, Kind.SEQUENCE_END: -1}.get(token.kind, 0)
            if token.kind is not Kind.ELEMENT:
                continue
            cut = end is not None and token.at + token.length > end
            if cut:
                raise DataSetError("the data set is cut")
            passed = passed or (level == 0 and token.tag >= _LAST)
            if level == 0 and token.tag in _IDENTITY and token.length <= _LONGEST_UID:
                found[_IDENTITY[token.tag]] = _uid(reader.take(token.length))
    except DataSetError:
        if not passed or deflated or cut or stream.tell() >= (end or 0):
            raise
    return Identity(**found)


def _walk(stream: BinaryIO, *, explicit: bool) -> Identity | None:
    """Go from header to header in little endian, five times as fast as tokens come; None where only they can tell.

    That is when anything is out of the ordinary or cut. The levels need not be told apart: each item and sequence
    of undefined length goes one deeper, its delimiter one back, and all else has a length to skip.
    """
    base = at = stream.tell()
    window, level = stream.read(_WINDOW), 0
    end = stream.seek(0, os.SEEK_END)
    found: dict[str, str] = {}
    while at < end:
        if at + _LONGEST_HEAD + _LONGEST_UID > base + len(window) < end:
            stream.seek(at)
            base, window = at, stream.read(_WINDOW)
        head = _head(window, at - base, explicit=explicit)
        if head is None:
            return None
        tag, vr, length, size = head
        at += size
        if tag in _DELIMITERS:
            level -= 1
        elif length == UNDEFINED:
            level += 1
        else:
            if level == 0 and tag in _IDENTITY and length <= _LONGEST_UID:
                found[_IDENTITY[tag]] = _uid(window[at - base : at - base + length])
            at += length
        # without VRs inside, outside of a sequence, or deeper than tokens go
        if (vr == b"UN" and length == UNDEFINED) or (level <= 0 and tag >> 16 == 0xFFFE and tag != SEQUENCE_END):
            return None
        if not 0 <= level <= 2 * NESTING:
            return None
    return Identity(**found) if at == end and level == 0 else None


def _head(window: bytes, at: int, *, explicit: bool) -> tuple[int, bytes, int, int] | None:
    """Read an element's header: tag, VR, length of the value and of the header; None when it is none."""
    if at + 8 > len(window):
        return None
    group, element, vr, short = _SHORT_HEAD.unpack_from(window, at)
    if explicit and group != 0xFFFE:
        if vr in _SHORT:
            return group << 16 | element, vr, short, 8
        if not (vr.isalpha() and vr.isupper()) or at + 12 > len(window):
            return None
        return group << 16 | element, vr, _LENGTH.unpack_from(window, at + 8)[0], 12
    return group << 16 | element, b"", _LENGTH.unpack_from(window, at + 4)[0], 8


def _end(stream: BinaryIO) -> int:
    position = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return end


def encoding_of(syntax: UID) -> Encoding:
    """Say how a data set in a transfer syntax is encoded, apart from its deflation; guessed for unknown ones."""
    if syntax == _IMPLICIT_OF_GE:
        return IMPLICIT
    if not syntax.is_transfer_syntax:
        return EXPLICIT  # of another maker, or younger than the dictionary: as all but the oldest are
    if syntax.is_implicit_VR:
        return IMPLICIT
    return EXPLICIT if syntax.is_little_endian else BIG_ENDIAN


def _element(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    raw += b"\0" * (len(raw) % 2) if vr == b"UI" else b" " * (len(raw) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(raw)) + raw


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")
