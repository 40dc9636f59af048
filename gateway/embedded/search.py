"""Build the answers of QIDO-RS from the index and the metadata of representative instances."""

from collections.abc import Mapping
from typing import Any, Final

from pydicom.datadict import tag_for_keyword

from gateway.embedded.index import Index, Match, indexed
from gateway.embedded.query import INSTANCE, SERIES, STUDY, UIDS, Query

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
_MODALITIES: Final = "00080061"
_OF_STUDY: Final = "00201208"
_OF_SERIES: Final = "00201209"
_COMPUTED: Final = frozenset({_MODALITIES, _OF_STUDY, _OF_SERIES})
_LEVELS: Final = (STUDY, SERIES, INSTANCE)


def answer(index: Index, level: str, path: Mapping[str, str], query: Query, *, former: bool) -> list[dict[str, Any]]:
    """Return the matches as DICOM JSON; `former` gives what version 1 gives unasked."""
    wanted = _wanted(level, path, query, former=former)
    return [_model(index, level, match, wanted) for match in index.search(level, path, query)]


def _wanted(level: str, path: Mapping[str, str], query: Query, *, former: bool) -> set[str]:
    shown = [one for one in _LEVELS[: _LEVELS.index(level) + 1] if one == level or one not in path]
    wanted = {f"{tag:08X}" for tag in query.include}
    for one in shown:
        if query.everything:
            wanted |= {*_FORMER[one].split(), *_MORE[one].split()}
        else:
            wanted |= set(_FORMER[one].split() if former else indexed(one))
    keywords = [one.keyword for one in query.filters] + [UIDS[one] for one in path]
    return wanted | {f"{tag_for_keyword(keyword) or 0:08X}" for keyword in keywords}


def _model(index: Index, level: str, match: Match, wanted: set[str]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for one in _LEVELS[: _LEVELS.index(level) + 1]:
        tags = indexed(one)
        held |= {tag: value for tag, value in match.models[one].items() if tag in tags}
    stored = wanted - _COMPUTED
    if level == INSTANCE:
        source = held | match.models[INSTANCE]
    elif stored <= {tag for one in _LEVELS[: _LEVELS.index(level) + 1] for tag in indexed(one)}:
        source = held
    else:
        source = index.newest(level, match.keys[level])
    model = {tag: source[tag] for tag in stored if tag in source}
    return dict(sorted((model | _computed(index, level, match, wanted)).items()))


def _computed(index: Index, level: str, match: Match, wanted: set[str]) -> dict[str, Any]:
    computed: dict[str, Any] = {}
    if _MODALITIES in wanted:
        computed[_MODALITIES] = {"vr": "CS", "Value": index.modalities(match.keys[STUDY])}
    if _OF_STUDY in wanted:
        computed[_OF_STUDY] = {"vr": "IS", "Value": [index.count(STUDY, match.keys[STUDY])]}
    if _OF_SERIES in wanted and level != STUDY:
        computed[_OF_SERIES] = {"vr": "IS", "Value": [index.count(SERIES, match.keys[SERIES])]}
    return computed
