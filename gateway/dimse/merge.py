"""Answer a query out of the archive and the outbox: each entity once, and what waits counted with what is there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gateway.dimse.backlog import Backlog, Row
from gateway.dimse.scan import UNIQUE_KEYS, Scan
from gateway.errors import GatewayError
from gateway.translate.attributes import Attribute, write_json
from gateway.translate.computed import COMPUTED
from gateway.translate.levels import LEVELS, PATIENT, SERIES, level_of
from gateway.translate.matching import UID, Key, attribute_of, text_of
from gateway.translate.patients import Patients, identity_of
from gateway.translate.search import Search, matches

_STUDY, _SERIES, _SOP_INSTANCE, _PATIENT_ID = 0x0020000D, 0x0020000E, 0x00080018, 0x00100020
_LOOK: Final = 100  # rows of the outbox after which whoever reads may stop


def merged(scan: Scan, backlog: Backlog) -> Iterator[list[Row]]:
    """Yield the pages of a scan and then what only waits; raises what the scan raises, after what waits.

    The outbox is read before the archive is asked, so that what is delivered meanwhile is in one of the two; where
    it is in both, the archive's row stands.
    """
    if backlog.is_empty():
        yield from scan.pages()
        return
    search = scan.search
    counts = Counts(search, backlog, lambda study: _listed(scan, study))
    found: list[Row] = []
    for number, row in enumerate(backlog.rows(), 1):
        if row is not None and _matches_computed(search, counts, row):
            found.append(row)
        if not number % _LOOK:
            yield []
    left = {_identity(search.level, row): row for row in (_patients(found) if search.level == PATIENT else found)}
    try:
        for page in scan.pages():
            for row in page:
                left.pop(_identity(search.level, row), None)
                counts.add_to(row)
            yield page
        above = [way for way in search.computations if _is_above(way.tag, search.level)]
        for row in left.values():
            scan.compute(row, above)
        completed = [counts.filled(row, archived_above=True) for row in left.values()]
    except GatewayError:
        yield [counts.filled(row) for row in left.values()]
        raise
    yield completed


def _matches_computed(search: Search, counts: "Counts", row: Row) -> bool:
    """Tell whether a row of the outbox matches the keys that the backlog could not look at."""
    if not any(condition.keyword in COMPUTED for condition in search.conditions):
        return True
    return matches(search, counts.filled(row))


def _identity(level: str, row: Row) -> tuple[str, ...]:
    return identity_of(row) if level == PATIENT else tuple(text_of(row, tag) for tag in UNIQUE_KEYS[level])


def _patients(studies: Iterable[Row]) -> list[Row]:
    patients = Patients()
    patients.add(studies)
    return patients.entities()


def _listed(scan: Scan, study: str) -> dict[str, str]:
    """Ask the archive for the instances of a study, and give the series of each."""
    if not UID.fullmatch(study):
        return {}
    found = scan.archive.matches(f"studies/{study}/instances", [("includefield", "0020000D,0020000E,00080018")])
    return {text_of(row, _SOP_INSTANCE): text_of(row, _SERIES) for row in found}


@dataclass(slots=True)
class _More:
    """Sum up what waits and is not in the archive."""

    studies: int = 0
    series: int = 0
    instances: int = 0
    classes: set[str] = field(default_factory=set)
    modalities: set[str] = field(default_factory=set)


_NUMBERS: Final[Mapping[str, Callable[[_More], int]]] = MappingProxyType(
    {
        "NumberOfPatientRelatedStudies": lambda more: more.studies,
        "NumberOfPatientRelatedSeries": lambda more: more.series,
        "NumberOfPatientRelatedInstances": lambda more: more.instances,
        "NumberOfStudyRelatedSeries": lambda more: more.series,
        "NumberOfStudyRelatedInstances": lambda more: more.instances,
        "NumberOfSeriesRelatedInstances": lambda more: more.instances,
    }
)
_LISTS: Final[Mapping[str, tuple[str, Callable[[_More], set[str]]]]] = MappingProxyType(
    {
        "ModalitiesInStudy": ("CS", lambda more: more.modalities),
        "SOPClassesInStudy": ("UI", lambda more: more.classes),
    }
)


class Counts:
    """Count and collect over what waits, for those computed attributes that were asked for.

    `listed` gives the archive's instances of a study with the series of each; it is asked once per study of which
    something waits and the archive's row is shown, for an instance that was delivered just now must not count twice.
    """

    def __init__(self, search: Search, backlog: Backlog, listed: Callable[[str], dict[str, str]]) -> None:
        self._keys = [key for key in search.return_keys if key.keyword in COMPUTED]
        self._level = search.level
        self._backlog = backlog
        self._listed = listed
        self._known: dict[tuple[str, str, bool, bool], _More] = {}

    def filled(self, row: Row, *, archived_above: bool = False) -> Row:
        """Set the attributes of a row that the archive does not have.

        It may have what is above, the study of a series say: with `archived_above` the row has those attributes as
        far as the archive knows them, else they are of what waits alone.
        """
        for key in self._keys:
            if not (archived_above and _is_above(key.tag, self._level)):
                row[key.name] = write_json(_added(key, [], self._more(key, row, archived=False)))
            elif (attribute := attribute_of(row, key)) is not None:
                row[key.name] = write_json(_added(key, attribute.values, self._more(key, row, archived=True)))
        return row

    def add_to(self, row: Row) -> None:
        """Add to the attributes of a row of the archive, as far as it has them."""
        for key in self._keys:
            attribute = attribute_of(row, key)
            if attribute is not None and any(attribute.values):
                row[key.name] = write_json(_added(key, attribute.values, self._more(key, row, archived=True)))

    def _more(self, key: Key, row: Row, *, archived: bool) -> _More:
        level = level_of(key.tag)
        of_patient = level == PATIENT
        studies = self._backlog.studies_of(text_of(row, _PATIENT_ID)) if of_patient else [text_of(row, _STUDY)]
        series = text_of(row, _SERIES) if level == SERIES else ""
        parts = [
            self._of_study(study, series, archived=archived, modalities=key.keyword == "ModalitiesInStudy")
            for study in studies
        ]
        return _More(
            sum(part.studies for part in parts),
            sum(part.series for part in parts),
            sum(part.instances for part in parts),
            set().union(*(part.classes for part in parts)),
            set().union(*(part.modalities for part in parts)),
        )

    def _of_study(self, study: str, series: str, *, archived: bool, modalities: bool) -> _More:
        key = study, series, archived, modalities
        if key not in self._known:
            self._known[key] = self._summed(study, series, archived=archived, modalities=modalities)
        return self._known[key]

    def _summed(self, study: str, series: str, *, archived: bool, modalities: bool) -> _More:
        more, found = _More(), set[str]()
        if next(self._backlog.of_study(study), None) is None:  # as with nearly all of the archive's studies
            return more
        listed = self._listed(study) if archived else {}
        for entry in self._backlog.of_study(study):
            if entry.sop_instance not in listed and (not series or entry.series == series):
                more.instances += 1
                more.classes.add(entry.sop_class)
                found.add(entry.series)
        more.series = len(found.difference(listed.values()))
        more.studies = int(bool(found) and not listed)
        if modalities and found:
            of_series = self._backlog.modalities(study)
            more.modalities = {of_series[one] for one in found if of_series.get(one)}
        return more


def _is_above(tag: int, level: str) -> bool:
    own = level_of(tag)
    return own is not None and LEVELS.index(own) < LEVELS.index(level)


def _added(key: Key, values: list[str], more: _More) -> Attribute:
    if key.keyword in _NUMBERS:
        return Attribute("IS", [str(sum(map(int, values)) + _NUMBERS[key.keyword](more))])
    vr, collect = _LISTS[key.keyword]
    return Attribute(vr, sorted({*filter(None, values), *collect(more)}))
