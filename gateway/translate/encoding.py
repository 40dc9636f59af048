"""How native transfer syntaxes encode a data set: headers, byte order, word sizes, deflation (PS3.5)."""

import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import IO, Protocol

from gateway.errors import DataSetError

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010

PIECE = 1 << 16  # bytes moved at a time; a multiple of every word size

# PS3.5 Table 7.1-2: these, and no VR that is still to come, have a 16-bit length.
SHORT_LENGTH = frozenset(
    (
        *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS"),
        *("LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
    )
)

# Bytes that change places with the byte order (PS3.5 7.3); UN keeps its bytes whatever the order (6.2.2).
WORD = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_WORD_CODE = {2: "H", 4: "I", 8: "Q"}

_IMPLICIT_HEADER = {"<": Struct("<HHI"), ">": Struct(">HHI")}
_SHORT_HEADER = {"<": Struct("<HH2sH"), ">": Struct(">HH2sH")}
_LONG_HEADER = {"<": Struct("<HH2sHI"), ">": Struct(">HH2sHI")}
_LENGTH = {"<": Struct("<I"), ">": Struct(">I")}


@dataclass(frozen=True, slots=True)
class Encoding:
    """Say whether VRs are written, and the byte order: `<` little, `>` big endian."""

    explicit: bool
    order: str


IMPLICIT = Encoding(explicit=False, order="<")
EXPLICIT = Encoding(explicit=True, order="<")
BIG_ENDIAN = Encoding(explicit=True, order=">")

Write = Callable[[bytes | memoryview], object]


class Readable(Protocol):
    """Be read in order: a file, or what `Inflated` makes of one."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none only at the end."""


class Inflated:
    """Inflate a stream while it is read; raises DataSetError where it is not deflated data (PS3.5 A.5)."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none only at the end."""
        while not self._ready and not self._inflate.eof:
            deflated = self._inflate.unconsumed_tail or self._stream.read(PIECE)
            if not deflated:
                raise DataSetError("the deflated data set is cut")
            try:
                self._ready = self._inflate.decompress(deflated, PIECE)
            except zlib.error as fault:
                raise DataSetError("the data set is not deflated") from fault
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


class Deflated:
    """Deflate what is written; `finish` completes it with an even length (PS3.5 A.5)."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._length = 0

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set."""
        self._emit(self._deflate.compress(data))

    def finish(self) -> None:
        """Write what is left and the padding byte."""
        self._emit(self._deflate.flush())
        self._emit(b"\0" * (self._length % 2))

    def _emit(self, deflated: bytes) -> None:
        self._stream.write(deflated)
        self._length += len(deflated)


class Reader:
    """Read a data set forwards and count its bytes; raises DataSetError where it is cut.

    `seekable` is the same stream when it can seek: what is skipped is then never read.
    """

    def __init__(self, stream: Readable, seekable: IO[bytes] | None) -> None:
        self._stream = stream
        self._seekable = seekable
        self.position = 0 if seekable is None else seekable.tell()

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes, a small number."""
        taken = self.take_or_end(size)
        if len(taken) != size:
            raise DataSetError("the data set is cut")
        return taken

    def take_or_end(self, size: int) -> bytes:
        """Return exactly `size` bytes, or none when the data set has ended."""
        taken = self._stream.read(size)
        while taken and len(taken) < size:
            more = self._stream.read(size - len(taken))
            if not more:
                raise DataSetError("the data set is cut")
            taken += more
        self.position += len(taken)
        return taken

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces, each but the last a whole number of words."""
        while size:
            piece = self.take(min(size, PIECE))
            size -= len(piece)
            yield piece

    def skip_to(self, position: int) -> None:
        """Go on at `position`; backwards only in a seekable stream."""
        if self._seekable is not None:
            self._seekable.seek(position)
            self.position = position
            return
        for _ in self.pieces(position - self.position):
            pass


def read_header(reader: Reader, encoding: Encoding) -> tuple[int, str, int] | None:
    """Return tag, VR and length of the next element, None at the end; VR is empty where none is written.

    Raises DataSetError when the bytes cannot be an element of this encoding (PS3.5 7.1).
    """
    header = reader.take_or_end(8)
    if not header:
        return None
    group, element, length = _IMPLICIT_HEADER[encoding.order].unpack(header)
    if not encoding.explicit or group == 0xFFFE:
        return group << 16 | element, "", length
    vr = header[4:6].decode("latin-1")
    if not (vr.isascii() and vr.isalpha() and vr.isupper()):
        raise DataSetError(f"element ({group:04X},{element:04X}) has no VR")
    if vr in SHORT_LENGTH:
        return group << 16 | element, vr, _SHORT_HEADER[encoding.order].unpack(header)[3]
    return group << 16 | element, vr, _LENGTH[encoding.order].unpack(reader.take(4))[0]


def header(encoding: Encoding, tag: int, vr: str, length: int) -> bytes:
    """Return the header of an element, item or delimiter; the length must fit the VR."""
    group, element = tag >> 16, tag & 0xFFFF
    if not encoding.explicit or group == 0xFFFE:
        return _IMPLICIT_HEADER[encoding.order].pack(group, element, length)
    if vr in SHORT_LENGTH:
        return _SHORT_HEADER[encoding.order].pack(group, element, vr.encode(), length)
    return _LONG_HEADER[encoding.order].pack(group, element, vr.encode(), 0, length)


def swapped(piece: bytes, word: int) -> bytes:
    """Return `piece` with the bytes of each word reversed; what does not fill a word stays as it is."""
    whole = len(piece) - len(piece) % word
    words = array(_WORD_CODE[word], piece[:whole])
    words.byteswap()
    return words.tobytes() + piece[whole:]
