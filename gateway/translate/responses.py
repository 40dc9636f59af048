"""Encode pending identifiers straight from the archive's DICOM JSON: nothing is built that is thrown away."""

from collections.abc import Mapping, Sequence
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


class _Slot(NamedTuple):
    name: str  # in the DICOM JSON model; empty for an element that is the same in all answers
    vr: str
    empty: bytes  # the element without a value, or the one that is the same in all answers
    length_bytes: int


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
        self._slots = [
            _Slot(
                names.get(tag, ""),
                attribute.vr,
                encode_elements([(tag, attribute)], transfer_syntax),
                2 if attribute.vr in SHORT_LENGTH and transfer_syntax != ImplicitVRLittleEndian else 4,
            )
            for tag, attribute in blank
        ]
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

    def _encode_plain(self, model: Mapping[str, Any]) -> bytes | None:
        parts: list[bytes] = []
        is_ascii = True
        for name, vr, empty, length_bytes in self._slots:
            element = model.get(name)
            if element is None:
                if name in model or name.lower() in model:
                    return None
                parts.append(empty)
                continue
            text = _plain_text(vr, element)
            if text is None or (value := _plain_value(vr, text, self._terms)) is None:
                return None
            is_ascii = is_ascii and text.isascii()
            parts += empty[:-length_bytes], len(value).to_bytes(length_bytes, "little"), value
        if not is_ascii:
            parts.insert(self._before_declaration, self._declaration)
        return b"".join(parts)


def _plain_text(vr: str, element: object) -> str | None:
    """Give the values as one text; None for what has to be looked at more closely."""
    if not isinstance(element, dict) or element.get("vr") != vr or vr not in _PLAIN_VRS:
        return None
    values = element.get("Value")
    if not isinstance(values, list):
        return "" if len(element) == 1 else None
    try:
        if vr == "PN":
            (name,) = values
            return name["Alphabetic"] if len(name) == 1 and "=" not in name["Alphabetic"] else None
        if vr == "IS":
            is_short = all(type(value) is int and abs(value) < 10**11 for value in values)
            return "\\".join(map(str, values)) if is_short else None
        return "\\".join(values)
    except (TypeError, ValueError, KeyError, IndexError):
        return None


def _plain_value(vr: str, text: str, terms: Sequence[str]) -> bytes | None:
    """Encode and pad a text; None when it is too long, does not fit the character set or is not its VR's."""
    if text.isascii():
        value = text.encode("ascii")
    elif vr in ASCII_VRS or (encoded := charset.encode(text, terms, person_name=vr == "PN")) is None:
        return None
    else:
        value = encoded
    if len(value) > _LONGEST:
        return None
    return value + (b"\0" if vr == "UI" else b" ") if len(value) % 2 else value
