"""Read a native data set as a flat run of tokens, in bounded memory and without recursion."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from gateway.errors import DataSetError
from gateway.translate.encoding import (
    IMPLICIT,
    ITEM,
    ITEM_END,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Encoding,
    Reader,
    read_header,
)

NESTING = 64  # levels of sequences


class Kind(Enum):
    """Name what a token stands for."""

    ELEMENT = auto()  # its value is next in the reader; what is left of it is skipped
    ENCAPSULATED = auto()  # Pixel Data in fragments (PS3.5 A.4); the first item is next in the reader
    SEQUENCE = auto()
    SEQUENCE_END = auto()
    ITEM = auto()
    ITEM_END = auto()


class Token(NamedTuple):
    """Describe a piece of a data set: its value begins `at`, its level is in `encoding`."""

    kind: Kind
    tag: int
    vr: str
    length: int
    at: int
    encoding: Encoding


class _Level(NamedTuple):
    holds_items: bool
    end: int | None  # None: up to a delimiter, at the root up to the end of the data
    encoding: Encoding


def tokens(reader: Reader, encoding: Encoding) -> Iterator[Token]:
    """Yield the tokens of the data set at the reader's position.

    The VR of an element that was written without one is the data dictionary's, ambiguous as it may be
    ("US or SS"), or UN. Raises DataSetError when the data set is cut, malformed or nested too deep.
    """
    levels = [_Level(holds_items=False, end=None, encoding=encoding)]
    while True:
        level = levels[-1]
        token = _closed(level, reader) or _read(level, reader)
        if token is None:
            if len(levels) > 1:
                raise DataSetError("the data set is cut inside a sequence")
            return
        yield token
        if token.kind in (Kind.ITEM_END, Kind.SEQUENCE_END):
            levels.pop()
            if not levels or (level.end is not None and reader.position != level.end):
                raise DataSetError("a delimiter stands where none belongs")
        elif token.kind in (Kind.ITEM, Kind.SEQUENCE):
            levels.append(_opened(token))
            if len(levels) > 2 * NESTING + 1:
                raise DataSetError(f"sequences are nested more than {NESTING} deep")
        else:
            _skip_value(token, reader)


def _closed(level: _Level, reader: Reader) -> Token | None:
    """Return the token that ends a level of defined length once its bytes are used up."""
    if level.end is None or reader.position < level.end:
        return None
    if reader.position > level.end:
        raise DataSetError("an element is longer than the item that holds it")
    kind, tag = (Kind.SEQUENCE_END, SEQUENCE_END) if level.holds_items else (Kind.ITEM_END, ITEM_END)
    return Token(kind, tag, "", 0, reader.position, level.encoding)


def _opened(token: Token) -> _Level:
    # A sequence in UN is written with implicit VRs whatever the transfer syntax (PS3.5 6.2.2).
    encoding = IMPLICIT if token.vr == "UN" else token.encoding
    end = None if token.length == UNDEFINED else token.at + token.length
    return _Level(token.kind is Kind.SEQUENCE, end, encoding)


def _read(level: _Level, reader: Reader) -> Token | None:
    head = read_header(reader, level.encoding)
    if head is None:
        return None
    tag, vr, length = head
    if level.holds_items:
        kind = {ITEM: Kind.ITEM, SEQUENCE_END: Kind.SEQUENCE_END}.get(tag)
        if kind is None:
            raise DataSetError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) stands between items")
        return Token(kind, tag, "", length, reader.position, level.encoding)
    if tag == ITEM_END:
        return Token(Kind.ITEM_END, tag, "", length, reader.position, level.encoding)
    if tag >> 16 == 0xFFFE:
        raise DataSetError("an item stands outside a sequence")
    kind, vr = _classified(tag, vr or implied_vr(tag), length)
    return Token(kind, tag, vr, length, reader.position, level.encoding)


def _classified(tag: int, vr: str, length: int) -> tuple[Kind, str]:
    if length != UNDEFINED:
        return (Kind.SEQUENCE if vr == "SQ" else Kind.ELEMENT), vr
    if tag == PIXEL_DATA:
        return Kind.ENCAPSULATED, vr
    return Kind.SEQUENCE, vr


def implied_vr(tag: int) -> str:
    """Return the data dictionary's VR of an element; private ones are UN, their creators LO (PS3.5 7.8.1)."""
    group, element = tag >> 16, tag & 0xFFFF
    if element == 0:
        return "UL"
    if group % 2:
        return "LO" if 0x10 <= element <= 0xFF else "UN"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _skip_value(token: Token, reader: Reader) -> None:
    if token.kind is Kind.ELEMENT:
        reader.skip_to(token.at + token.length)
        return
    reader.skip_to(token.at)
    while (head := read_header(reader, token.encoding)) and head[0] == ITEM and head[2] != UNDEFINED:
        reader.skip_to(reader.position + head[2])
    if head is None or head[0] != SEQUENCE_END:
        raise DataSetError("the encapsulated pixel data have no end")
