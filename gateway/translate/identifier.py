"""Read and write identifiers: data sets of a few elements in a negotiated transfer syntax (PS3.4 C.4.1.1.3)."""

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from gateway.errors import DataSetError, IdentifierError, IdentifierUnreadable
from gateway.translate import charset
from gateway.translate.attributes import CHARSET_VRS, Attribute, read_tag
from gateway.translate.dicom_json import to_element
from gateway.translate.elements import read_element
from gateway.translate.encode import Elements, encode_elements
from gateway.translate.encoding import Reader
from gateway.translate.matching import MAX_DEPTH, keyword_of
from gateway.translate.part10 import encoding_of
from gateway.translate.tokens import tokens

LONGEST: Final = 1 << 24
"""Bytes that a deflated identifier may inflate to."""
_SPECIFIC_CHARACTER_SET: Final = 0x00080005


def decode_identifier(raw: bytes, transfer_syntax: str, *, default_charset: str = "") -> Dataset:
    """Decode an identifier; its text is decoded, and (0008,0005) has the defined terms the peer used, if any.

    `default_charset` has the values, separated by backslashes, that hold for a peer that declares none. Raises
    IdentifierUnreadable when the bytes are no data set, and IdentifierError when text is not in the declared
    character set, or when that is unknown and a value is not ASCII.
    """
    syntax = UID(transfer_syntax)
    try:
        if syntax.is_deflated:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            raw = inflate.decompress(raw, LONGEST)
            if not inflate.eof:
                raise IdentifierUnreadable("is cut")
        dataset = read_dataset(BytesIO(raw), syntax.is_implicit_VR, syntax.is_little_endian)
    except IdentifierError:
        raise
    except Exception as error:  # what pydicom and zlib raise for bytes that are no data set is not documented
        raise IdentifierUnreadable("cannot be read") from error
    if _is_cut(raw, syntax):
        raise IdentifierUnreadable("is cut")
    return _decoded(dataset, _terms(default_charset.split("\\")), 0)


def _is_cut(raw: bytes, syntax: UID) -> bool:
    """Tell whether the bytes end inside an element, whose key pydicom would read as another one or pass over."""
    stream = BytesIO(raw)
    try:
        for _ in tokens(Reader(stream, None), encoding_of(syntax)):
            pass
    except DataSetError:
        return stream.tell() == len(raw)
    return False


def _terms(values: Sequence[str]) -> tuple[str, ...] | None:
    """Give the defined terms; none for values that say nothing, None when one is unknown."""
    terms = [charset.defined_term(value) for value in values]
    if not any(terms) and None not in terms:
        return ()
    return tuple(term for term in terms if term is not None) if None not in terms else None


def _decoded(dataset: Dataset, inherited: tuple[str, ...] | None, depth: int) -> Dataset:
    if depth > MAX_DEPTH:
        raise IdentifierError("identifier", f"is nested more than {MAX_DEPTH} levels deep")
    declared = charset.declared(dataset)
    terms = inherited if declared is None or not any(declared) else _terms(declared)
    decoded = Dataset()
    if declared and terms and any(declared):
        decoded.SpecificCharacterSet = list(terms)
    for tag in sorted(dataset.keys()):
        if tag == _SPECIFIC_CHARACTER_SET or read_tag(f"{tag:08X}") is None:
            continue
        try:
            attribute = read_element(dataset, tag, terms or (), errors="strict")
        except UnicodeError as error:
            raise IdentifierError(keyword_of(tag), "is not text in its character set") from error
        if attribute is None:
            raise IdentifierError(keyword_of(tag), "cannot be read")
        if terms is None and attribute.vr in CHARSET_VRS and not all(map(str.isascii, attribute.values)):
            raise IdentifierError("SpecificCharacterSet", f"is unknown, and {keyword_of(tag)} is not ASCII")
        if attribute.vr == "SQ":
            attribute = Attribute("SQ", [_decoded(item, terms, depth + 1) for item in attribute.values])
        decoded[tag] = to_element(tag, attribute)
    return decoded


def encode_identifier(dataset: Dataset, transfer_syntax: str, *, charset: Sequence[str] = ("ISO_IR 192",)) -> bytes:
    """Encode an identifier in the defined terms `charset`, or in ISO_IR 192 when a value does not fit them.

    (0008,0005) is there whenever a value is not ASCII, and only then.
    """
    return encode_elements(_elements(dataset), transfer_syntax, charset)


def _elements(dataset: Dataset) -> Elements:
    elements: Elements = []
    for tag in sorted(dataset.keys()):
        attribute = None if tag == _SPECIFIC_CHARACTER_SET else read_element(dataset, tag, ())
        if attribute is None or read_tag(f"{tag:08X}") is None:
            continue
        values = [_elements(item) for item in attribute.values] if attribute.vr == "SQ" else attribute.values
        elements.append((int(tag), Attribute(attribute.vr, values)))
    return elements
