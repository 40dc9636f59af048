"""How archives of each profile choose rows, as strictly and as oddly as they are known to do it."""

import re
from urllib.parse import quote

import brute_force

PLAIN = re.compile(r"[A-Za-z0-9._~*-]*")


def rows(request, entities, profile):
    """Give the entities that one search finds; fails on what the archive would refuse."""
    filters = [(name, value) for name, value in request.parameters if name != "includefield"]
    assert len({name for name, _ in filters}) == len(filters), "an attribute twice is refused"
    assert all(value for _, value in filters), "an empty value is refused"
    path = request.resource.split("/")
    in_path = dict(zip(("StudyInstanceUID", "SeriesInstanceUID"), path[1::2], strict=False))
    assert not in_path.keys() & dict(filters).keys(), "a UID of the path as a parameter is refused"
    answered = _ANSWERS[profile.name]
    return [
        entity
        for entity in entities
        if all(str(entity.get(name, "")) == uid for name, uid in in_path.items())
        and all(answered(name, value, _values(entity, name)) for name, value in filters)
    ]


def _values(entity, keyword):
    values = brute_force.texts(entity[keyword]) if keyword in entity else []
    return values if keyword == "ModalitiesInStudy" else values[:1]  # only the first value is indexed


def _day(value, have):
    days = [one.replace(".", "") for one in have if one]
    first, dash, last = value.partition("-")
    assert all(re.fullmatch(r"\d{8}|", end) for end in (first, last)), "not a date"
    assert not (dash and last and first > last), "a reversed range is refused"
    return any(first <= day and (not last or day <= last) if dash else day == first for day in days)


def _azure(name, value, have):
    assert not re.search(r"[*?\\,<]", value)
    return _day(value, have) if name.endswith("Date") else value.casefold() in [one.casefold() for one in have]


def _exact(name, value, have):
    assert not re.search(r"[*?\\,]", value)
    return _day(value, have) if name.endswith("Date") else value in have


def _wildcard(name, value, have):
    assert "\\" not in value
    if name.endswith("Date"):
        return _day(value, have)
    return any(brute_force.glob(one, text) for one in value.split(",") for text in have or [""])


def _orthanc(name, value, have):
    assert all(PLAIN.fullmatch(one) for one in value.split(",")), quote(value)
    if name.endswith("Date"):
        return _day(value, have) or not any(have)
    folded = [one.casefold() for one in have or [""]]
    return any(brute_force.glob(one.casefold(), text) for one in value.split(",") for text in folded)


_ANSWERS = {
    "azure": _azure,
    "embedded": _azure,
    "google": _exact,
    "aws": _exact,
    "standard": _wildcard,
    "dcm4chee": _wildcard,
    "orthanc": _orthanc,
}
