"""Encode pending identifiers straight from the archive's DICOM JSON: nothing is built that is thrown away."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.translate import charset
from gateway.translate.attributes import ASCII_VRS, TEXT_VRS, Attribute
from gateway.translate.encode import encode_elements
from gateway.translate.encoding import SHORT_LENGTH
from gateway.translate.search import Search, answer, malformed

_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_PLAIN_VRS: Final = TEXT_VRS - {"DS"}
_LONGEST: Final = 0xFFFE
_LONG: Final = 10**11  # an IS has at most 12 characters


class _Slot(NamedTuple):
    name: str  # in the DICOM JSON model; empty for an element that is the same in all answers
    vr: str
    read: Callable[[list[Any]], str]
    empty: bytes  # the element without a value, or the one that is the same in all answers
    header: bytes  # up to the length
    length_bytes: int
    padding: bytes


class Responder:
    """Encode what `answer` gives for the rows of one search.

    Rows that are plain text are encoded here at once, all others by `encode_elements`, with the same bytes.
    `malformed` counts the attributes that were lost.
    """

    def __init__(
        self,
        search: Search,
        *,
        retrieve_aet: str,
        transfer_syntax: str,
        terms: Sequence[str] = (charset.UTF_8,),
    ) -> None:
        self.malformed = 0
        self._search = search
        self._retrieve_aet = retrieve_aet
        self._transfer_syntax = transfer_syntax
        self._terms = tuple(terms)
        names = {key.tag: key.name for key in search.return_keys}
        blank = answer(search, {}, retrieve_aet=retrieve_aet)
        self._slots = [self._slot(names.get(tag, ""), tag, attribute) for tag, attribute in blank]
        declared = Attribute("CS", list(self._terms))
        self._declaration = encode_elements([(_SPECIFIC_CHARACTER_SET, declared)], transfer_syntax)
        self._before_declaration = sum(tag < _SPECIFIC_CHARACTER_SET for tag, _ in blank)
        self._never_plain = search.zone is not None or transfer_syntax in (
            DeflatedExplicitVRLittleEndian,
            ExplicitVRBigEndian,
        )

    def encode(self, model: Mapping[str, Any]) -> bytes:
        """Encode the identifier of the pending response for one row."""
        encoded = None if self._never_plain else self._encode_plain(model)
        if encoded is None:
            self.malformed += malformed(self._search, model)
            elements = answer(self._search, model, retrieve_aet=self._retrieve_aet)
            encoded = encode_elements(elements, self._transfer_syntax, self._terms)
        return encoded

    def _slot(self, name: str, tag: int, attribute: Attribute) -> _Slot:
        vr = attribute.vr
        empty = encode_elements([(tag, attribute)], self._transfer_syntax)
        length_bytes = 2 if vr in SHORT_LENGTH and self._transfer_syntax != ImplicitVRLittleEndian else 4
        read = _READERS.get(vr, _plain_text if vr in _PLAIN_VRS else _never)
        padding = b"\0" if vr == "UI" else b" "
        return _Slot(name, vr, read, empty, empty[:-length_bytes], length_bytes, padding)

    def _encode_plain(self, model: Mapping[str, Any]) -> bytes | None:
        parts: list[bytes] = []
        is_ascii = True
        try:
            for name, vr, read, empty, header, length_bytes, padding in self._slots:
                element = model.get(name)
                if element is None:
                    if name in model or name.lower() in model:
                        return None
                    parts.append(empty)
                    continue
                if element["vr"] != vr:
                    return None
                text = read(element["Value"]) if len(element) > 1 else ""
                if text.isascii():
                    value: bytes | None = text.encode("ascii")
                else:
                    is_ascii = False
                    value = self._encode_text(vr, text)
                if value is None or (length := len(value)) > _LONGEST:
                    return None
                if length % 2:
                    value += padding
                    length += 1
                parts += header, length.to_bytes(length_bytes, "little"), value
        except (TypeError, ValueError, KeyError, AttributeError):
            return None  # whatever the archive put there is looked at more closely
        if not is_ascii:
            parts.insert(self._before_declaration, self._declaration)
        return b"".join(parts)

    def _encode_text(self, vr: str, text: str) -> bytes | None:
        """Encode a text that is not ASCII; None when its VR or the character set does not have it."""
        return None if vr in ASCII_VRS else charset.encode(text, self._terms, person_name=vr == "PN")


def _plain_text(values: list[Any]) -> str:
    """Give the values as one text; raises for what is no list of texts, as do the readers below."""
    if type(values) is not list:
        raise TypeError
    if len(values) != 1:
        return "\\".join(values)
    text: str = values[0]
    return text


def _plain_name(values: list[Any]) -> str:
    (name,) = values
    text: str = name["Alphabetic"]
    if len(name) != 1 or "=" in text or type(values) is not list:
        raise ValueError
    return text


def _plain_integers(values: list[Any]) -> str:
    if type(values) is not list or not all(type(value) is int and abs(value) < _LONG for value in values):
        raise ValueError
    return "\\".join(map(str, values))


def _never(_: list[Any]) -> str:
    raise ValueError


_READERS: Final[Mapping[str, Callable[[list[Any]], str]]] = {"PN": _plain_name, "IS": _plain_integers}
