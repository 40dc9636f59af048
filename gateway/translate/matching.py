"""Match an archive's answer against a key: PS3.4 C.2.2.2, value representation by value representation."""

import re
from functools import lru_cache
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_RANGE_VRS = frozenset({"DA", "TM", "DT"})
_NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})


def values(element: DataElement | None) -> list[str]:
    """Give an element's values as text without padding; none for an absent or empty one."""
    if element is None or element.value is None:
        return []
    value: Any = element.value
    many = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return [text for one in many if (text := str(one).strip(" \0"))]


def is_universal(element: DataElement) -> bool:
    """Say whether a key matches everything (PS3.4 C.2.2.2.3 and C.2.2.2.4)."""
    if element.VR == "SQ":
        return not element.value or all(is_universal(key) for key in element.value[0])
    found = values(element)
    return not found or (element.VR in _WILDCARD_VRS and all(set(one) == {"*"} for one in found))


def matches_key(key: DataElement, entity: Dataset) -> bool:
    """Say whether an entity matches one key."""
    if is_universal(key):
        return True
    element = entity.get(key.tag)
    if key.VR == "SQ":
        items = element.value if element is not None and element.VR == "SQ" else []
        return any(all(matches_key(inner, item) for inner in key.value[0]) for item in items)
    return any(_matches(key.VR, wanted, found) for wanted in values(key) for found in values(element))


def _matches(vr: str, wanted: str, found: str) -> bool:
    if vr == "UI":
        return wanted == found
    if vr in _RANGE_VRS:
        return _in_range(vr, wanted, found)
    if vr in _NUMBER_VRS:
        return _number(wanted) is not None and _number(wanted) == _number(found)
    if vr == "PN":
        return _person_name(wanted, found)
    if vr in _WILDCARD_VRS:
        return _pattern(wanted).fullmatch(found) is not None
    return wanted == found


@lru_cache(maxsize=1024)
def _pattern(wanted: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in wanted)
    return re.compile("".join(parts), re.DOTALL)


def _person_name(wanted: str, found: str) -> bool:
    """Match per component group, without regard to case; trailing empty components do not count (C.2.2.2.1.1)."""
    groups = [_group(part) for part in wanted.split("=")]
    have = [_group(part) for part in found.split("=")]
    if len(groups) == 1:
        return any(_pattern(groups[0]).fullmatch(group) for group in have if group)
    have += [""] * (len(groups) - len(have))
    return all(not part or _pattern(part).fullmatch(group) for part, group in zip(groups, have, strict=False))


def _group(text: str) -> str:
    return "^".join(part.strip() for part in text.split("^")).rstrip("^ ").casefold()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _in_range(vr: str, wanted: str, found: str) -> bool:
    """Compare in the precision given: 2024 covers the year, 10 the hour (PS3.5 6.2, PS3.4 C.2.2.2.5)."""
    low, high = bounds(vr, wanted)
    moment = digits(vr, found)
    return bool(moment) and (not low or moment.ljust(20, "0") >= low) and (not high or moment.ljust(20, "0") <= high)


def bounds(vr: str, wanted: str) -> tuple[str, str]:
    """Give the lowest and highest moment of a range or single value, empty where it is open."""
    offset = vr == "DT" and re.search(r"[0-9]-[0-9]{4}$", wanted)  # a time zone, not a range
    first, dash, last = (wanted, "", "") if offset else wanted.partition("-")
    if not dash:
        last = first
    low, high = digits(vr, first), digits(vr, last)
    return low and low.ljust(20, "0"), high and high.ljust(20, "9")


def digits(vr: str, text: str) -> str:
    """Reduce a date, time or both to its digits; the old forms yyyy.mm.dd and hh:mm:ss are understood."""
    text = text.strip()
    if vr == "DT":
        text = re.sub(r"[+-][0-9]{4}$", "", text)
    return re.sub(r"[.:]", "", text)
