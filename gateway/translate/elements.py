"""The value field of an element (PS3.5 6.2) to an attribute's values, whatever a peer or a file put there."""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag

from gateway.translate import charset
from gateway.translate.attributes import (
    BULK_VRS,
    CHARSET_VRS,
    SINGLE_TEXT_VRS,
    TEXT_VRS,
    VRS,
    Attribute,
    known_vrs,
)
from gateway.translate.encoding import WORD, swapped

NUMBER_FORMATS: Final = {
    "SS": "h",
    "US": "H",
    "SL": "i",
    "UL": "I",
    "SV": "q",
    "UV": "Q",
    "FL": "f",
    "FD": "d",
}
"""`struct` formats of the binary numbers (PS3.5 Table 6.2-1)."""


def read_element(
    dataset: Dataset, tag: BaseTag, terms: Sequence[str], *, errors: charset.Errors = "replace"
) -> Attribute | None:
    """Read one element without pydicom's conversions; None when its bytes cannot be values of its VR.

    `terms` are the defined terms in force. The values of a sequence are data sets. Raises UnicodeError when
    `errors` is "strict" and a text is not in that character set.
    """
    element = dataset.get_item(tag, keep_deferred=True)  # else pydicom converts what has no value, and may fail
    if isinstance(element, DataElement):
        return Attribute(element.VR, _python_values(element)) if element.VR in VRS else None
    vr = element.VR
    if vr in (None, "UN"):  # UN is written by those who did not know the tag; we may (PS3.5 6.2.2)
        vr = _implied_vr(dataset, tag)
    if vr == "SQ":
        return _read_items(element)
    if vr not in VRS:
        return None
    values = _decode_value(vr, element, terms, errors)
    return None if values is None else Attribute(vr, values)


def _implied_vr(dataset: Dataset, tag: BaseTag) -> str:
    """Give the VR that Implicit VR leaves to the dictionary (PS3.5 Annex A.1); private elements are UN."""
    known = known_vrs(tag)
    if tag.is_private or not known:
        return "LO" if tag.is_private_creator else "UN"
    if "SS" in known and "US" in known:
        signed = dataset.get("PixelRepresentation", 0) if "PixelRepresentation" in dataset else 0
        return "SS" if signed == 1 else "US"
    return "OW" if "OW" in known else known[0]


def _read_items(element: RawDataElement) -> Attribute | None:
    data = element.value or b""
    is_implicit = element.is_implicit_VR or element.VR == "UN"
    try:
        # Any encoding will do here: texts are decoded from their bytes, in the character set in force.
        items = read_sequence(BytesIO(data), is_implicit, element.is_little_endian, len(data), "ascii")
    except Exception:  # noqa: BLE001  what pydicom raises for damaged items is not documented
        return None
    return Attribute("SQ", list(items))


def _python_values(element: DataElement) -> list[Any]:
    if element.is_empty and element.VR != "SQ":
        return []
    value = element.value
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    if element.VR in ("DS", "IS"):
        return ["" if one in (None, "") else str(getattr(one, "original_string", one)) for one in values]
    if element.VR in TEXT_VRS:
        return ["" if one is None else str(one) for one in values]
    if element.VR == "AT":
        return [int(one) for one in values]
    return values


def _decode_value(vr: str, element: RawDataElement, terms: Sequence[str], errors: charset.Errors) -> list[Any] | None:
    data = element.value
    if not data:
        return []
    if vr in TEXT_VRS:
        return _decode_text(vr, data, terms, errors)
    if vr in BULK_VRS:
        return [data if element.is_little_endian or vr not in WORD else swapped(data, WORD[vr])]
    order = "<" if element.is_little_endian else ">"
    try:
        if vr == "AT":
            return [group << 16 | number for group, number in struct.iter_unpack(f"{order}HH", data)]
        return [value for (value,) in struct.iter_unpack(order + NUMBER_FORMATS[vr], data)]
    except struct.error:
        return None


def _decode_text(vr: str, data: bytes, terms: Sequence[str], errors: charset.Errors) -> list[str]:
    data = data.rstrip(b"\0 ")
    if vr in CHARSET_VRS:
        text = charset.decode(data, terms, person_name=vr == "PN", errors=errors)
    else:
        text = data.decode("ascii", errors)
    if not text:
        return []
    return [text] if vr in SINGLE_TEXT_VRS else [value.rstrip(" \0") for value in text.split("\\")]
