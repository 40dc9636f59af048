"""Read the query of a QIDO-RS request as strictly as the strictest service does (PS3.18 10.6)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

STUDY: Final = "study"
SERIES: Final = "series"
INSTANCE: Final = "instance"

FILTERS: Final = {
    STUDY: (
        "StudyInstanceUID",
        "StudyDate",
        "StudyDescription",
        "AccessionNumber",
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "ReferringPhysicianName",
        "ModalitiesInStudy",
    ),
    SERIES: ("SeriesInstanceUID", "Modality", "PerformedProcedureStepStartDate", "ManufacturerModelName"),
    INSTANCE: ("SOPInstanceUID",),
}
"""What can be searched, by level."""

LEVELS: Final = (STUDY, SERIES, INSTANCE)

UIDS: Final = {STUDY: "StudyInstanceUID", SERIES: "SeriesInstanceUID", INSTANCE: "SOPInstanceUID"}
COLUMNS: Final = {
    level: tuple(name for name in FILTERS[level] if name not in {UIDS[level], "ModalitiesInStudy"})
    for level in (STUDY, SERIES)
}
"""What is searched by its own value, by level."""
TAGS: Final = {name: f"{tag_for_keyword(name) or 0:08X}" for names in FILTERS.values() for name in names}
"""The tags of everything that can be searched."""
_OPTIONS: Final = frozenset({"limit", "offset", "fuzzymatching", "includefield"})
_UID: Final = re.compile(r"[0-9.]{0,63}[0-9]", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{8}", re.ASCII)


class QueryError(Exception):
    """Say why the service refuses a query; the message holds no value of it."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Hold one search key: a folded value, or for a date a range whose ends may be empty."""

    keyword: str
    level: str
    value: str
    until: str | None = None


@dataclass(slots=True)
class Query:
    """Hold a query that was understood; `include` has tags, `everything` is includefield=all."""

    filters: list[Filter] = field(default_factory=list)
    include: set[int] = field(default_factory=set)
    everything: bool = False
    fuzzy: bool = False
    limit: int = 100
    offset: int = 0


def is_uid(value: str) -> bool:
    """Say whether the service takes `value` for a UID."""
    return _UID.fullmatch(value.rstrip(" \0")) is not None


def folded(keyword: str, value: str) -> str:
    """Fold a value for comparison: without regard to case and trailing blanks, for names to accents too."""
    value = value.rstrip(" \0").casefold()
    if keyword in {"PatientName", "ReferringPhysicianName"}:
        value = "".join(c for c in unicodedata.normalize("NFKD", value) if not unicodedata.combining(c))
    return value


def parse(parameters: Sequence[tuple[str, str]], levels: Sequence[str], path: Sequence[str] = ()) -> Query:
    """Read a decoded query; `levels` may be searched, the keywords in `path` are in the URL. Raises QueryError."""
    query = Query()
    seen = set(path)
    options: dict[str, str] = {}
    fields: list[str] = []
    for name, raw in parameters:
        value = raw.strip()
        if not value:
            raise QueryError("a parameter has no value")
        option = name.lower()
        if option == "includefield":
            fields += value.split(",")
            continue
        keyword = option if option in _OPTIONS else _keyword(name)
        if keyword in seen:
            raise QueryError("an attribute or option occurs twice")
        seen.add(keyword)
        if option in _OPTIONS:
            options[option] = value
        else:
            query.filters.append(_filter(keyword, value, levels))
    _read_options(query, options)
    if query.fuzzy and any('"' in one.value for one in query.filters):
        raise QueryError("a quotation mark cannot be matched fuzzily")
    _read_fields(query, fields)
    return query


def _keyword(name: str) -> str:
    keyword = keyword_for_tag(int(name, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else name
    if not any(keyword in names for names in FILTERS.values()):
        raise QueryError("a parameter is not an attribute that can be searched")
    return keyword


def _filter(keyword: str, value: str, levels: Sequence[str]) -> Filter:
    level = next((level for level in levels if keyword in FILTERS[level]), None)
    if level is None:
        raise QueryError(f"{keyword} cannot be searched in this resource")
    if keyword.endswith("Date"):
        return _date_filter(keyword, level, value)
    return Filter(keyword, level, folded(keyword, value))


def _date_filter(keyword: str, level: str, value: str) -> Filter:
    begin, dash, end = value.partition("-")
    for day in (begin, end):
        if day and not _is_date(day):
            raise QueryError(f"{keyword} has no date for its value")
    if not dash:
        return Filter(keyword, level, begin)
    if not (begin or end) or (begin and end and begin > end):
        raise QueryError(f"{keyword} has no range of dates for its value")
    return Filter(keyword, level, begin, end)


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _read_options(query: Query, options: dict[str, str]) -> None:
    fuzzy = options.get("fuzzymatching", "false").lower()
    if fuzzy not in {"true", "false"}:
        raise QueryError("fuzzymatching is not a boolean")
    query.fuzzy = fuzzy == "true"
    query.limit = _number(options.get("limit", "100"), 1, 200)
    query.offset = _number(options.get("offset", "0"), 0, 2**31 - 1)


def _number(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or not low <= int(text) <= high:
        raise QueryError("limit or offset is not a number within its bounds")
    return int(text)


def _read_fields(query: Query, fields: list[str]) -> None:
    names = [name.strip() for name in fields]
    if any(name.lower() == "all" for name in names):
        if len(names) > 1:
            raise QueryError("includefield=all does not go with other fields")
        query.everything = True
        return
    query.include = {_field(name) for name in names}


def _field(name: str) -> int:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        tag = int(name, 16)
        if not (tag >> 16) % 2:
            try:
                dictionary_VR(tag)
            except KeyError as error:
                raise QueryError("includefield names an unknown attribute") from error
        return tag
    known = tag_for_keyword(name) if name else None
    if known is None:
        raise QueryError("includefield names an unknown attribute")
    return known
