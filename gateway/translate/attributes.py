"""One attribute in Python terms: the hub between DICOM JSON, encoded elements and pydicom's data sets.

Text VRs, IS and DS included, hold `str`; PN holds `Alphabetic=Ideographic=Phonetic`; binary numbers hold
`int` or `float`; AT holds the tag as `int`; SQ holds its items; OB and its like hold one `bytes`.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_VR

BULK_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""The VRs that archives leave out of metadata, at all depths."""
ASCII_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
"""Text VRs outside the Specific Character Set (PS3.5 6.1.2.2)."""
CHARSET_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Text VRs encoded in the Specific Character Set."""
SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
"""Text VRs of one value, in which a backslash is an ordinary character (PS3.5 6.4)."""
TEXT_VRS: Final = ASCII_VRS | CHARSET_VRS
INTEGERS: Final = {
    "SS": (-(2**15), 2**15 - 1),
    "US": (0, 2**16 - 1),
    "SL": (-(2**31), 2**31 - 1),
    "UL": (0, 2**32 - 1),
    "SV": (-(2**63), 2**63 - 1),
    "UV": (0, 2**64 - 1),
}
VRS: Final = TEXT_VRS | BULK_VRS | INTEGERS.keys() | {"AT", "FD", "FL", "SQ"}

_TAG = re.compile(r"[0-9A-Fa-f]{8}\Z")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z")
DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z")
"""A DS value without padding (PS3.5 6.2)."""
_NOT_FINITE = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class Attribute(NamedTuple):
    """Hold a value representation and its values; no values means zero length."""

    vr: str
    values: list[Any]


class _MalformedError(Exception):
    """Say that a value cannot be one of its VR; never leaves this module."""


@lru_cache(maxsize=8192)
def known_vrs(tag: int) -> tuple[str, ...]:
    """Give the VRs that the data dictionary (PS3.6) allows for `tag`; empty for private and unknown ones."""
    try:
        return tuple(dictionary_VR(tag).split(" or "))
    except KeyError:
        return ()


def read_tag(key: object) -> int | None:
    """Read a DICOM JSON attribute name; None unless it is eight hexadecimal digits of a data set's group."""
    if not isinstance(key, str) or not _TAG.match(key):
        return None
    tag = int(key, 16)
    group = tag >> 16
    return tag if 0x0008 <= group < 0xFFFC and tag & 0xFFFF else None


def read_json(tag: int, element: object) -> Attribute | None:
    """Read one attribute of the DICOM JSON model (PS3.18 F.2); None when it is malformed.

    A VR other than the dictionary's is replaced by it when the values allow. The items of a sequence are
    left as they are.
    """
    if not isinstance(element, dict):
        return None
    vr = element.get("vr")
    known = known_vrs(tag)
    if known and vr not in known:
        vr = known[0]
    if vr not in VRS:
        return None
    try:
        return Attribute(vr, _json_values(vr, element))
    except _MalformedError:
        return None


def _json_values(vr: str, element: Mapping[str, Any]) -> list[Any]:
    if vr in BULK_VRS:
        return _inline_binary(element)
    values = element.get("Value")
    if values is None:
        if element.get("InlineBinary"):
            raise _MalformedError
        return []
    if not isinstance(values, list):
        values = [values]
    read = _READERS[vr]
    read_values = [read(value) for value in values]
    if vr in SINGLE_TEXT_VRS and len(read_values) > 1:
        read_values = ["\\".join(read_values)]
    if vr in TEXT_VRS and not any(read_values) and len(read_values) == 1:
        return []
    return read_values


def _inline_binary(element: Mapping[str, Any]) -> list[Any]:
    inline = element.get("InlineBinary")
    if inline is None and not element.get("Value"):
        return []
    if not isinstance(inline, str):
        raise _MalformedError
    try:
        return [base64.b64decode(inline, validate=True)]
    except (binascii.Error, ValueError) as error:
        raise _MalformedError from error


def _ascii(value: object) -> str:
    text = _text(value)
    if not text.isascii():
        raise _MalformedError
    return text


def _text(value: object) -> str:
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value)
        return value
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _MalformedError
    return str(value)


def _check_unicode(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate from a \ud8xx escape
        raise _MalformedError from error


def _person_name(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, dict):
        raise _MalformedError
    groups = [value.get(group) or "" for group in _GROUPS]
    try:
        return _text("=".join(groups).rstrip("="))
    except TypeError as error:
        raise _MalformedError from error


def integer_string(value: object) -> str:
    """Give an IS value for a number or a numeric text; "" for nothing. Raise when it is not an integer."""
    if type(value) is int and -(10**11) < value < 10**11:
        return str(value)
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _MalformedError
    if isinstance(value, str):
        value = value.strip()
        if not value or _INTEGER.match(value):
            return value
        value = _number(value)
    if not math.isfinite(value) or int(value) != value or abs(value) >= 10**12:
        raise _MalformedError
    return str(int(value))


def decimal_string(value: object) -> str:
    """Give a DS value of at most 16 characters for a number or a numeric text (PS3.5 6.2)."""
    if value is None:
        return ""
    if isinstance(value, str):
        value = value.strip()
        if not value or (len(value) <= 16 and DECIMAL.match(value)):
            return value
    number = _number(value)
    if not math.isfinite(number):
        raise _MalformedError
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    text = repr(number)
    precision = 17
    while len(text) > 16:
        precision -= 1
        text = f"{number:.{precision}g}"
    return text


def _number(value: object) -> float:
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in _NOT_FINITE:
            return _NOT_FINITE[value.lower()]
        if not DECIMAL.match(value):
            raise _MalformedError
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _MalformedError
    try:
        return float(value)
    except OverflowError as error:
        raise _MalformedError from error


def _integer_reader(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and _INTEGER.match(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _MalformedError
        return value

    return read


def _attribute_tag(value: object) -> int:
    if isinstance(value, str) and _TAG.match(value):
        return int(value, 16)
    raise _MalformedError


def _item(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _MalformedError
    return value


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    **dict.fromkeys(ASCII_VRS, _ascii),
    **dict.fromkeys(CHARSET_VRS, _text),
    **{vr: _integer_reader(low, high) for vr, (low, high) in INTEGERS.items()},
    "PN": _person_name,
    "IS": integer_string,
    "DS": decimal_string,
    "FL": _number,
    "FD": _number,
    "AT": _attribute_tag,
    "SQ": _item,
}


def write_json(attribute: Attribute) -> dict[str, Any]:
    """Give an attribute of the DICOM JSON model (PS3.18 F.2); SQ values must already be JSON items."""
    vr, values = attribute
    element: dict[str, Any] = {"vr": vr}
    if not values:
        return element
    if vr in BULK_VRS:
        element["InlineBinary"] = base64.b64encode(values[0]).decode()
    else:
        write = _WRITERS.get(vr)
        element["Value"] = [write(value) for value in values] if write else values
    return element


def _write_text(value: str) -> str | None:
    return value or None


def _write_person_name(value: str) -> dict[str, str] | None:
    return {group: text for group, text in zip(_GROUPS, value.split("="), strict=False) if text} or None


def _write_number(value: str) -> int | float | str | None:
    text = value.strip()
    if _INTEGER.match(text):
        return int(text)
    if not DECIMAL.match(text):
        return value or None
    number = float(text)
    return number if math.isfinite(number) else value


def _write_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"


_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(ASCII_VRS | CHARSET_VRS, _write_text),
    "PN": _write_person_name,
    "IS": _write_number,
    "DS": _write_number,
    "FL": _write_float,
    "FD": _write_float,
    "AT": lambda value: f"{value:08X}",
}
