"""Judge attributes by the rules of their VRs, as the strictest service does before it stores them (PS3.5 6.2)."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_LONGEST: Final = {"AE": 16, "LO": 64, "LT": 10_240, "SH": 16, "ST": 1024}
_NO_CONTROL: Final = frozenset({"AE", "LO", "SH", "PN"})
_CONTROL: Final = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f]")
_LONGEST_GROUP: Final = 64
_MOST_COMPONENTS: Final = 5
_MONTH: Final = r"(0[1-9]|1[0-2])"
_DAY: Final = r"(0[1-9]|[12][0-9]|3[01])"
_TIME: Final = r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?"
_ZONE: Final = r"[+-](0[0-9]|1[0-4])[0-5][0-9]"
_FORMS: Final = {
    "AS": re.compile(r"[0-9]{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "DA": re.compile(f"[0-9]{{4}}{_MONTH}{_DAY}"),
    "DT": re.compile(f"[0-9]{{4}}({_MONTH}({_DAY}({_TIME})?)?)?({_ZONE})?"),
    "TM": re.compile(_TIME),
    "UI": re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*"),
}


def findings(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield tag and complaint of each attribute, at any depth, with a value that is none of its VR."""
    for tag, attribute in model.items():
        values = attribute.get("Value") or ()
        vr = attribute["vr"]
        if vr == "SQ":
            for item in values:
                yield from findings(item)
        elif vr in _CHECKS and not all(value is None or _CHECKS[vr](vr, value) for value in values):
            yield tag, f"DICOM100: ({tag[:4].lower()},{tag[4:].lower()}) - the value is not of VR {vr}"


def _is_text(vr: str, value: Any) -> bool:
    return len(value) <= _LONGEST[vr] and not (vr in _NO_CONTROL and _CONTROL.search(value))


def _has_form(vr: str, value: Any) -> bool:
    return _FORMS[vr].fullmatch(value) is not None


def _is_name(_: str, value: Any) -> bool:
    return all(
        len(group) <= _LONGEST_GROUP and group.count("^") < _MOST_COMPONENTS and not _CONTROL.search(group)
        for group in value.values()
    )


def _is_integer(_: str, value: Any) -> bool:
    return isinstance(value, int) and -(2**31) <= value < 2**31


def _is_number(_: str, value: Any) -> bool:
    return not isinstance(value, str)


_CHECKS: Final[Mapping[str, Callable[[str, Any], bool]]] = {
    **dict.fromkeys(_LONGEST, _is_text),
    **dict.fromkeys(_FORMS, _has_form),
    "PN": _is_name,
    "IS": _is_integer,
    "DS": _is_number,
}
