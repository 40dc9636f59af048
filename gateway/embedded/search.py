"""Build the answers of QIDO-RS from the index and the metadata of representative instances (PS3.18 10.6)."""

from collections.abc import Mapping
from typing import Final

from gateway.embedded import metadata
from gateway.embedded.index import indexed
from gateway.embedded.lookup import Lookup, Match
from gateway.embedded.query import INSTANCE, LEVELS, SERIES, STUDY, TAGS, UIDS, Query

_FORMER: Final = {
    STUDY: "00080005 00080020 00080030 00080050 00080056 00080090 00080201 00100010 00100020 00100030 00100040"
    " 0020000D 00200010",
    SERIES: "00080005 00080060 00080201 0008103E 0020000E 00400244 00400245 00400275",
    INSTANCE: "00080005 00080016 00080018 00080056 00080201 00200013 00280010 00280011 00280100 00280008",
}
"""What version 1 of the service returns unasked."""
_MORE: Final = {
    STUDY: "00081030 00080063 00081032 00081060 00081080 00081110 00101010 00101020 00101030 00102180 001021B0",
    SERIES: "00200011 00200060 00080021 00080031",
    INSTANCE: "",
}
"""What includefield=all adds to that."""
_PATIENT_ID: Final = TAGS["PatientID"]
_MODALITIES: Final = TAGS["ModalitiesInStudy"]
_OF_STUDY: Final = "00201208"
_OF_SERIES: Final = "00201209"
_COMPUTED: Final = {_MODALITIES: STUDY, _OF_STUDY: STUDY, _OF_SERIES: SERIES}
"""What is counted when asked for, and the level that it belongs to."""


def answer(lookup: Lookup, level: str, path: Mapping[str, str], query: Query, *, former: bool) -> list[str]:
    """Return the matches, the text of a JSON object each; `former` gives what version 1 gives unasked."""
    wanted = _wanted(level, path, query, former=former)
    stored = wanted.difference(_COMPUTED)
    held = stored.issubset(tag for of in _upto(level) for tag in indexed(of))
    # The service counts at all levels while the index has all that is wanted, else at the resource's own only.
    counted = [tag for tag, of in _COMPUTED.items() if tag in wanted and of in (_upto(level) if held else (level,))]
    objects = []
    for match in lookup.page(level, path, query, stored, held=held):
        lines = {**match.lines, **{tag: _computed(lookup, tag, match) for tag in counted}}
        if held and _PATIENT_ID in wanted:  # a column that is never null: an absent value comes as an empty one
            lines.setdefault(_PATIENT_ID, metadata.line(_PATIENT_ID, {"vr": "LO"}))
        objects.append("{" + metadata.joined(lines.values()) + "}")
    return objects


def _upto(level: str) -> tuple[str, ...]:
    return LEVELS[: LEVELS.index(level) + 1]


def _wanted(level: str, path: Mapping[str, str], query: Query, *, former: bool) -> frozenset[str]:
    wanted = {f"{tag:08X}" for tag in query.include}
    for one in _upto(level):
        if one in path:
            wanted.add(TAGS[UIDS[one]])
        elif query.everything:
            wanted |= {*_FORMER[one].split(), *_MORE[one].split()}
        else:
            wanted |= set(_FORMER[one].split() if former else indexed(one))
    return frozenset(wanted | {TAGS[one.keyword] for one in query.filters})


def _computed(lookup: Lookup, tag: str, match: Match) -> str:
    if tag == _MODALITIES:
        return metadata.line(tag, {"vr": "CS", "Value": lookup.modalities(match.keys[STUDY])})
    level = _COMPUTED[tag]
    return metadata.line(tag, {"vr": "IS", "Value": [lookup.count(level, match.keys[level])]})
