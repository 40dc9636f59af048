"""Run a search on its archive: page after page, matched here, each entity once, with what has to be computed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

from gateway.dicomweb.client import Client
from gateway.errors import ScanLimitReached
from gateway.translate.computed import Computation, compute, further_request
from gateway.translate.matching import text_of
from gateway.translate.patients import Patients
from gateway.translate.search import Request, Search, malformed, matches

Row = dict[str, Any]
"""One entity in the DICOM JSON model."""

_STUDY_KEYS = (0x0020000D,)
UNIQUE_KEYS = {
    "PATIENT": _STUDY_KEYS,
    "STUDY": _STUDY_KEYS,
    "SERIES": (*_STUDY_KEYS, 0x0020000E),
    "IMAGE": (*_STUDY_KEYS, 0x0020000E, 0x00080018),
}
"""What tells the rows of a search apart; at PATIENT level they are studies."""

_LEVELS = {"studies": "STUDY", "series": "SERIES", "instances": "IMAGE"}


class Page(NamedTuple):
    """Hold what became of one page: entries read and matching, seconds until it came and of the work on it here."""

    request: Request
    entries: int
    matching: int
    waited: float
    worked: float


def _identity(row: Row, names: list[str]) -> tuple[str, ...]:
    """Give the UIDs of a row, without padding; empty where one cannot be read."""
    try:
        return tuple([row[name]["Value"][0].strip(" \0") for name in names])
    except (KeyError, TypeError, IndexError, AttributeError):
        return tuple(text_of(row, int(name, 16)) for name in names)


@dataclass(slots=True)
class Scan:
    """Read the answer of a search; afterwards it says what that took.

    More than `max_scanned` entries raise ScanLimitReached. `observe` is called for each page.
    """

    archive: Client
    search: Search
    max_scanned: int
    observe: Callable[[Page], None] = lambda _: None
    first_page: int | None = None
    """How many entries at most are asked for at first, so that they come early."""
    sift: Callable[[str, list[Row]], list[Row]] | None = None
    """Take from rows of a level what nobody is to see."""
    entries: int = field(init=False, default=0)
    """Entries that the archive answered with, repeats included."""
    malformed: int = field(init=False, default=0)
    """Unreadable attributes in entries that did not match, perhaps for that reason."""

    def pages(self) -> Iterator[list[Row]]:
        """Yield the matches page by page, which may be empty; raises ArchiveError, ScanLimitReached.

        At PATIENT level they come in one page at the end: one patient's studies may be anywhere.
        """
        pages = self._by_patient() if self.search.level == "PATIENT" else self._matching()
        for page in pages:
            for row in page:
                self.compute(row, self.search.computations)
            yield page

    def compute(self, row: Row, ways: Iterable[Computation]) -> None:
        """Set computed attributes of a row; raises ArchiveError."""
        for way in ways:
            row.update(compute(way, row, self._below(way, row)))

    def _by_patient(self) -> Iterator[list[Row]]:
        patients = Patients()
        for page in self._matching():
            patients.add(page)
            yield []  # whoever reads may stop here, as after every page
        yield patients.entities()

    def _matching(self) -> Iterator[list[Row]]:
        search = self.search
        level = "STUDY" if search.studies_first else search.level
        unique = UNIQUE_KEYS[level]
        names = [f"{tag:08X}" for tag in unique]
        seen: set[tuple[str, ...]] = set()
        for request in search.requests:
            asked = perf_counter()
            for page in self.archive.search(request.resource, request.parameters, first_page=self.first_page):
                came = perf_counter()
                self._count(page)
                matching = []
                for row in page:
                    key = _identity(row, names)
                    if key in seen and key[-1]:
                        continue  # rows whose UID is malformed are not the same entity
                    if matches(search, row):
                        seen.add(key)
                        matching.append(row)
                    else:
                        self.malformed += malformed(search, row)
                self.observe(Page(request, len(page), len(matching), came - asked, perf_counter() - came))
                yield self._seen(level, matching)
                asked = perf_counter()

    def _seen(self, level: str, matching: list[Row]) -> list[Row]:
        """Give what may be seen of rows; one that has lost a value by that has to match without it."""
        if self.sift is None:
            return matching
        known = set(map(id, matching))
        return [row for row in self.sift(level, matching) if id(row) in known or matches(self.search, row)]

    def _count(self, page: list[Row]) -> None:
        self.entries += len(page)
        if self.entries > self.max_scanned:
            raise ScanLimitReached(f"the query would read more than {self.max_scanned} entries")

    def _below(self, way: Computation, row: Row) -> Iterator[Row]:
        request = further_request(way, row, self.archive.profile)
        if request is None:
            return
        asked = perf_counter()
        for page in self.archive.search(request.resource, request.parameters):
            self.observe(Page(request, len(page), 0, perf_counter() - asked, 0))
            yield from page if self.sift is None else self.sift(_LEVELS[request.resource.rpartition("/")[2]], page)
            asked = perf_counter()
