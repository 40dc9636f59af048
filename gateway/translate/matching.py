"""Matching of entities against the keys of an identifier (PS3.4 C.2.2.2), on the DICOM JSON model.

| key of VR | matched how |
|---|---|
| AE CS LO LT SH ST UC UR UT | exactly or with `*` and `?`, case-sensitive |
| PN | `gateway.translate.person_name` |
| UI | any of a list of UIDs |
| DA TM DT | as moments: a value, or a range open on either side; reversed ranges are refused |
| IS DS and binary numbers | as numbers |
| AS AT | exactly |
| SQ | at least one item matches all item keys |

Padding never counts. A key of several values asks for any of them; an attribute of several values matches when any
of its values does. An entity without a value matches nothing but a universal key and the empty value.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from gateway.errors import IdentifierError
from gateway.translate import charset, moments, person_name
from gateway.translate.attributes import (
    DECIMAL,
    INTEGERS,
    SINGLE_TEXT_VRS,
    TEXT_VRS,
    Attribute,
    known_vrs,
    read_json,
    read_tag,
)
from gateway.translate.elements import read_element

Model = Mapping[str, Any]
"""An entity in the DICOM JSON model (PS3.18 F.2)."""
Test = Callable[[list[Any]], bool]

WILDCARD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""VRs in which `*` and `?` are wildcards (PS3.4 C.2.2.2.4)."""
_MOMENT_VRS: Final = frozenset({"DA", "TM", "DT"})
_NUMBER_VRS: Final = frozenset({"IS", "DS"})
_AS_THEY_ARE: Final = TEXT_VRS - _NUMBER_VRS - {"PN"}
"""VRs whose values in the DICOM JSON model are those of an attribute, if they are ASCII."""
_BINARY_VRS: Final = frozenset({*INTEGERS, "FL", "FD", "AT"})
_EMPTY_VALUE: Final = '""'
_READERS: Final[Mapping[str, moments.Reader]] = {"DA": moments.read_date, "TM": moments.read_time}
UID: Final = re.compile(r"[0-9.]{1,64}")
MAX_DEPTH: Final = 16
"""Levels of sequences in an identifier."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Hold what SOP Class Extended Negotiation allows in queries and retrieves (PS3.4 C.5.1.1)."""

    relational: bool = False
    combined_datetime: bool = False
    fuzzy: bool = False
    timezone: bool = False
    empty_value: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """Hold one test that an entity must pass; `kind` says in the standard's words how it is matched."""

    keyword: str
    kind: str
    test: Callable[[Model], bool]


@dataclass(frozen=True, slots=True)
class Key:
    """Hold one attribute of an identifier; the items of a sequence have keys and conditions of their own."""

    tag: int
    vr: str
    values: tuple[Any, ...]
    items: tuple["Key", ...] = ()
    item_conditions: tuple[Condition, ...] = ()
    name: str = field(init=False)
    """The name in the DICOM JSON model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.tag:08X}")

    @property
    def keyword(self) -> str:
        """Give the keyword, or the tag of an element that has none."""
        return keyword_of(self.tag)

    @property
    def is_universal(self) -> bool:
        """Tell whether the key matches every entity and only asks for the attribute (PS3.4 C.2.2.2.3)."""
        if self.vr == "SQ":
            return not self.item_conditions
        asked = [value for value in self.values if value != ""]
        return not asked or any(isinstance(value, str) and not value.strip("*") for value in asked)


def keyword_of(tag: int) -> str:
    """Give the keyword of a tag; unknown and private ones are written (gggg,eeee)."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_keys(identifier: Dataset, negotiated: Negotiated) -> tuple[Key, ...]:
    """Read the keys of an identifier in ascending order; raises IdentifierError."""
    return _read_keys(identifier, negotiated, (), 0)


def _read_keys(identifier: Dataset, negotiated: Negotiated, terms: Sequence[str], depth: int) -> tuple[Key, ...]:
    terms = charset.terms_of(identifier, tuple(terms))
    tags = sorted(tag for tag in identifier.keys() if read_tag(f"{tag:08X}"))  # noqa: SIM118  a Dataset yields elements
    return tuple(_read_key(identifier, tag, negotiated, terms, depth) for tag in tags)


def _read_key(identifier: Dataset, tag: BaseTag, negotiated: Negotiated, terms: Sequence[str], depth: int) -> Key:
    attribute = read_element(identifier, tag, terms)
    if attribute is None:
        raise IdentifierError(keyword_of(tag), "the value cannot be read")
    vr, values = attribute
    known = known_vrs(tag)
    if known and vr not in known:
        if not {vr, known[0]} <= TEXT_VRS:
            raise IdentifierError(keyword_of(tag), f"the VR is {vr} instead of {known[0]}")
        vr = known[0]
    if vr != "SQ":
        return Key(int(tag), vr, tuple(_stripped(vr, value) for value in values))
    if len(values) > 1 or depth >= MAX_DEPTH:
        raise IdentifierError(keyword_of(tag), "a sequence key has one item, and not more than 16 levels")
    items = _read_keys(values[0], negotiated, terms, depth + 1) if values else ()
    return Key(int(tag), "SQ", (), items, conditions(items, negotiated))


def _stripped(vr: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.rstrip() if vr in SINGLE_TEXT_VRS else value.strip()


def conditions(keys: Iterable[Key], negotiated: Negotiated, offset: int = 0) -> tuple[Condition, ...]:
    """Build the tests of all keys that are not universal; raises IdentifierError for a value that cannot be one.

    `offset` in minutes east of UTC is that of DT values without one.
    """
    asked = {key.keyword: key for key in keys if not key.is_universal}
    built = []
    for keyword, key in asked.items():
        partner = _partner(key, asked) if negotiated.combined_datetime else None
        if partner and key.vr == "DA":
            built.append(_combined(key, partner))
        elif not partner:
            condition = _condition(key, keyword, negotiated, offset)
            built += [condition] if condition else []
    return tuple(built)


def _condition(key: Key, keyword: str, negotiated: Negotiated, offset: int) -> Condition | None:
    if key.vr == "SQ":
        return Condition(keyword, "sequence", partial(_any_item, key))
    if key.values == (_EMPTY_VALUE,) and negotiated.empty_value:
        return Condition(keyword, "empty value", lambda model: not any(values_of(model, key)))
    kind, test = _test(key, negotiated, offset)
    return Condition(keyword, kind, lambda model: test(values_of(model, key))) if test else None


def values_of(model: Model, key: Key) -> list[Any]:
    """Give an entity's values of a key's attribute; none when it is absent, malformed or of a VR of another kind."""
    element = model.get(key.name)
    if key.vr in _AS_THEY_ARE and type(element) is dict and element.get("vr") == key.vr:
        values = element.get("Value")
        if type(values) is list and all(type(value) is str and value.isascii() for value in values):
            return values  # nearly always, and then there is nothing to convert
    attribute = attribute_of(model, key)
    return attribute.values if attribute and _kind(attribute.vr) == _kind(key.vr) else []


def attribute_of(model: Model, key: Key) -> Attribute | None:
    """Read an entity's attribute; None when it is absent or malformed."""
    element = model.get(key.name) or model.get(key.name.lower())
    return None if element is None else read_json(key.tag, element)


def text_of(model: Model, tag: int) -> str:
    """Give the first value of a text attribute without padding; empty when there is none."""
    attribute = attribute_of(model, Key(tag, "", ()))
    values = attribute.values if attribute and attribute.vr in TEXT_VRS else []
    return values[0].strip(" \0") if values else ""


def _kind(vr: str) -> str:
    return "text" if vr in TEXT_VRS else "number" if vr in _BINARY_VRS else vr


def _any_item(key: Key, model: Model) -> bool:
    return any(satisfies(item, key.item_conditions) for item in values_of(model, key))


def satisfies(model: Model, wanted: Iterable[Condition]) -> bool:
    """Tell whether an entity passes every test."""
    return all(condition.test(model) for condition in wanted)


def _test(key: Key, negotiated: Negotiated, offset: int) -> tuple[str, Test | None]:
    values = [value for value in key.values if value != ""]
    if key.vr == "PN":
        return "person name", _name_test(values, negotiated)
    if key.vr == "UI":
        return ("list of UID" if len(values) > 1 else "single value"), _uid_test(key.keyword, values)
    if key.vr in _MOMENT_VRS:
        return _moment_test(key, values, offset)
    if key.vr in TEXT_VRS - _NUMBER_VRS:
        return _text_test(key.vr, values)
    return "number", _number_test(key, values)


def _name_test(values: Sequence[str], negotiated: Negotiated) -> Test | None:
    build = [person_name.name_test, person_name.fuzzy_test] if negotiated.fuzzy else [person_name.name_test]
    tests = [make(value) for make in build for value in values]
    wanted = [test for test in tests if test]
    if len(wanted) < len(tests):
        return None
    return lambda found: any(test(name) for name in found if name for test in wanted)


def _uid_test(keyword: str, values: Sequence[str]) -> Test:
    if not all(UID.fullmatch(value) for value in values):
        raise IdentifierError(keyword, "not a UID; UIDs have no wildcards")
    wanted = frozenset(values)
    return lambda found: any(uid.strip(" \0") in wanted for uid in found)


def _moment_test(key: Key, values: Sequence[str], offset: int) -> tuple[str, Test]:
    read = partial(moments.read_datetime, offset=offset) if key.vr == "DT" else _READERS[key.vr]
    intervals = [_interval(key, value, offset) for value in values]

    def test(found: list[Any]) -> bool:
        known = [moment.first for value in found if (moment := read(value))]
        return any(interval.holds(moment) for interval in intervals for moment in known)

    return ("range" if any("-" in value for value in values) else "single value"), test


def _interval(key: Key, value: str, offset: int = 0) -> moments.Interval:
    interval = moments.read_key(key.vr, value, offset)
    if interval is None:
        raise IdentifierError(key.keyword, f"not a value or a range of VR {key.vr}")
    if None not in interval and interval.first > interval.last:  # type: ignore[operator]
        raise IdentifierError(key.keyword, "the range runs backwards")
    return interval


def _number_test(key: Key, values: Sequence[Any]) -> Test | None:
    if key.vr in _BINARY_VRS:
        return lambda found: any(value in values for value in found)
    if key.vr not in _NUMBER_VRS:
        return None
    if not all(DECIMAL.fullmatch(value) for value in values):
        raise IdentifierError(key.keyword, "not a number; numbers have no wildcards and no ranges")
    wanted = frozenset(Decimal(value) for value in values)
    return lambda found: any(
        DECIMAL.fullmatch(text) and Decimal(text) in wanted for value in found if (text := value.strip())
    )


def _text_test(vr: str, values: Sequence[str]) -> tuple[str, Test]:
    has_wildcard = [vr in WILDCARD_VRS and ("*" in value or "?" in value) for value in values]
    exact = frozenset(value for value, wild in zip(values, has_wildcard, strict=True) if not wild)
    patterns = [person_name.wildcard(value) for value, wild in zip(values, has_wildcard, strict=True) if wild]

    def test(found: list[Any]) -> bool:
        texts = [_stripped(vr, value) for value in found if value]
        return any(text in exact or any(pattern.fullmatch(text) for pattern in patterns) for text in texts)

    return ("wildcard" if patterns else "single value"), test


def _partner(key: Key, asked: Mapping[str, Key]) -> Key | None:
    """Find the DA of a TM, or the TM of a DA, when both ask for the same form of range (PS3.4 C.2.2.2.5.4)."""
    ends = {"DA": ("Date", "Time"), "TM": ("Time", "Date")}.get(key.vr)
    if not ends or not key.keyword.endswith(ends[0]):
        return None
    partner = asked.get(key.keyword.removesuffix(ends[0]) + ends[1])
    if partner is None or _form(partner) is None or _form(partner) != _form(key):
        return None
    return partner


def _form(key: Key) -> tuple[bool, bool] | None:
    if len(key.values) != 1:
        return None
    interval = moments.read_key(key.vr, key.values[0])
    if interval is None or "-" not in key.values[0]:
        return None
    return interval.first is None, interval.last is None


def _combined(dates: Key, times: Key) -> Condition:
    days = moments.read_key("DA", dates.values[0])
    clock = moments.read_key("TM", times.values[0])
    if days is None or clock is None:
        raise IdentifierError(dates.keyword, "not a range of dates")
    first = None if days.first is None or clock.first is None else days.first * moments.DAY + clock.first
    last = None if days.last is None or clock.last is None else days.last * moments.DAY + clock.last
    if first is not None and last is not None and first > last:
        raise IdentifierError(dates.keyword, "the range of date and time runs backwards")
    interval = moments.Interval(first, last)

    def test(model: Model) -> bool:
        day = _first(moments.read_date, values_of(model, dates))
        time = _first(moments.read_time, values_of(model, times))
        return day is not None and time is not None and interval.holds(day * moments.DAY + time)

    return Condition(dates.keyword, "combined date and time range", test)


def _first(read: moments.Reader, values: list[Any]) -> int | None:
    return next((moment.first for value in values if (moment := read(value))), None)
