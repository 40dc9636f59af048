"""Look over a data set before it is converted: what decides ambiguous VRs, where pixels are encapsulated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import DataSetError
from gateway.translate.encoding import PIXEL_DATA, Encoding, Reader
from gateway.translate.tokens import Kind, tokens

SAMPLES = 0x00280002
PHOTOMETRIC = 0x00280004
PLANAR = 0x00280006
FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
REPRESENTATION = 0x00280103
LUT_DESCRIPTOR = 0x00283002
LUT_DATA = 0x00283006
WAVEFORM_BITS = 0x54001004

_NUMBERS = (SAMPLES, PLANAR, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, REPRESENTATION)
_REMEMBERED = frozenset((*_NUMBERS, PHOTOMETRIC, FRAMES, LUT_DESCRIPTOR, WAVEFORM_BITS))
_LONGEST = 64  # bytes of a remembered value
_MOST_ITEMS = 1 << 17  # items with remembered values: what a hostile data set may cost in memory

Facts = Mapping[int, bytes]  # tag -> value, little endian


@dataclass(slots=True)
class Survey:
    """Hold, by the position of a data set or item, its facts and where its encapsulated pixel data begin."""

    facts: dict[int, dict[int, bytes]] = field(default_factory=dict)
    encapsulated: dict[int, int] = field(default_factory=dict)


def survey(reader: Reader, encoding: Encoding) -> Survey:
    """Read a whole little endian data set without its values and return what was found.

    Raises DataSetError when it cannot be read or has more items with such facts than can be remembered.
    """
    found = Survey()
    starts = [reader.position]
    for token in tokens(reader, encoding):
        if token.kind is Kind.ITEM:
            starts.append(token.at)
        elif token.kind is Kind.ITEM_END:
            starts.pop()
        elif token.kind is Kind.ENCAPSULATED:
            found.encapsulated[starts[-1]] = token.at
        elif token.tag in _REMEMBERED and token.kind is Kind.ELEMENT and token.length <= _LONGEST:
            found.facts.setdefault(starts[-1], {})[token.tag] = reader.take(token.length)
            if len(found.facts) > _MOST_ITEMS:
                raise DataSetError("too many items describe pixels of their own")
    return found


def unsigned(facts: Facts, tag: int) -> int | None:
    """Return the first value of an element of VR US, None where it is absent or empty."""
    value = facts.get(tag, b"")[:2]
    return int.from_bytes(value, "little") if len(value) == 2 else None


def text(facts: Facts, tag: int) -> str:
    """Return an element of VR CS or IS without its padding, empty where it is absent."""
    return facts.get(tag, b"").decode("latin-1").strip(" \0")


def definite_vr(tag: int, vr: str, facts: Facts) -> str:
    """Return which of several VRs an element written without one has (PS3.5 Annex A, PS3.6).

    `facts` are those of the element's own data set over those of the sets around it.
    """
    if " or " not in vr:
        return vr
    if vr == "US or SS":
        return "SS" if unsigned(facts, REPRESENTATION) == 1 else "US"
    if tag == LUT_DATA:
        return "US" if unsigned(facts, LUT_DESCRIPTOR) == 1 else "OW"
    bits = None
    if tag == PIXEL_DATA:
        bits = unsigned(facts, BITS_ALLOCATED)
    elif tag >> 16 == 0x5400:
        bits = unsigned(facts, WAVEFORM_BITS)
    return "OB" if bits is not None and bits <= 8 else "OW"
