"""Attributes that are counted or collected from entities below (PS3.4 Table C.3-1), by further searches.

An archive that computes one itself is asked for it at its own level; otherwise the entities below are listed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from pydicom.datadict import tag_for_keyword

from gateway.translate.attributes import Attribute, read_json, write_json
from gateway.translate.levels import level_of
from gateway.translate.matching import UID, Key, Model, text_of
from gateway.translate.profiles import Profile
from gateway.translate.pushdown import Request, choices_of


class _Scope(NamedTuple):
    resource: str
    filters: tuple[str, ...] = ()
    is_flat: bool = False


_STUDY: Final = _Scope("studies", ("StudyInstanceUID",))
_STUDY_SERIES: Final = _Scope("studies/{StudyInstanceUID}/series")
_STUDY_INSTANCES: Final = _Scope("studies/{StudyInstanceUID}/instances")
_SERIES: Final = _Scope("studies/{StudyInstanceUID}/series", ("SeriesInstanceUID",))
_SERIES_INSTANCES: Final = _Scope("studies/{StudyInstanceUID}/series/{SeriesInstanceUID}/instances")
_PATIENT_STUDIES: Final = _Scope("studies", ("PatientID",))
_PATIENT_SERIES: Final = _Scope("series", ("PatientID",), is_flat=True)
_PATIENT_INSTANCES: Final = _Scope("instances", ("PatientID",), is_flat=True)


@dataclass(frozen=True, slots=True)
class Computation:
    """Say how one attribute is computed: where to search, and what to make of which field of the rows."""

    keyword: str
    scope: _Scope
    field: str
    reduce: Literal["count", "sum", "distinct"]

    @property
    def tag(self) -> int:
        """Give the tag of the attribute."""
        return _tag(self.keyword)


def _ways(keyword: str, *ways: tuple[_Scope, str, Literal["count", "sum", "distinct"]]) -> tuple[Computation, ...]:
    return tuple(Computation(keyword, *way) for way in ways)


_COMPUTATIONS: Final[Mapping[str, tuple[Computation, ...]]] = MappingProxyType(
    {
        ways[0].keyword: ways
        for ways in (
            _ways(
                "ModalitiesInStudy",
                (_STUDY, "ModalitiesInStudy", "distinct"),
                (_STUDY_SERIES, "Modality", "distinct"),
            ),
            _ways("SOPClassesInStudy", (_STUDY_INSTANCES, "SOPClassUID", "distinct")),
            _ways(
                "NumberOfPatientRelatedStudies",
                (_PATIENT_STUDIES, "StudyInstanceUID", "count"),
            ),
            _ways(
                "NumberOfPatientRelatedSeries",
                (_PATIENT_STUDIES, "NumberOfStudyRelatedSeries", "sum"),
                (_PATIENT_SERIES, "SeriesInstanceUID", "count"),
            ),
            _ways(
                "NumberOfPatientRelatedInstances",
                (_PATIENT_STUDIES, "NumberOfStudyRelatedInstances", "sum"),
                (_PATIENT_INSTANCES, "SOPInstanceUID", "count"),
            ),
            _ways(
                "NumberOfStudyRelatedSeries",
                (_STUDY, "NumberOfStudyRelatedSeries", "sum"),
                (_STUDY_SERIES, "SeriesInstanceUID", "count"),
            ),
            _ways(
                "NumberOfStudyRelatedInstances",
                (_STUDY, "NumberOfStudyRelatedInstances", "sum"),
                (_STUDY_SERIES, "NumberOfSeriesRelatedInstances", "sum"),
                (_STUDY_INSTANCES, "SOPInstanceUID", "count"),
            ),
            _ways(
                "NumberOfSeriesRelatedInstances",
                (_SERIES, "NumberOfSeriesRelatedInstances", "sum"),
                (_SERIES_INSTANCES, "SOPInstanceUID", "count"),
            ),
        )
    }
)  # the cheapest way first; a way whose field is itself computed needs an archive that computes it

COMPUTED: Final = frozenset(_COMPUTATIONS)
"""The computed attributes."""


def is_supplied(keyword: str, level: str, profile: Profile) -> bool:
    """Tell whether the archive itself fills a computed attribute in a search at `level`."""
    return keyword in profile.computed and level_of(_tag(keyword)) == level


def computation(keyword: str, profile: Profile) -> Computation | None:
    """Choose how to compute an attribute on such an archive; None when it cannot be done."""
    for way in _COMPUTATIONS.get(keyword, ()):
        is_there = way.field not in COMPUTED or way.field in profile.computed
        if is_there and (profile.flat_search or not way.scope.is_flat):
            return way
    return None


def further_request(way: Computation, model: Model, profile: Profile) -> Request | None:
    """Give the search whose rows the attribute of one match is computed from; None when the match lacks a UID."""
    uids = {keyword: text_of(model, _tag(keyword)) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")}
    names = [keyword for keyword in uids if f"{{{keyword}}}" in way.scope.resource]
    if not all(UID.fullmatch(uids[keyword]) for keyword in names):
        return None
    parameters: list[tuple[str, str]] = []
    for keyword in way.scope.filters:
        tag = _tag(keyword)
        values = choices_of(Key(tag, "UI" if keyword in uids else "LO", (text_of(model, tag),)), profile)
        if not values:
            return None
        parameters.append((keyword, values[0]))
    fields = dict.fromkeys((way.field, *way.scope.filters, "StudyInstanceUID", "SeriesInstanceUID"))
    include = ",".join(f"{_tag(keyword):08X}" for keyword in fields)
    return Request(way.scope.resource.format_map(uids), (*parameters, ("includefield", include)))


def compute(way: Computation, model: Model, rows: Iterable[Model]) -> dict[str, Any]:
    """Compute one attribute from all rows of its search, as a DICOM JSON attribute by its name."""
    found: dict[tuple[str, str], list[Any]] = {}
    field = _tag(way.field)
    for row in rows:
        if any(text_of(row, _tag(keyword)) != text_of(model, _tag(keyword)) for keyword in way.scope.filters):
            continue
        identity = (text_of(row, _tag("StudyInstanceUID")), text_of(row, _tag("SeriesInstanceUID")))
        attribute = read_json(field, row.get(f"{field:08X}"))
        if attribute and way.reduce == "sum":
            found[identity] = attribute.values
        elif attribute:
            found.setdefault(identity, []).extend(attribute.values)
    values = [value for values in found.values() for value in values if value]
    if way.reduce == "distinct":
        vr = "UI" if way.field == "SOPClassUID" else "CS"
        return {f"{way.tag:08X}": write_json(Attribute(vr, sorted(set(values))))}
    number = len(set(values)) if way.reduce == "count" else sum(map(int, values))
    return {f"{way.tag:08X}": {"vr": "IS", "Value": [number]}}


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
