"""Turn an identifier into a search of an archive, and an archive's rows into answers (PS3.4 C.4.1, C.4.2 and C.6)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from gateway.errors import IdentifierError
from gateway.translate import charset, moments, pushdown
from gateway.translate.attributes import BULK_VRS, Attribute, read_json, read_tag
from gateway.translate.computed import COMPUTED, Computation, computation, is_supplied
from gateway.translate.dicom_json import MAX_DEPTH, from_dataset, to_element
from gateway.translate.encode import Elements
from gateway.translate.levels import IMAGE, PATIENT, SERIES, STUDY, UNIQUE_KEYS, Model, is_below
from gateway.translate.matching import (
    UID,
    Condition,
    Key,
    Negotiated,
    attribute_of,
    conditions,
    keyword_of,
    read_keys,
    satisfies,
    text_of,
)
from gateway.translate.profiles import Profile
from gateway.translate.pushdown import Request
from gateway.translate.zones import localised

__all__ = [
    "Elements",
    "Entity",
    "Model",
    "Negotiated",
    "Request",
    "Search",
    "answer",
    "expand_plan",
    "instances_of",
    "malformed",
    "matches",
    "plan",
    "project",
]

Entity = Mapping[str, Any] | Dataset
"""One row of an archive's answer: the DICOM JSON model itself (fast), or a data set made of it."""

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    PATIENT: ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate", "StudyTime"),
    STUDY: ("StudyInstanceUID",),
    SERIES: ("StudyInstanceUID", "SeriesInstanceUID"),
    IMAGE: ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
}
"""What the gateway itself needs of each row: to know repeats, to group, to retrieve."""
_OWN: Final = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "SpecificCharacterSet"})
"""Attributes of the identifier that the gateway answers itself, whatever value they have in the request."""
_LEVEL: Final = 0x00080052
_RETRIEVE_AET: Final = 0x00080054
_AVAILABILITY: Final = 0x00080056
_NEVER_MATCHED: Final = (COMPUTED - {"ModalitiesInStudy"}) | {"TimezoneOffsetFromUTC", "RetrieveURL"}


@dataclass(frozen=True, slots=True)
class Search:
    """Hold the searches whose union is a superset of the answer, and what makes the answer of their rows."""

    level: str
    requests: tuple[Request, ...]
    conditions: tuple[Condition, ...]
    """What is matched here; kept in words for those who ask why."""
    return_keys: tuple[Key, ...]
    """What was asked for and can be known at the level, and the unique key of the level."""
    blank_keys: tuple[Key, ...] = ()
    """What was asked for and belongs to a lower level or to DICOMweb: returned without a value."""
    computations: tuple[Computation, ...] = ()
    """Attributes that cost further searches for each match."""
    unsupported_keys: frozenset[str] = frozenset()
    """Keys with a value that cannot be matched: the pending status is FF01."""
    studies_first: bool = False
    """The rows are studies, in each of which `instances_of` then has to be searched (of `expand_plan` only)."""
    zone: int | None = None
    """Minutes east of UTC of the identifier's times, where timezone query adjustment was negotiated."""


def plan(
    identifier: Dataset,
    model: Model,
    profile: Profile,
    negotiated: Negotiated,
    *,
    default_level: str = "",
    lenient: bool = False,
) -> Search:
    """Plan the search for a C-FIND identifier; raises IdentifierError for everything that is A900.

    `default_level` is for peers that send no Query/Retrieve Level; `lenient` lets unique keys of upper levels be
    missing as if relational queries were negotiated (PS3.4 C.4.1.2).
    """
    keys = {key.keyword: key for key in read_keys(identifier, negotiated)}
    level = _level(keys, model, default_level)
    if not (negotiated.relational or lenient):
        _require_above(keys, model, level)
    zone = _zone(keys) if negotiated.timezone else None
    asked = [key for keyword, key in keys.items() if keyword not in _OWN]
    known = [key for key in asked if not is_below(key.tag, level) and key.keyword != "RetrieveURL"]
    narrowing = [key for key in known if _can_match(key, level, profile)]
    wanted = conditions(narrowing, negotiated, zone or 0)
    fields, computations = _fields(known, level, profile)
    requests, dropped = pushdown.requests(
        level, _sendable(narrowing, negotiated), fields, profile, margin=0 if zone is None else 1
    )
    _require_searchable(requests, profile)
    unmatched = {
        key.keyword
        for key in asked
        if key not in narrowing and not key.is_universal and not BaseTag(key.tag).is_private_creator
    }
    unmatched.discard("TimezoneOffsetFromUTC")  # says how times are meant, and is no key (PS3.4 C.2.2.2)
    return Search(
        level=level,
        requests=requests,
        conditions=wanted,
        return_keys=(_unique_key(level), *known),
        blank_keys=tuple(key for key in asked if key not in known),
        computations=computations,
        unsupported_keys=frozenset(unmatched | {keyword_of(tag) for tag in dropped}),
        zone=zone,
    )


def _unique_key(level: str) -> Key:
    return Key(_tag(UNIQUE_KEYS[level]), "LO" if level == PATIENT else "UI", ())


def _level(keys: Mapping[str, Key], model: Model, default: str) -> str:
    key = keys.get("QueryRetrieveLevel")
    level = "\\".join(map(str, key.values)).upper() if key and key.values else default.upper()
    if level not in model.value:
        raise IdentifierError("QueryRetrieveLevel", f"must be one of {', '.join(model.value)}")
    return level


def _require_above(keys: Mapping[str, Key], model: Model, level: str) -> None:
    for above in model.above(level):
        key = keys.get(UNIQUE_KEYS[above])
        if key is None or key.is_universal or len(key.values) != 1 or _has_wildcard(key):
            raise IdentifierError(
                UNIQUE_KEYS[above], f"needs one value at level {level}; relational queries were not negotiated"
            )


def _has_wildcard(key: Key) -> bool:
    return any("*" in value or "?" in value for value in key.values)


def _zone(keys: Mapping[str, Key]) -> int | None:
    key = keys.get("TimezoneOffsetFromUTC")
    if key is None or key.is_universal:
        return None
    minutes = moments.read_offset(key.values[0])
    if minutes is None:
        raise IdentifierError("TimezoneOffsetFromUTC", "not an offset such as +0100")
    return minutes


def _can_match(key: Key, level: str, profile: Profile) -> bool:
    if key.keyword == "ModalitiesInStudy":
        return is_supplied(key.keyword, level, profile)
    if key.vr == "SQ":
        return profile.sequences
    # what archives return of private elements differs; their creator says whose they are, and is no key
    return key.keyword not in _NEVER_MATCHED and key.vr not in BULK_VRS and not BaseTag(key.tag).is_private


def _sendable(keys: Iterable[Key], negotiated: Negotiated) -> dict[str, Key]:
    """Give the keys that may be sent as filters; fuzzy names find more than an archive would."""
    empty = ('""',) if negotiated.empty_value else None
    return {
        key.keyword: key
        for key in keys
        if not (key.vr == "PN" and negotiated.fuzzy) and key.values != empty and not key.is_universal
    }


def _fields(keys: Iterable[Key], level: str, profile: Profile) -> tuple[list[int], tuple[Computation, ...]]:
    """Give the attributes to ask the archive for, and how to compute those that it does not."""
    fields = [_tag(keyword) for keyword in _NEEDED[level]]
    computations = []
    for key in keys:
        if key.keyword not in COMPUTED or is_supplied(key.keyword, level, profile):
            fields += [key.tag] if key.vr not in BULK_VRS else []
        elif way := computation(key.keyword, profile):
            computations.append(way)
            fields.append(_tag("PatientID"))
    return list(dict.fromkeys(fields)), tuple(computations)


def _require_searchable(requests: Iterable[Request], profile: Profile) -> None:
    if not profile.flat_search and any(request.resource in ("series", "instances") for request in requests):
        raise IdentifierError("StudyInstanceUID", "needs a value: this archive searches only within a study")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


def expand_plan(
    identifier: Dataset,
    model: Model,
    profile: Profile,
    negotiated: Negotiated,
    *,
    default_level: str = "",
    lenient: bool = False,
) -> Search:
    """Plan the search for the instances of a C-MOVE or C-GET identifier; raises IdentifierError (PS3.4 C.4.2.1.4).

    Only the level and the unique keys count: one value above the level, one or a list of UIDs at it. The rows have
    SOP Class UID and the UIDs of study, series and instance. When `studies_first` is set they are studies.
    """
    relevant = Dataset()
    for keyword in ("SpecificCharacterSet", "QueryRetrieveLevel", *UNIQUE_KEYS.values()):
        if keyword in identifier:
            relevant[keyword] = identifier.get_item(keyword)
    keys = {key.keyword: key for key in read_keys(relevant, negotiated)}
    level = _level(keys, model, default_level)
    if not (negotiated.relational or lenient):
        _require_above(keys, model, level)
    named = _named(keys, model, level)
    wanted = conditions(named.values(), Negotiated())
    studies_first = level == PATIENT and not (
        profile.flat_search and pushdown.choices_of(named["PatientID"], profile)
    )
    below = STUDY if studies_first else IMAGE
    fields = [_tag(keyword) for keyword in (*_NEEDED[below], *named)]
    requests, _ = pushdown.requests(below, named, list(dict.fromkeys(fields)), profile)
    _require_searchable(requests, profile)
    return Search(below, requests, wanted, tuple(named.values()), studies_first=studies_first)


def _named(keys: Mapping[str, Key], model: Model, level: str) -> dict[str, Key]:
    """Give the unique keys of a retrieve, from the root down to its level; empty ones above it do not count."""
    own = keys.get(UNIQUE_KEYS[level])
    if own is None or own.is_universal:
        raise IdentifierError(UNIQUE_KEYS[level], f"needs a value to retrieve at level {level}")
    upper = [keys[keyword] for one in model.above(level) if (keyword := UNIQUE_KEYS[one]) in keys]
    named = {key.keyword: key for key in (*upper, own) if not key.is_universal}
    for key in named.values():
        if _has_wildcard(key) or (key.vr != "UI" and len(key.values) != 1):
            raise IdentifierError(key.keyword, "a retrieve has no wildcards, and lists only of UIDs")
    return named


def instances_of(study: Entity, profile: Profile) -> Request | None:
    """Give the search for the instances of a study that a search with `studies_first` found."""
    uid = text_of(_model(study), _tag("StudyInstanceUID"))
    if not UID.fullmatch(uid):
        return None
    key = Key(_tag("StudyInstanceUID"), "UI", (uid,))
    fields = [_tag(keyword) for keyword in _NEEDED[IMAGE]]
    requests, _ = pushdown.requests(IMAGE, {key.keyword: key}, fields, profile)
    return requests[0]


def _model(entity: Entity) -> Mapping[str, Any]:
    return from_dataset(entity, bulk=False) if isinstance(entity, Dataset) else entity


def matches(search: Search, entity: Entity) -> bool:
    """Tell whether a row of the archive's answer matches all keys (PS3.4 C.2.2.2)."""
    model = _model(entity)
    if search.zone is not None:
        model = localised(model, search.zone)
    return satisfies(model, search.conditions)


def malformed(search: Search, entity: Entity) -> int:
    """Count the attributes of a row that were asked for and cannot be read: they are lost, the row is not."""
    model = _model(entity)
    return sum(key.name in model and attribute_of(model, key) is None for key in search.return_keys)


def answer(search: Search, entity: Entity, *, retrieve_aet: str) -> Elements:
    """Give the identifier of a pending response: what was asked for, zero length when unknown, nothing else.

    Query/Retrieve Level, the unique key, Retrieve AE Title and Instance Availability are always there; Specific
    Character Set is left to the encoder (PS3.4 C.4.1.1.3.2).
    """
    model = _model(entity)
    if search.zone is not None:
        model = localised(model, search.zone)
    elements = {key.tag: _projected(key, model) for key in search.return_keys}
    elements |= {key.tag: Attribute(key.vr, []) for key in search.blank_keys}
    elements[_LEVEL] = Attribute("CS", [search.level])
    elements[_RETRIEVE_AET] = Attribute("AE", [retrieve_aet])
    elements[_AVAILABILITY] = Attribute("CS", ["ONLINE"])
    return sorted(elements.items())


def _projected(key: Key, model: Mapping[str, Any]) -> Attribute:
    """Give an entity's attribute; of a sequence the matching items, and of these what the key's item asks for."""
    attribute = attribute_of(model, key)
    if attribute is None or (attribute.vr == "SQ") != (key.vr == "SQ") or attribute.vr in BULK_VRS:
        return Attribute(key.vr, [])
    if attribute.vr != "SQ":
        return attribute
    if not key.items:
        return Attribute("SQ", [_whole(item, 1) for item in attribute.values])
    items = [item for item in attribute.values if satisfies(item, key.item_conditions)]
    return Attribute("SQ", [[(inner.tag, _projected(inner, item)) for inner in key.items] for item in items])


def _whole(item: Mapping[str, Any], depth: int) -> Elements:
    """Give all that an item of the archive holds, malformed attributes aside."""
    elements: Elements = []
    for name, element in item.items():
        tag = read_tag(name)
        attribute = read_json(tag, element) if tag and depth <= MAX_DEPTH else None
        if tag is None or attribute is None or tag == _tag("SpecificCharacterSet"):
            continue
        if attribute.vr == "SQ":
            attribute = Attribute("SQ", [_whole(inner, depth + 1) for inner in attribute.values])
        elements.append((tag, attribute))
    return sorted(elements, key=itemgetter(0))


def project(search: Search, entity: Entity, *, retrieve_aet: str) -> Dataset:
    """Give the answer of `answer` as a data set in ISO_IR 192."""
    dataset = _dataset(answer(search, entity, retrieve_aet=retrieve_aet))
    dataset.SpecificCharacterSet = charset.UTF_8
    return dataset


def _dataset(elements: Elements) -> Dataset:
    dataset = Dataset()
    for tag, attribute in elements:
        values = [_dataset(item) for item in attribute.values] if attribute.vr == "SQ" else attribute.values
        dataset[tag] = to_element(tag, Attribute(attribute.vr, values))
    return dataset
