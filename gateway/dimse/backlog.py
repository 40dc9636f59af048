"""See what waits in the outbox for an archive as if the archive had it already."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog
from pydicom.datadict import tag_for_keyword

from gateway.errors import DataSetError, ScanLimitReached, SpoolBroken
from gateway.outbox import FILE_LOST, Entry, Ledger, State
from gateway.translate.computed import COMPUTED
from gateway.translate.excerpt import excerpt
from gateway.translate.levels import PATIENT, SERIES, STUDY, level_of
from gateway.translate.matching import text_of
from gateway.translate.search import Search, matches

log = structlog.get_logger("gateway.dimse")

Row = dict[str, Any]
"""One entity in the DICOM JSON model."""

_MOST_ROWS: Final = 4096
_LONGEST_ROW: Final = 4096  # bytes in the data set
_UIDS: Final = (
    ("StudyInstanceUID", "0020000D", "study"),
    ("SeriesInstanceUID", "0020000E", "series"),
    ("SOPInstanceUID", "00080018", "sop_instance"),
)
_PATIENT_ID, _MODALITY = 0x00100020, 0x00080060
_ALWAYS: Final = frozenset(
    (
        *(0x00080020, 0x00080030),  # Study Date and Time: which of a patient's studies is the newest
        *(_PATIENT_ID, 0x00100021, 0x00100010, 0x00100030),  # ID, issuer, name, birth date: who the patient is
        0x00080201,  # Timezone Offset From UTC: what the times mean
        _MODALITY,
    )
)


class Headers:
    """Read attributes of waiting instances, and keep the last few thousand readings; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: OrderedDict[tuple[int, frozenset[int]], Row] = OrderedDict()

    def read(self, entry: Entry, wanted: frozenset[int]) -> Row | None:
        """Give the wanted attributes; None when it was delivered meanwhile. Raises SpoolBroken."""
        key = entry.id, wanted
        with self._lock:
            if (known := self._rows.get(key)) is not None:
                self._rows.move_to_end(key)
                return known
        try:
            with entry.extent.open() as file:
                row, size = excerpt(file, wanted)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolBroken(f"an instance of the outbox cannot be read: {error.strerror}") from error
        except DataSetError as error:
            log.warning("waiting instance without attributes", instance=entry.sop_instance, reason=str(error))
            row, size = {}, 0
        if size <= _LONGEST_ROW:
            with self._lock:
                self._rows[key] = row
                if len(self._rows) > _MOST_ROWS:
                    self._rows.popitem(last=False)
        return row


class Backlog:
    """Answer one search out of the outbox; `hidden` tells which instances nobody is to see.

    Attributes of studies and series are those of their first waiting instance. More than `most` headers to look at
    raise ScanLimitReached; every method may raise SpoolBroken.
    """

    def __init__(
        self,
        outbox: Ledger,
        headers: Headers,
        archive: str,
        search: Search,
        most: int,
        *,
        hidden: Callable[[Collection[str]], Collection[str]] | None = None,
    ) -> None:
        self._outbox = outbox
        self._headers = headers
        self._archive = archive
        self._search = search
        self._most = most
        self._hidden = hidden
        self._named = {
            key.keyword: tuple(str(value) for value in key.values if value)
            for key in search.return_keys
            if key.vr == "UI" and not key.is_universal
        }
        asked = (key.tag for key in search.return_keys if key.keyword not in COMPUTED)
        self._wanted = _ALWAYS.union(asked)
        known = tuple(one for one in search.conditions if one.keyword not in COMPUTED)
        self._known = replace(search, conditions=known)
        self._above = replace(search, conditions=tuple(one for one in known if _is_of_study(one.keyword)))
        self._looked: set[int] = set()
        self._patients: dict[str, list[str]] | None = None

    @property
    def looked_at(self) -> int:
        """Count the instances whose headers were looked at."""
        return len(self._looked)

    def is_empty(self) -> bool:
        """Tell whether nothing waits for the archive."""
        return not self._outbox.count_waiting(self._archive)

    def rows(self) -> Iterator[Row | None]:
        """Yield a row per study, series or instance that matches, as the level is, and None for each that does not.

        Studies stand for their patients. Conditions on computed attributes are left to who computes them.
        """
        for row in self._looked_through():
            yield row if row is not None and matches(self._known, row) else None

    def _looked_through(self) -> Iterator[Row | None]:
        level = self._search.level
        if level in (PATIENT, STUDY):
            yield from map(self._study, self._studies())
        elif level == SERIES:
            series = self._named.get("SeriesInstanceUID")
            for study in self._matching_studies():
                yield from (row for uid, row in self._series(study) if not series or uid in series)
        else:
            yield from map(self._row, self.instances())

    def instances(self) -> Iterator[Entry]:
        """Yield the instances below the studies that match, as far as the search names them by their UIDs."""
        named = self._named.get("SOPInstanceUID")
        if named and not self._named.get("StudyInstanceUID"):
            found = self._outbox.of_instances(self._archive, named)
            for entry in self._visible([one for one in found if one.state is not State.DONE]):
                if self._is_named(entry) and (not self._above.conditions or self._is_above(self._row(entry))):
                    yield entry
            return
        for study in self._matching_studies():
            yield from filter(self._is_named, self.of_study(study))

    def of_study(self, study: str, *, after: int = 0) -> Iterator[Entry]:
        """Yield the waiting instances of a study with ids above `after`."""
        while page := self._outbox.waiting(self._archive, study, after=after):
            yield from self._visible(page)
            after = page[-1].id

    def studies_of(self, patient_id: str) -> Sequence[str]:
        """Give the studies of a patient of which something waits."""
        if self._patients is None:
            self._patients = {}
            for study in self._outbox.waiting_studies(self._archive):
                row = self._study(study)
                if row is not None:
                    self._patients.setdefault(text_of(row, _PATIENT_ID), []).append(study)
        return self._patients.get(patient_id, ())

    def modalities(self, study: str) -> dict[str, str]:
        """Give the Modality of each series of a study of which something waits, by its UID."""
        return {uid: text_of(row, _MODALITY) for uid, row in self._series(study)}

    def _studies(self) -> Iterator[str]:
        named = self._named.get("StudyInstanceUID")
        return iter(dict.fromkeys(named)) if named else self._outbox.waiting_studies(self._archive)

    def _matching_studies(self) -> Iterator[str]:
        """Yield the studies that match by what belongs to patients and studies, where anything does."""
        for study in self._studies():
            if not self._above.conditions or self._is_above(self._study(study)):
                yield study

    def _is_above(self, row: Row | None) -> bool:
        return row is not None and matches(self._above, row)

    def _study(self, study: str) -> Row | None:
        """Read the first instance of a study that can be seen; None when there is none."""
        first = self._outbox.waiting(self._archive, study, most=1)
        return self._first(self._and_others(first[0])) if first else None

    def _series(self, study: str) -> Iterator[tuple[str, Row]]:
        for first in self._outbox.first_of_series(self._archive, study):
            of_series = (one for one in self._and_others(first) if one.series == first.series)
            row = self._first(of_series)
            if row is not None:
                yield first.series, row

    def _and_others(self, first: Entry) -> Iterator[Entry]:
        return itertools.chain(self._visible([first]), self.of_study(first.study, after=first.id))

    def _first(self, entries: Iterator[Entry]) -> Row | None:
        return next((row for row in map(self._row, entries) if row is not None), None)

    def _row(self, entry: Entry) -> Row | None:
        if entry.id not in self._looked and len(self._looked) >= self._most:
            raise ScanLimitReached(f"the query would look at more than {self._most} instances in the outbox")
        self._looked.add(entry.id)
        read = self._headers.read(entry, self._wanted)
        if read is None:
            return None
        uids = {name: {"vr": "UI", "Value": [getattr(entry, field)]} for _, name, field in _UIDS}
        return {**read, **uids, "00080016": {"vr": "UI", "Value": [entry.sop_class]}}

    def _is_named(self, entry: Entry) -> bool:
        return all(
            getattr(entry, field) in named for keyword, _, field in _UIDS if (named := self._named.get(keyword))
        )

    def _visible(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what a rejection note hides, and what is lost."""
        hidden = self._hidden([one.sop_instance for one in entries]) if self._hidden and entries else ()
        return [one for one in entries if one.sop_instance not in hidden and one.reason != FILE_LOST]


def _is_of_study(keyword: str) -> bool:
    """Tell whether a key belongs to the patient or the study, its UID aside."""
    tag = tag_for_keyword(keyword)
    return keyword != "StudyInstanceUID" and tag is not None and level_of(tag) in (PATIENT, STUDY)
