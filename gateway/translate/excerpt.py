"""Read some attributes of an instance off its file, whatever else it holds."""

from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any, BinaryIO, Final

from pydicom import config
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from gateway.errors import DataSetError
from gateway.translate.attributes import BULK_VRS
from gateway.translate.dicom_json import from_dataset
from gateway.translate.encoding import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Encoding,
    Inflated,
    Reader,
    header,
)
from gateway.translate.part10 import encoding_of, read_file_meta
from gateway.translate.tokens import Kind, Token, tokens

LEVELS: Final[Mapping[Kind, int]] = {Kind.SEQUENCE: 1, Kind.SEQUENCE_END: -1}
"""By how much a token changes the level of sequences."""
_DELIMITERS: Final = {Kind.ITEM_END: ITEM_END, Kind.SEQUENCE_END: SEQUENCE_END}
_LONGEST: Final = 1 << 16
_SPECIFIC_CHARACTER_SET: Final = 0x00080005


def excerpt(file: BinaryIO, wanted: Collection[int]) -> tuple[dict[str, Any], int]:
    """Give the wanted attributes of a Part 10 file in the DICOM JSON model, and how many bytes they have there.

    Nothing behind the last of them is read. Bulk data, and what is longer than 64 KiB, are left out. Raises
    DataSetError when the data set cannot be read that far.
    """
    meta = read_file_meta(file)
    file.seek(meta.offset)
    syntax = UID(meta.transfer_syntax, config.IGNORE)
    deflated = syntax.is_transfer_syntax and syntax.is_deflated
    reader = Reader(Inflated(file), None) if deflated else Reader(file, file)
    encoding = encoding_of(syntax)
    encoded = _cut(reader, encoding, {_SPECIFIC_CHARACTER_SET, *wanted})
    try:
        dataset = read_dataset(BytesIO(encoded), not encoding.explicit, encoding.order == "<")
        return from_dataset(dataset, bulk=False), len(encoded)
    except Exception as error:  # what pydicom raises for damaged bytes is not documented
        raise DataSetError("the data set cannot be read") from error


def _cut(reader: Reader, encoding: Encoding, wanted: Collection[int]) -> bytes:
    """Copy the wanted attributes of a data set in its own encoding."""
    last = max(wanted)
    done, current = bytearray(), bytearray()
    level, is_wanted = 0, False
    for token in tokens(reader, encoding):
        if not level:
            done += current
            current.clear()
            if token.tag > last:
                break
            is_wanted = token.tag in wanted
        level += LEVELS.get(token.kind, 0)
        if is_wanted and len(current) + token.length % UNDEFINED > _LONGEST and not is_bulk(token):
            current.clear()
            is_wanted = False
        elif is_wanted:
            current += copied_without_bulk(token, reader)
    return bytes(done + current)


def copied_without_bulk(token: Token, reader: Reader) -> bytes:
    """Encode a token and the value it has in the reader, sequences with undefined lengths, bulk values emptied."""
    if token.kind in _DELIMITERS:
        return header(token.encoding, _DELIMITERS[token.kind], "", 0)
    if token.kind is Kind.ITEM:
        return header(token.encoding, ITEM, "", UNDEFINED)
    if token.kind is Kind.SEQUENCE:
        return header(token.encoding, token.tag, token.vr, UNDEFINED)
    if is_bulk(token):
        return header(token.encoding, token.tag, token.vr, 0)
    return header(token.encoding, token.tag, token.vr, token.length) + reader.take(token.length)


def is_bulk(token: Token) -> bool:
    """Tell whether a token is an element of bulk data, which archives leave out of metadata."""
    return token.kind is Kind.ENCAPSULATED or (
        token.kind is Kind.ELEMENT and BULK_VRS.issuperset(token.vr.split(" or "))
    )
