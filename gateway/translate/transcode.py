"""Convert data sets between transfer syntaxes without loss, any size in bounded memory (PS3.5 Annex A).

Native syntaxes are converted element by element, pixels untouched but for the byte order. Encapsulated pixel
data are decoded frame by frame; nothing is ever compressed. What changes besides the encoding:

- group lengths (gggg,0000) are left out: they are retired, and would be wrong;
- sequences and items get an undefined length, so that none has to be known before it is written;
- decoded pixel data get the Photometric Interpretation and Planar Configuration that they come out with, and
  the offset tables of the compressed ones go. SOP Instance UID and Lossy Image Compression stay.

A private element read without a VR becomes UN and keeps its bytes; one read as UN stays UN.
"""

from collections.abc import Mapping, Sequence
from typing import IO, Literal, NamedTuple

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.errors import DataSetError, TranscodingError
from gateway.translate.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    PIECE,
    PIXEL_DATA,
    SEQUENCE_END,
    SHORT_LENGTH,
    UNDEFINED,
    WORD,
    Deflated,
    Encoding,
    Inflated,
    Readable,
    Reader,
    Write,
    header,
    swapped,
)
from gateway.translate.pixels import DECODABLE, Native, native
from gateway.translate.survey import PHOTOMETRIC, PLANAR, Facts, Survey, definite_vr, survey
from gateway.translate.tokens import Kind, Token, tokens

# In the order of preference: what a destination can read with the least loss of meaning comes first.
NATIVE = {
    str(ExplicitVRLittleEndian): EXPLICIT,
    str(ImplicitVRLittleEndian): IMPLICIT,
    str(ExplicitVRBigEndian): BIG_ENDIAN,
    str(DeflatedExplicitVRLittleEndian): EXPLICIT,
}

# Extended Offset Table, its Lengths, Encapsulated Pixel Data Value Total Length (PS3.3 C.7.6.3)
_OFFSET_TABLES = frozenset((0x7FE00001, 0x7FE00002, 0x7FE00003))


def accepts(source: str, targets: Sequence[str]) -> str | None:
    """Choose the transfer syntax to send in among those a destination accepted, None when there is none.

    An instance goes as it is if it can, else to a native syntax; it is never compressed.
    """
    if source in targets:
        return source
    if not _convertible(source):
        return None
    return next((syntax for syntax in NATIVE if syntax in targets), None)


def convert(source: IO[bytes], source_syntax: str, target: IO[bytes], target_syntax: str) -> None:
    """Write the data set at the position of a seekable `source` to `target` in another transfer syntax.

    File Meta Information is not read nor written. Raises TranscodingError, naming both syntaxes, when no
    conversion exists or the data set is malformed; what `target` got by then is worthless.
    """
    try:
        _convert(source, source_syntax, target, target_syntax)
    except DataSetError as fault:
        names = f"{UID(source_syntax).name} to {UID(target_syntax).name}"
        raise TranscodingError(f"{names}: {fault}") from fault


def _convert(source: IO[bytes], source_syntax: str, target: IO[bytes], target_syntax: str) -> None:
    if source_syntax == target_syntax:
        _copy(source, target.write)
        return
    if target_syntax not in NATIVE or not _convertible(source_syntax):
        raise DataSetError("there is no such conversion")
    deflated = source_syntax == DeflatedExplicitVRLittleEndian
    readable = Inflated(source) if deflated else source
    writable = Deflated(target) if target_syntax == DeflatedExplicitVRLittleEndian else target
    if NATIVE.get(source_syntax) == NATIVE[target_syntax]:
        _copy(readable, writable.write)
    else:
        _Conversion(
            source_syntax,
            Reader(readable, None if deflated else source),
            source,
            NATIVE[target_syntax],
            writable.write,
        ).run()
    if isinstance(writable, Deflated):
        writable.finish()


def _convertible(source: str) -> bool:
    return source in NATIVE or source in DECODABLE


def _copy(source: Readable, write: Write) -> None:
    while piece := source.read(PIECE):
        write(piece)


class _Scope(NamedTuple):
    """Hold what is known of the data set or item that is being converted."""

    facts: Facts
    decoded: Native | None
    replaced: Mapping[int, bytes]  # tag -> what is written instead of that element


class _Conversion:
    """Rewrite the data set in `reader` in another encoding; `stream` is the file beneath, for its pixels."""

    def __init__(self, syntax: str, reader: Reader, stream: IO[bytes], target: Encoding, write: Write) -> None:
        self._syntax = syntax
        self._source = NATIVE.get(syntax, EXPLICIT)
        self._reader = reader
        self._stream = stream
        self._target = target
        # A sequence in UN is little endian with implicit VRs (PS3.5 6.2.2); not every reader of big endian
        # knows that, so there it becomes SQ.
        self._within_un = IMPLICIT if target.order == "<" else target
        self._write = write
        self._scopes = [_Scope({}, None, {})]
        self._found = Survey()

    def run(self) -> None:
        """Convert to the end of the data set."""
        start = self._reader.position
        if not self._source.explicit or self._syntax in DECODABLE:
            self._found = survey(self._reader, self._source)
            self._reader.skip_to(start)
        self._enter(start, self._target)
        for token in tokens(self._reader, self._source):
            self._token(token, self._target if token.encoding is self._source else self._within_un)

    def _token(self, token: Token, encoding: Encoding) -> None:
        if token.kind is Kind.ELEMENT:
            self._element(token, encoding)
        elif token.kind is Kind.ENCAPSULATED:
            self._pixels(encoding)
        elif token.kind is Kind.SEQUENCE:
            stays_un = token.vr == "UN" and token.encoding.explicit and self._within_un is IMPLICIT
            vr = "UN" if stays_un else "SQ"
            self._write(header(encoding, token.tag, vr, UNDEFINED))
        elif token.kind is Kind.ITEM:
            self._write(header(encoding, ITEM, "", UNDEFINED))
            self._enter(token.at, encoding)
        elif token.kind is Kind.ITEM_END:
            self._write(header(encoding, ITEM_END, "", 0))
            self._scopes.pop()
        else:
            self._write(header(encoding, SEQUENCE_END, "", 0))

    def _enter(self, start: int, encoding: Encoding) -> None:
        own = self._found.facts.get(start, {})
        around = self._scopes[-1].facts
        decoded: Native | None = None
        replaced: Mapping[int, bytes] = {}
        if start in self._found.encapsulated:
            decoded = native(self._stream, self._found.encapsulated[start], own, self._syntax)
            self._reader.skip_to(start)
            replaced = _replaced(decoded, encoding, has_planar=PLANAR in own)
        self._scopes.append(_Scope({**around, **own} if own else around, decoded, replaced))

    def _element(self, token: Token, encoding: Encoding) -> None:
        scope = self._scopes[-1]
        if token.tag & 0xFFFF == 0:
            return
        if token.tag in scope.replaced:
            self._write(scope.replaced[token.tag])
            return
        vr = definite_vr(token.tag, token.vr, scope.facts)
        if vr in SHORT_LENGTH and token.length > 0xFFFF:
            vr = "UN"  # its length has no room otherwise (PS3.5 6.2.2)
        self._write(header(encoding, token.tag, vr, token.length))
        word = WORD.get(vr, 1) if encoding.order != token.encoding.order else 1
        for piece in self._reader.pieces(token.length):
            self._write(piece if word == 1 else swapped(piece, word))

    def _pixels(self, encoding: Encoding) -> None:
        decoded = self._scopes[-1].decoded
        if decoded is None:
            raise DataSetError("pixel data are encapsulated in a native transfer syntax")
        vr = "OW" if decoded.bits_allocated > 8 else "OB"
        self._write(header(encoding, PIXEL_DATA, vr, decoded.length + decoded.length % 2))
        swap = vr == "OW" and encoding.order == ">"
        for frame in decoded.frames:
            self._write(swapped(frame, 2) if swap else frame)
        self._write(b"\0" * (decoded.length % 2))


def _replaced(decoded: Native, encoding: Encoding, *, has_planar: bool) -> dict[int, bytes]:
    """Return what is written instead of the elements that describe the compressed pixels."""
    photometric = decoded.photometric.encode()
    photometric += b" " * (len(photometric) % 2)
    colours = header(encoding, PHOTOMETRIC, "CS", len(photometric)) + photometric
    planar = b""
    if decoded.planar is not None:
        byte_order: Literal["little", "big"] = "little" if encoding.order == "<" else "big"
        planar = header(encoding, PLANAR, "US", 2) + decoded.planar.to_bytes(2, byte_order)
    replaced = dict.fromkeys(_OFFSET_TABLES, b"")
    if has_planar:
        return {**replaced, PHOTOMETRIC: colours, PLANAR: planar}
    return {**replaced, PHOTOMETRIC: colours + planar}
