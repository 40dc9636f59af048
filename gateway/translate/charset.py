"""Specific Character Set (0008,0005): its defined terms, and text to bytes and back without loss.

PS3.3 C.12.1.1.2 has the terms, PS3.5 6.1.2.4 and 6.1.2.5 code extension. Nothing here makes a `?` of a
character.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from pydicom.dataset import Dataset

UTF_8: Final = "ISO_IR 192"
DELIMITERS: Final = frozenset("\\\r\n\f\t")
PERSON_NAME_DELIMITERS: Final = DELIMITERS | frozenset("^=")

Errors = Literal["strict", "replace"]


class _CodedSet(NamedTuple):
    codec: str
    escape: bytes
    kind: Literal["ascii", "single", "double", "pairs"]  # pairs: two bytes in G0, in ASCII's place; the others in G1


_ASCII: Final = _CodedSet("ascii", b"\x1b(B", "ascii")
_SETS: Final = {
    "6": _ASCII,
    "13": _CodedSet("shift_jis", b"\x1b)I", "single"),
    "100": _CodedSet("latin_1", b"\x1b-A", "single"),
    "101": _CodedSet("iso8859_2", b"\x1b-B", "single"),
    "109": _CodedSet("iso8859_3", b"\x1b-C", "single"),
    "110": _CodedSet("iso8859_4", b"\x1b-D", "single"),
    "126": _CodedSet("iso8859_7", b"\x1b-F", "single"),
    "127": _CodedSet("iso8859_6", b"\x1b-G", "single"),
    "138": _CodedSet("iso8859_8", b"\x1b-H", "single"),
    "144": _CodedSet("iso8859_5", b"\x1b-L", "single"),
    "148": _CodedSet("iso8859_9", b"\x1b-M", "single"),
    "166": _CodedSet("tis_620", b"\x1b-T", "single"),
    "203": _CodedSet("iso8859_15", b"\x1b-b", "single"),
    "58": _CodedSet("gb2312", b"\x1b$)A", "double"),
    "149": _CodedSet("euc_kr", b"\x1b$)C", "double"),
    "87": _CodedSet("iso2022_jp", b"\x1b$B", "pairs"),
    "159": _CodedSet("iso2022_jp_2", b"\x1b$(D", "pairs"),
}
_ROMAJI: Final = b"\x1b(J"  # JIS X 0201: ASCII but for two signs; its backslash stays the delimiter
_BY_ESCAPE: Final = {
    **{coded.escape: coded for coded in _SETS.values()},
    _ROMAJI: _ASCII,
    b"\x1b$@": _SETS["87"],  # the older edition of JIS X 0208
}
_ALONE: Final = {UTF_8: "utf-8", "GB18030": "gb18030", "GBK": "gbk"}
_SPELLINGS: Final = {
    "UTF-8": UTF_8,
    "UTF8": UTF_8,
    "ISO IR 192": UTF_8,
    "ISO-IR 192": UTF_8,
    "ISO 2022 IR 192": UTF_8,
    "ISO 2022 GBK": "GBK",
}
_TERM: Final = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?([0-9]+)\Z")
_TOKENS: Final = re.compile(
    b"(?P<escape>%s)|(?P<stray>\x1b)|(?P<upper>[\x80-\xff]+)|(?P<lower>[^\x1b\x80-\xff]+)"
    % b"|".join(re.escape(escape) for escape in _BY_ESCAPE)
)


def defined_term(value: str) -> str | None:
    """Give the defined term (PS3.3 Tables C.12-2 to C.12-5) for a usual spelling of it; None when unknown.

    An empty value, which stands for ISO 646, is its own term.
    """
    text = value.strip(" \0").upper()
    if text in ("", *_ALONE, *_SPELLINGS):
        return _SPELLINGS.get(text, text)
    match = _TERM.match(text)
    if not match:
        return None
    extended, number = match.groups()
    coded = _SETS.get(number)
    if coded is None:
        return None
    return f"ISO 2022 IR {number}" if extended or coded.kind in ("double", "pairs") else f"ISO_IR {number}"


def defined_terms() -> tuple[str, ...]:
    """Give every defined term that is known, those with code extension after those without."""
    single = [f"ISO_IR {number}" for number, coded in _SETS.items() if coded.kind == "single"]
    return (*single, *(f"ISO 2022 IR {number}" for number in _SETS), *_ALONE)


def declared(dataset: Dataset) -> tuple[str, ...] | None:
    """Give the values of (0008,0005) as they stand, decoding nothing else; None when it is absent."""
    if "SpecificCharacterSet" not in dataset:
        return None
    value: Any = dataset.get_item("SpecificCharacterSet").value
    if isinstance(value, bytes):
        value = value.decode("latin_1").split("\\")
    return (value or "",) if isinstance(value, (str, type(None))) else tuple(str(one) for one in value)


def terms_of(dataset: Dataset, inherited: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Give the known defined terms in force in a data set; `inherited` are those around it."""
    values = declared(dataset)
    if values is None:
        return inherited
    return tuple(term for value in values if (term := defined_term(value)) is not None)


def decode(data: bytes, terms: Sequence[str], *, person_name: bool = False, errors: Errors = "strict") -> str:
    """Decode a value of the defined `terms`; raise UnicodeError when the bytes are not text in them.

    Without a term ISO 646 holds (PS3.5 6.1.2.1), but many senders leave (0008,0005) out: then bytes above 127
    are read as UTF-8 if they are that, else as ISO_IR 100. Escape sequences are followed even if not declared.
    """
    if data.isascii() and b"\x1b" not in data:
        return data.decode("ascii")
    if codec := _alone(terms):
        return data.decode(codec, errors)
    sets = _coded_sets(terms)
    if not sets and b"\x1b" not in data:
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin_1")
    # Value 1 is in G1 from the start. Senders also leave out the first escape sequence to a later value.
    first = next((coded for coded in sets if coded.kind != "pairs"), None)
    return _decode_extended(data, first, PERSON_NAME_DELIMITERS if person_name else DELIMITERS, errors)


def _alone(terms: Sequence[str]) -> str | None:
    return next((codec for term, codec in _ALONE.items() if term in terms), None)


def _coded_sets(terms: Sequence[str]) -> list[_CodedSet]:
    numbers = (term.rpartition(" ")[2] for term in terms if term and term not in _ALONE)
    return [coded for number in numbers if (coded := _SETS[number]) is not _ASCII]


def _decode_extended(data: bytes, first: _CodedSet | None, delimiters: frozenset[str], errors: Errors) -> str:
    text: list[str] = []
    pairs: _CodedSet | None = None  # what G0 holds when it is not ASCII
    upper = first  # what G1 holds
    for token in _TOKENS.finditer(data):
        part = token.group()
        if chosen := _BY_ESCAPE.get(part):
            if chosen.kind in ("single", "double"):
                upper = chosen
            else:
                pairs = chosen if chosen.kind == "pairs" else None
        elif token.lastgroup == "upper":
            text.append(part.decode(upper.codec if upper else "ascii", errors))
        elif token.lastgroup == "stray":
            text.append(b"\xff".decode("ascii", errors))  # an unknown escape sequence: not text
        elif pairs:
            text.append((pairs.escape + part).decode(pairs.codec, errors))
        else:
            text.append(part.decode("ascii"))
            upper = upper if delimiters.isdisjoint(text[-1]) else first
    return "".join(text)


def encode(text: str, terms: Sequence[str], *, person_name: bool = False) -> bytes | None:
    """Encode a value in the defined `terms`, with escape sequences; None when it does not fit them."""
    if text.isascii():
        return text.encode("ascii")
    if codec := _alone(terms):
        try:
            return text.encode(codec)
        except UnicodeEncodeError:
            return None
    return _encode_extended(text, terms, PERSON_NAME_DELIMITERS if person_name else DELIMITERS)


def _encode_extended(text: str, terms: Sequence[str], delimiters: frozenset[str]) -> bytes | None:
    sets = _coded_sets(terms)
    first = next((coded for coded in _coded_sets(terms[:1]) if coded.kind == "single"), None)
    to_ascii = _ROMAJI if first and first.codec == "shift_jis" else _ASCII.escape
    out = bytearray()
    pairs: _CodedSet | None = None
    upper = first
    for character in text:
        if character.isascii():
            if pairs:
                out += to_ascii
                pairs = None
            upper = first if character in delimiters else upper
            out += character.encode()
            continue
        chosen, code = _choose(character, sets)
        if chosen is None:
            return None
        if chosen not in (pairs, upper):
            out += chosen.escape
        pairs, upper = (chosen, upper) if chosen.kind == "pairs" else (pairs, chosen)
        out += code
    return bytes(out + to_ascii if pairs else out)


def _choose(character: str, sets: Sequence[_CodedSet]) -> tuple[_CodedSet | None, bytes]:
    for coded in sets:
        try:
            code = character.encode(coded.codec)
        except UnicodeEncodeError:
            continue
        if coded.kind == "pairs":
            if code.startswith(coded.escape):
                return coded, code[len(coded.escape) : len(coded.escape) + 2]
        elif code[0] >= 0x80 and len(code) == (1 if coded.kind == "single" else 2):
            return coded, code  # Python also has multi-byte codes in shift_jis and composed syllables in euc_kr
    return None, b""
