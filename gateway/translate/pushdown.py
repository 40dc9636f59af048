"""Which searches (PS3.18 10.6) to send for the keys of an identifier: their union is a superset of the answer.

Only what every archive of the profile answers with a superset is sent; all of it is matched again here.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Final
from urllib.parse import quote

from pydicom.datadict import dictionary_VM

from gateway.translate import moments
from gateway.translate.levels import IMAGE, PATIENT, SERIES, STUDY, UNIQUE_KEYS
from gateway.translate.matching import WILDCARD_VRS, Key
from gateway.translate.profiles import Profile

MOST_COMBINATIONS: Final = 16
"""Requests that the alternatives of keys other than UIDs may multiply to; keys beyond that are matched here only."""
_UIDS_PER_REQUEST: Final = 50
_LONGEST_VALUE: Final = 512  # characters in the URL: what is longer is matched here only
_FIELD_LENGTH: Final = 9  # eight digits and a comma
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9._~*-]+")
_UNSAFE: Final = re.compile(r'[\\,"\x00-\x1f\x7f]+')
_LITERAL: Final = re.compile(r"[^*?]")

Parameters = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Hold one search: a resource below the service's root, and parameters that are not encoded yet."""

    resource: str
    parameters: Parameters


def requests(
    level: str, keys: Mapping[str, Key], fields: Sequence[int], profile: Profile, *, margin: int = 0
) -> tuple[tuple[Request, ...], frozenset[int]]:
    """Give the searches for the keys by keyword, and the tags of `fields` for which no search has room.

    Each asks for the attributes `fields`. Dates are widened by `margin` days on both sides.
    """
    searches = [
        (resource, parameters)
        for resource, filter_levels in _resources(level, keys)
        for parameters in _parameters(resource, filter_levels, keys, profile, margin)
    ]
    longest = max(
        (sum(len(quote(name + value)) + 2 for name, value in parameters) for _, parameters in searches), default=0
    )
    room = max((profile.query_length - longest) // _FIELD_LENGTH, 0)
    if len(fields) > room and profile.include_all:
        include, dropped = "all", frozenset[int]()
    else:
        include = ",".join(f"{tag:08X}" for tag in fields[:room])
        dropped = frozenset(fields[room:])
    return tuple(
        Request(resource, (*parameters, ("includefield", include))) for resource, parameters in searches
    ), dropped


def uids(keys: Mapping[str, Key], level: str) -> tuple[str, ...]:
    """Give the UIDs that a unique key names, each once; none for a universal or absent key."""
    key = keys.get(UNIQUE_KEYS[level])
    return () if key is None or key.is_universal else tuple(dict.fromkeys(value for value in key.values if value))


def _resources(level: str, keys: Mapping[str, Key]) -> list[tuple[str, tuple[str, ...]]]:
    """Give the resources to search and the levels whose attributes each takes as filters."""
    studies, series = uids(keys, STUDY), uids(keys, SERIES)
    resources: list[tuple[str, tuple[str, ...]]]
    if level in (PATIENT, STUDY):
        resources = [("studies", (STUDY,))]
    elif level == SERIES:
        resources = [(f"studies/{study}/series", (SERIES,)) for study in studies]
        resources = resources or [("series", (STUDY, SERIES))]
    elif len(studies) == 1 and series:
        resources = [(f"studies/{studies[0]}/series/{one}/instances", (IMAGE,)) for one in series]
    else:
        resources = [(f"studies/{study}/instances", (SERIES, IMAGE)) for study in studies]
        resources = resources or [("instances", (STUDY, SERIES, IMAGE))]
    return resources


def _parameters(
    resource: str, filter_levels: Sequence[str], keys: Mapping[str, Key], profile: Profile, margin: int
) -> Iterable[Parameters]:
    """Give one set of filters for each combination of the values that the keys leave open."""
    filters = profile.filters
    chosen: list[list[tuple[str, str]]] = []
    combinations = 1
    for keyword, key in sorted(keys.items(), key=lambda item: item[1].vr != "UI"):
        if filters is not None and not any(keyword in filters.get(level, ()) for level in filter_levels):
            continue
        choices = choices_of(key, profile, margin)
        is_bounded = "/" in resource or key.vr != "UI"  # a list of UIDs is never worth reading all of an archive
        if not choices or (is_bounded and len(choices) > 1 and combinations * len(choices) > MOST_COMBINATIONS):
            continue
        combinations *= len(choices)
        chosen.append([(keyword, choice) for choice in choices])
    return product(*chosen)


def choices_of(key: Key, profile: Profile, margin: int = 0) -> tuple[str, ...]:
    """Give the values to send for a key, one search each; none when a search could lose an answer."""
    if key.is_universal or key.keyword.startswith("("):
        return ()
    if key.vr != "UI" and dictionary_VM(key.tag) != "1" and key.keyword != "ModalitiesInStudy":
        return ()  # archives index the first value only
    values = tuple(dict.fromkeys(value for value in key.values if value != ""))
    if key.vr == "UI":
        return _uid_lists(values) if profile.uid_list else values
    if key.vr == "DA":
        choices = tuple(_dates(value, margin) for value in values)
    elif key.vr == "PN":
        choices = tuple(_name(value, profile) for value in values)
    elif key.vr in WILDCARD_VRS:
        choices = tuple(_text(value, profile) for value in values)
    else:
        return ()
    return choices if all(0 < len(quote(choice)) <= _LONGEST_VALUE for choice in choices) else ()


def _uid_lists(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        ",".join(values[start : start + _UIDS_PER_REQUEST]) for start in range(0, len(values), _UIDS_PER_REQUEST)
    )


def _dates(value: str, margin: int) -> str:
    interval = moments.read_key("DA", value)
    if interval is None:
        return ""
    first = "" if interval.first is None else _day(interval.first - margin)
    last = "" if interval.last is None else _day(interval.last + margin)
    return first if first == last else f"{first}-{last}"


def _day(ordinal: int) -> str:
    day = date.fromordinal(min(max(ordinal, 1), date.max.toordinal()))
    return f"{day.year:04}{day.month:02}{day.day:02}"


def _text(value: str, profile: Profile) -> str:
    """Give a text as it is, or with wildcards where it cannot be sent; empty when neither yields a superset."""
    unsafe = _NOT_PLAIN if profile.plain_values_only else _UNSAFE
    sendable = not unsafe.search(value) and not any(character in value for character in profile.refused_characters)
    if _LITERAL.sub("", value) == "" and sendable:
        return value
    if not profile.wildcard:
        return ""
    loose = re.sub(r"\*+", "*", unsafe.sub("*", value))
    return loose if _LITERAL.search(loose) and not any(one in loose for one in profile.refused_characters) else ""


def _name(value: str, profile: Profile) -> str:
    """Give a name as a wildcard for any component group, whatever the case: plain characters only."""
    if not profile.name_wildcard:
        return ""
    # Composed, since a letter and its accent apart would be a letter that a composed name does not have.
    group = max(unicodedata.normalize("NFC", value).split("="), key=len)
    core = re.sub(r"\*+", "*", _NOT_PLAIN.sub("*", f"*{group}*"))
    return core if _LITERAL.search(core) else ""
