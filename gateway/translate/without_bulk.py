"""Leave the bulk data of an instance out (Composite Instance Retrieve Without Bulk Data, PS3.4 Z.1)."""

from typing import IO

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.errors import DataSetError
from gateway.translate.encoding import (
    EXPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Inflated,
    Reader,
    Write,
    header,
)
from gateway.translate.part10 import encoding_of
from gateway.translate.tokens import Kind, Token, tokens

_EXPLICIT_LE = "1.2.840.10008.1.2.1"
_WAVEFORM_SEQUENCE, _WAVEFORM_DATA = 0x54000100, 0x54001010
_BULK = frozenset(
    (
        *(0x7FE00010, 0x7FE00008, 0x7FE00009),  # Pixel Data, Float and Double Float
        *(0x7FE00001, 0x7FE00002, 0x7FE00003),  # the tables of what is gone
        0x00287FE0,  # Pixel Data Provider URL
        0x56000020,  # Spectroscopy Data
        0x00420011,  # Encapsulated Document
    )
)
_REPEATING = {(0x60, 0x3000), (0x50, 0x3000), (0x50, 0x200C)}  # Overlay Data; Curve and Audio Sample Data


def without_bulk(source: IO[bytes], transfer_syntax: str, target: IO[bytes]) -> str:
    """Copy the data set at the position of a seekable `source` without its bulk data; give its transfer syntax.

    That is the stored one unless it compresses: without what is compressed, all that is left is Explicit VR Little
    Endian (PS3.5 A.4). Bulk data in sequences stay, icons among them, but for those of waveforms. Sequences get an
    undefined length and group lengths go. Raises DataSetError.
    """
    syntax = UID(transfer_syntax)
    deflated = syntax == DeflatedExplicitVRLittleEndian
    encoding = encoding_of(syntax)
    reader = Reader(Inflated(source), None) if deflated else Reader(source, source)
    path: list[int] = []
    for token in tokens(reader, encoding):
        if token.kind is Kind.SEQUENCE:
            path.append(token.tag)
        _copy(token, path, reader, target.write)
        if token.kind is Kind.SEQUENCE_END:
            path.pop()
    return transfer_syntax if encoding is not EXPLICIT else _EXPLICIT_LE


def _copy(token: Token, path: list[int], reader: Reader, write: Write) -> None:
    if token.kind is Kind.ELEMENT:
        if token.tag & 0xFFFF and not _is_bulk(token.tag, path):
            write(header(token.encoding, token.tag, token.vr, token.length))
            for piece in reader.pieces(token.length):
                write(piece)
    elif token.kind is Kind.SEQUENCE:
        write(header(token.encoding, token.tag, token.vr, UNDEFINED))
    elif token.kind is Kind.ENCAPSULATED:
        if path:
            raise DataSetError("pixel data are encapsulated inside a sequence")
    elif token.kind is Kind.ITEM:
        write(header(token.encoding, ITEM, "", UNDEFINED))
    else:
        end = ITEM_END if token.kind is Kind.ITEM_END else SEQUENCE_END
        write(header(token.encoding, end, "", 0))


def _is_bulk(tag: int, path: list[int]) -> bool:
    if path:
        return path == [_WAVEFORM_SEQUENCE] and tag == _WAVEFORM_DATA
    group, element = tag >> 16, tag & 0xFFFF
    return tag in _BULK or (group % 2 == 0 and (group >> 8, element) in _REPEATING)
