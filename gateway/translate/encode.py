"""Encode an identifier straight from attributes, without pydicom's data sets (PS3.5 7 and Annex A)."""

import zlib
from collections.abc import Iterable, Sequence
from struct import pack
from typing import Any, Final

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from gateway.errors import DataSetError
from gateway.translate import charset
from gateway.translate.attributes import BULK_VRS, TEXT_VRS, Attribute
from gateway.translate.elements import NUMBER_FORMATS
from gateway.translate.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    SHORT_LENGTH,
    WORD,
    Encoding,
    header,
    swapped,
)

Elements = list[tuple[int, Attribute]]
"""Tags in ascending order with their attributes; the values of a sequence are Elements again."""

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_ENCODINGS: Final = {str(ImplicitVRLittleEndian): IMPLICIT, str(ExplicitVRBigEndian): BIG_ENDIAN}
_LONGEST_SHORT: Final = 0xFFFE


class _DoesNotFitError(Exception):
    """Say that a text does not fit the character set; never leaves this module."""


def encode_elements(elements: Elements, transfer_syntax: str, terms: Sequence[str] = (charset.UTF_8,)) -> bytes:
    """Encode elements that do not hold Specific Character Set, which is added when a value is not ASCII.

    `terms` are the defined terms the peer wants; where a value does not fit them, all are in ISO_IR 192. Raises
    DataSetError for text that no character set has (lone surrogates).
    """
    encoding = _ENCODINGS.get(transfer_syntax, EXPLICIT)
    try:
        encoded = _with_character_set(elements, encoding, terms)
    except _DoesNotFitError:
        try:
            encoded = _with_character_set(elements, encoding, (charset.UTF_8,))
        except _DoesNotFitError as error:
            raise DataSetError("a value is not text") from error
    if transfer_syntax != DeflatedExplicitVRLittleEndian:
        return encoded
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(encoded) + deflate.flush()
    return deflated + b"\0" * (len(deflated) % 2)


def _with_character_set(elements: Elements, encoding: Encoding, terms: Sequence[str]) -> bytes:
    if not _is_ascii(elements):
        declared = Attribute("CS", list(terms))
        elements = sorted([*elements, (_SPECIFIC_CHARACTER_SET, declared)], key=lambda element: element[0])
    return _encode(elements, encoding, terms)


def _is_ascii(elements: Elements) -> bool:
    for _, (vr, values) in elements:
        if vr == "SQ":
            if not all(map(_is_ascii, values)):
                return False
        elif vr in TEXT_VRS and not all(map(str.isascii, values)):
            return False
    return True


def _encode(elements: Iterable[tuple[int, Attribute]], encoding: Encoding, terms: Sequence[str]) -> bytes:
    parts: list[bytes] = []
    for tag, (vr, values) in elements:
        value = _value(vr, values, encoding, terms)
        if len(value) > _LONGEST_SHORT and vr in SHORT_LENGTH:
            vr = "UN"  # noqa: PLW2901  the only VR that can hold it (PS3.5 6.2.2)
        parts += header(encoding, tag, vr, len(value)), value
    return b"".join(parts)


def _value(vr: str, values: Sequence[Any], encoding: Encoding, terms: Sequence[str]) -> bytes:
    if vr in TEXT_VRS:
        text = "\\".join(values)
        encoded = text.encode("ascii") if text.isascii() else charset.encode(text, terms, person_name=vr == "PN")
        if encoded is None:
            raise _DoesNotFitError
        return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)
    if vr == "SQ":
        items = [_encode(item, encoding, terms) for item in values]
        return b"".join(header(encoding, ITEM, "", len(item)) + item for item in items)
    if vr in BULK_VRS:
        data = b"".join(values)
        data = swapped(data, WORD[vr]) if vr in WORD and encoding.order == ">" else data
        return data + b"\0" * (len(data) % 2)
    if vr == "AT":
        pairs = [part for tag in values for part in (tag >> 16, tag & 0xFFFF)]
        return pack(f"{encoding.order}{len(pairs)}H", *pairs)
    return pack(f"{encoding.order}{len(values)}{NUMBER_FORMATS[vr]}", *values)
