"""Write and read the header of Part 10 files, and find an instance's UIDs in its data set (PS3.10 chapter 7)."""

import os
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
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
_LONGEST_ELEMENT = 12 + _LONGEST_UID  # of those that are read: header and UID
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
    if (going := walk(transfer_syntax)) is not None:
        begin = stream.tell()
        if (found := _walked(stream, going)) is not None:
            return found
        stream.seek(begin)
    encoding, deflated = _encoded(transfer_syntax)
    return _read_identity(stream, encoding, deflated=deflated)


@lru_cache(maxsize=64)
def _encoded(transfer_syntax: str) -> tuple[Encoding, bool]:
    """Say how a data set is encoded, and whether it is deflated."""
    syntax = UID(transfer_syntax, config.IGNORE)  # it is the peer's: whatever stands there, no warning
    return encoding_of(syntax), bool(syntax.is_transfer_syntax and syntax.is_deflated)


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


class Walk:
    """Go from header to header of a data set in little endian, several times as fast as tokens come.

    It ends early where anything is out of the ordinary: only tokens can tell then. The levels need not be told apart:
    each item and sequence of undefined length goes one deeper, its delimiter one back, and all else has a length to
    skip. `at` is where the next header begins, in bytes from the data set's begin.
    """

    def __init__(self, *, explicit: bool) -> None:
        self.at = 0
        self._explicit = explicit
        self._level = 0
        self._found: dict[str, str] = {}
        self._taken = 0
        self._rest = b""  # of what was taken: the begin of an element whose header, or UID, is not whole yet
        self._astray = False

    def take(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the data set, which may be reused after the return; most of them are not read."""
        if self._astray:
            return
        begin, self._taken = self._taken, self._taken + len(piece)
        if self._rest:
            self.over(self._rest + bytes(piece[:_LONGEST_ELEMENT]), begin - len(self._rest))
        if self.at >= begin:
            self.over(piece, begin)
        left = self._taken - self.at
        self._astray = left > _LONGEST_ELEMENT
        self._rest = (self._rest + bytes(piece[-_LONGEST_ELEMENT:]))[-left:] if left > 0 else b""

    def over(self, window: bytes | memoryview, base: int) -> None:
        """Go on within a window that begins at `base`, not behind `at`, as long as headers and UIDs are whole."""
        here, level, end = self.at - base, self._level, len(window)
        while here + 8 <= end:
            group, element, vr, length = _SHORT_HEAD.unpack_from(window, here)
            tag, value, deeper = group << 16 | element, here + 8, level
            if not self._explicit or group == 0xFFFE:
                vr, (length,) = b"", _LENGTH.unpack_from(window, here + 4)
            elif vr not in _SHORT:
                value = here + 12
                if value > end or not (vr.isalpha() and vr.isupper()):
                    break
                (length,) = _LENGTH.unpack_from(window, here + 8)
            if tag in _DELIMITERS:
                deeper, length = level - 1, 0
            elif length == UNDEFINED:
                deeper, length = level + 1 if vr != b"UN" else -1, 0  # UN has no VRs inside
            elif level == 0 and tag in _IDENTITY and length <= _LONGEST_UID:
                if value + length > end:
                    break
                self._found[_IDENTITY[tag]] = _uid(bytes(window[value : value + length]))
            # outside of a sequence, or deeper than tokens go
            if not 0 <= deeper <= 2 * NESTING or (deeper <= 0 and group == 0xFFFE and tag != SEQUENCE_END):
                break
            here, level = value + length, deeper
        self.at, self._level = base + here, level

    def identity(self, size: int) -> Identity | None:
        """Return the UIDs of a data set of `size` bytes; None where only tokens can tell, or when it is cut."""
        return Identity(**self._found) if self.at == size and self._level == 0 else None


def walk(transfer_syntax: str) -> Walk | None:
    """Begin a walk over a data set; None in a transfer syntax in which there is none."""
    encoding, deflated = _encoded(transfer_syntax)
    return Walk(explicit=encoding.explicit) if encoding.order == "<" and not deflated else None


def _walked(stream: BinaryIO, going: Walk) -> Identity | None:
    """Walk over the rest of a file, of which a window is read where there are headers."""
    begin, before = stream.tell(), -1
    size = stream.seek(0, os.SEEK_END) - begin
    while before < going.at < size:
        before = going.at
        stream.seek(begin + before)
        going.over(stream.read(_WINDOW), before)
    return going.identity(size)


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
