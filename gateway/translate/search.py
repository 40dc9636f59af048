"""Turn an identifier into a search of an archive and finish the match here (PS3.4 C.2.2.2, C.4.1, C.6)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from gateway.errors import IdentifierError
from gateway.translate.matching import is_universal, matches_key, values
from gateway.translate.profiles import Profile


class Model(Enum):
    """Name an information model (PS3.4 C.6)."""

    PATIENT_ROOT = auto()
    STUDY_ROOT = auto()
    PATIENT_STUDY_ONLY = auto()


@dataclass(frozen=True, slots=True)
class Negotiated:
    """Hold what SOP Class Extended Negotiation agreed on (PS3.4 C.5)."""

    relational: bool = False
    combined_datetime: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Hold one search request; its parameters are names and values, not encoded yet."""

    resource: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Search:
    """Hold the requests whose union is a superset of the answer, and the keys that finish it here."""

    level: str
    requests: tuple[Request, ...]
    keys: tuple[DataElement, ...]
    return_keys: tuple[DataElement, ...]
    unsupported_keys: frozenset[str] = frozenset()


LEVELS = {
    Model.PATIENT_ROOT: ("PATIENT", "STUDY", "SERIES", "IMAGE"),
    Model.STUDY_ROOT: ("STUDY", "SERIES", "IMAGE"),
    Model.PATIENT_STUDY_ONLY: ("PATIENT", "STUDY"),
}
UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_NEEDED = {
    "PATIENT": ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate"),
    "STUDY": ("StudyInstanceUID",),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID"),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
}
_OURS = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "SpecificCharacterSet"})
# Attributes of one level only: asked for at a higher one, their value would be that of some entity below
_SERIES_KEYS = frozenset(
    {
        "SeriesInstanceUID",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "BodyPartExamined",
        "Laterality",
        "ProtocolName",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepID",
        "RequestAttributesSequence",
    }
)
_IMAGE_KEYS = frozenset(
    {
        "SOPInstanceUID",
        "SOPClassUID",
        "InstanceNumber",
        "ContentDate",
        "ContentTime",
        "AcquisitionDate",
        "AcquisitionTime",
        "AcquisitionNumber",
        "NumberOfFrames",
        "Rows",
        "Columns",
    }
)
_BELOW = {
    "PATIENT": _SERIES_KEYS | _IMAGE_KEYS,
    "STUDY": _SERIES_KEYS | _IMAGE_KEYS,
    "SERIES": _IMAGE_KEYS,
    "IMAGE": frozenset[str](),
}
_NEVER_KEYS = frozenset(
    {
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "NumberOfSeriesRelatedInstances",
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
        "TimezoneOffsetFromUTC",
    }
)
_UID = re.compile(r"[0-9.]{1,64}")
_DATE = re.compile(r"[0-9]{8}|[0-9]{4}\.[0-9]{2}\.[0-9]{2}")
_PLAIN = re.compile(r"[A-Za-z0-9._~-]+")
_TEXT_VRS = frozenset({"LO", "SH", "CS", "AE"})


def plan(identifier: Dataset, model: Model, profile: Profile, negotiated: Negotiated) -> Search:
    """Plan the search for a C-FIND identifier; raises IdentifierError for everything that is A900."""
    level = _level(identifier, model)
    uids = _upper_uids(identifier, model, level, relational=negotiated.relational)
    wanted = [element for element in identifier if _is_key(element)]
    keys = tuple(key for key in wanted if key.keyword not in _BELOW[level])
    for key in keys:
        _check(key)
    include = ("includefield", ",".join(dict.fromkeys(_include(identifier, level))))
    requests = tuple(
        Request(resource, (*pushed, include)) for resource, pushed in _requests(level, uids, keys, profile)
    )
    unsupported = frozenset(str(key.keyword) for key in wanted if key not in keys)
    return Search(level, requests, keys, tuple(identifier), unsupported)


def expand_plan(identifier: Dataset, model: Model, profile: Profile, negotiated: Negotiated) -> Search:
    """Plan the search for the instances that a C-MOVE or C-GET identifier names (PS3.4 C.4.2.2.1)."""
    level = _level(identifier, model)
    unique = identifier.get(UNIQUE_KEYS[level])
    if not unique:
        raise IdentifierError(UNIQUE_KEYS[level], "a retrieve needs a value here")
    uids = _upper_uids(identifier, model, level, relational=negotiated.relational)
    keys = [
        identifier[keyword]
        for above in LEVELS[model][: LEVELS[model].index(level) + 1]
        if (keyword := UNIQUE_KEYS[above]) in identifier and values(identifier[keyword])
    ]
    for key in keys:
        if key.VR != "UI" and re.search(r"[*?]", str(key.value)):
            raise IdentifierError(str(key.keyword), "wildcards are not allowed in a retrieve")
        _check(key)
    include = ("includefield", "00080016,0020000D,0020000E,00080018,00100020")
    requests = tuple(
        Request(resource, (*pushed, include)) for resource, pushed in _requests("IMAGE", uids, keys, profile)
    )
    return Search("IMAGE", requests, tuple(keys), tuple(keys))


def matches(search: Search, entity: Dataset) -> bool:
    """Say whether an archive's answer matches all keys."""
    return all(matches_key(key, entity) for key in search.keys)


def project(search: Search, entity: Dataset, *, retrieve_aet: str) -> Dataset:
    """Make the identifier of a pending response: what was asked for, zero length when unknown, nothing else."""
    answer = Dataset()
    for key in search.return_keys:
        answer[key.tag] = _projected(key, entity)
    answer.SpecificCharacterSet = "ISO_IR 192"
    answer.QueryRetrieveLevel = search.level
    answer.RetrieveAETitle = retrieve_aet
    answer.InstanceAvailability = "ONLINE"
    unique = UNIQUE_KEYS[search.level]
    if unique not in answer or not answer[unique].value:
        setattr(answer, unique, entity.get(unique, ""))
    return answer


def group_patients(studies: Sequence[Dataset]) -> list[Dataset]:
    """Give one entity per patient: Patient ID and its issuer, with the demographics of the newest study."""
    newest: dict[tuple[str, str], Dataset] = {}
    for study in studies:
        patient = (str(study.get("PatientID", "") or ""), str(study.get("IssuerOfPatientID", "") or ""))
        held = newest.get(patient)
        if held is None or str(study.get("StudyDate", "")) > str(held.get("StudyDate", "")):
            newest[patient] = study
    return list(newest.values())


def _level(identifier: Dataset, model: Model) -> str:
    level = str(identifier.get("QueryRetrieveLevel", "") or "").strip()
    if level not in LEVELS[model]:
        raise IdentifierError("QueryRetrieveLevel", f"must be one of {', '.join(LEVELS[model])}")
    return level


def _upper_uids(identifier: Dataset, model: Model, level: str, *, relational: bool) -> dict[str, list[str]]:
    """Give the UIDs of study, series and instance; above the level each is one value, unless relational."""
    levels = LEVELS[model]
    for above in levels[: levels.index(level)]:
        keyword = UNIQUE_KEYS[above]
        found = _values(identifier, keyword)
        single = len(found) == 1 and not (above == "PATIENT" and re.search(r"[*?]", found[0]))
        if not single and not relational:
            raise IdentifierError(keyword, "needs one value at this level")
    uids = {}
    for name in ("STUDY", "SERIES", "IMAGE"):
        uids[name] = _values(identifier, UNIQUE_KEYS[name])
    return uids


def _values(identifier: Dataset, keyword: str) -> list[str]:
    return values(identifier[keyword]) if keyword in identifier else []


def _is_key(element: DataElement) -> bool:
    return element.keyword not in _OURS and element.keyword not in _NEVER_KEYS and not is_universal(element)


def _check(key: DataElement) -> None:
    for value in values(key) if key.VR != "SQ" else []:
        if key.VR == "UI" and not _UID.fullmatch(value):
            raise IdentifierError(str(key.keyword), "is not a UID")
        if key.VR == "DA":
            ends = value.split("-")
            good = len(ends) <= 2 and any(ends) and all(not end or _DATE.fullmatch(end.strip()) for end in ends)
            if not good:
                raise IdentifierError(str(key.keyword), "is not a date or a range of dates")


def _include(identifier: Dataset, level: str) -> Iterable[str]:
    for keyword in _NEEDED[level]:
        yield f"{tag_for_keyword(keyword) or 0:08X}"
    for element in identifier:
        if element.keyword and element.keyword not in _OURS | _BELOW[level]:
            yield f"{int(element.tag):08X}"


def _projected(key: DataElement, entity: Dataset) -> DataElement:
    """Give the entity's element for a return key; of a sequence only what the key's item names, if it has one."""
    found = entity.get(key.tag)
    if found is None or found.VR != key.VR:
        return DataElement(key.tag, key.VR, [] if key.VR == "SQ" else None)
    if key.VR != "SQ" or not key.value or not len(key.value[0]):
        return found
    items = []
    for item in found.value:
        kept = Dataset()
        for inner in key.value[0]:
            kept[inner.tag] = _projected(inner, item)
        items.append(kept)
    return DataElement(key.tag, "SQ", items)


def _requests(
    level: str, uids: dict[str, list[str]], keys: Sequence[DataElement], profile: Profile
) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
    """Give the resources to search, the union of which holds the answer, with the parameters each takes."""
    for resource, levels in _bases(level, uids["STUDY"], uids["SERIES"]):
        sets: list[tuple[tuple[str, str], ...]] = [()]
        for key in keys:
            if choices := _pushed(key, levels, profile):
                sets = [(*have, (str(key.keyword), choice)) for have in sets for choice in choices]
        for parameters in sets:
            yield resource, parameters


def _bases(level: str, studies: list[str], series: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Give the resources and the levels whose attributes each takes as parameters."""
    if level in ("PATIENT", "STUDY"):
        return [("studies", ("STUDY",))]
    if level == "SERIES":
        inside = [(f"studies/{study}/series", ("SERIES",)) for study in studies]
        return [*inside] or [("series", ("STUDY", "SERIES"))]
    if studies and series:
        return [(f"studies/{one}/series/{other}/instances", ("IMAGE",)) for one in studies for other in series]
    inside_study = [(f"studies/{study}/instances", ("SERIES", "IMAGE")) for study in studies]
    return [*inside_study] or [("instances", ("STUDY", "SERIES", "IMAGE"))]


def _pushed(key: DataElement, levels: Sequence[str], profile: Profile) -> list[str]:
    """Give the values to push for a key, one request each; none when a push could lose an answer."""
    keyword, found = str(key.keyword), values(key) if key.VR != "SQ" else []
    if profile.filters is None or not any(keyword in profile.filters.get(level, ()) for level in levels):
        return []
    if key.VR == "DA":
        return _date(found[0], profile) if len(found) == 1 else []
    if key.VR == "UI" or keyword in ("Modality", "ModalitiesInStudy"):
        plain = all(_PLAIN.fullmatch(value) for value in found)
        return found if plain and len(found) <= _MOST_REQUESTS else []
    exact = key.VR in _TEXT_VRS and len(found) == 1 and not _NOT_EXACT.search(found[0])
    return found if exact and (_PLAIN.fullmatch(found[0]) or not profile.plain_values_only) else []


_MOST_REQUESTS = 500
_NOT_EXACT = re.compile(r'[*?\\<>,"]')


def _date(value: str, profile: Profile) -> list[str]:
    clean = value.replace(".", "").replace(" ", "")
    first, dash, last = clean.partition("-")
    if dash and first and last and first > last:
        return []
    return [] if profile.plain_values_only and dash and not (first and last) else [clean]
