"""Ask an archive which of many instances it has, and under which SOP class, in few searches (PS3.18 10.6).

Never from memory: every answer is of a search that began after the call. Of what a search for many does not list, a
search for that one alone decides.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from gateway.dicomweb.client import Client
from gateway.errors import AnswerUnreadable, RequestRefused
from gateway.translate.matching import text_of

_FIELDS = ("includefield", "0020000D,0020000E,00080016")
_STUDY, _SERIES, _SOP_CLASS, _SOP_INSTANCE = 0x0020000D, 0x0020000E, 0x00080016, 0x00080018
_UIDS_PER_SEARCH = 50
_FEW = 4  # searches for one instance each that cost no more than to list their series
PARALLEL = 4
"""Searches at the same time."""
_MOST_LISTED = 100_000  # entries of one search, should an archive not heed its keys

Row = Mapping[str, Any]


class Place(NamedTuple):
    """Say in which series an instance is."""

    study: str
    series: str


class Lookup:
    """Look instances up in one archive; `places` are those of instances that are known from elsewhere.

    `step` is called before each search; all that it or the client raises ends the look-up.
    """

    def __init__(self, client: Client, places: Mapping[str, Place], step: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._places = dict(places)
        self._step = step
        self._found: dict[str, set[str]] = defaultdict(set)

    def classes(self, instances: Iterable[str]) -> Mapping[str, set[str]]:
        """Give the SOP classes under which the archive has each instance; those that it has not are left out.

        Raises ArchiveError; then nothing is known of any of them.
        """
        wanted = list(dict.fromkeys(instances))
        by_series: dict[Place, list[str]] = defaultdict(list)
        for uid in wanted:
            if uid in self._places:
                by_series[self._places[uid]].append(uid)
        for place, uids in by_series.items():
            self._in_series(place, uids)
        if self._client.profile.flat_search and self._client.profile.uid_list:
            self._lists("instances", self._left(wanted))
        self._one_by_one(self._left(wanted))
        return self._found

    def _left(self, wanted: Iterable[str]) -> list[str]:
        return [uid for uid in wanted if uid not in self._found]

    def _in_series(self, place: Place, uids: Sequence[str]) -> None:
        resource = f"studies/{place.study}/series/{place.series}/instances"
        if self._client.profile.uid_list:
            self._lists(resource, uids)
        elif len(uids) > _FEW:
            self._list(resource, (), set(uids))

    def _lists(self, resource: str, uids: Sequence[str]) -> None:
        for start in range(0, len(uids), _UIDS_PER_SEARCH):
            some = uids[start : start + _UIDS_PER_SEARCH]
            self._list(resource, [("SOPInstanceUID", ",".join(some))], set(some))

    def _one_by_one(self, left: Sequence[str]) -> None:
        """Search for each alone; where one is found, its series is listed for the sake of the others."""
        asked: set[str] = set()
        with ThreadPoolExecutor(PARALLEL) as pool:
            hit = True
            while left := [uid for uid in self._left(left) if uid not in asked]:
                # After a hit the next is probably in another series, and the rest with it.
                some = left[: 1 if hit else PARALLEL]
                asked.update(some)
                places = {place for place in pool.map(self._alone, some) if place is not None}
                hit = bool(places)
                for place in places:
                    rest = [uid for uid in self._left(left) if uid not in asked]
                    if len(rest) > _FEW:
                        self._list(f"studies/{place.study}/series/{place.series}/instances", (), set(rest))

    def _alone(self, uid: str) -> Place | None:
        """Search for one instance; tell in which series it is."""
        key = [("SOPInstanceUID", uid)]
        place = self._places.get(uid)
        if place is not None:
            rows = self._list(f"studies/{place.study}/series/{place.series}/instances", key, {uid})
            if rows:
                return place
        if self._client.profile.flat_search:
            rows = self._list("instances", key, {uid})
            return _place(rows[0]) if rows else None
        if place is None:
            raise RequestRefused(
                self._client.name, "cannot be searched for an instance whose study and series are not known"
            )
        return None

    def _list(self, resource: str, key: Sequence[tuple[str, str]], wanted: set[str]) -> list[Row]:
        """Search until each of the wanted is found or the archive has no more; note and give their rows."""
        rows: list[Row] = []
        missing, listed = set(wanted), 0
        self._step()
        for page in self._client.search(resource, [*key, _FIELDS]):
            for row in page:
                uid = text_of(row, _SOP_INSTANCE)
                if uid in wanted:
                    self._found[uid].add(text_of(row, _SOP_CLASS) or self._class_from_metadata(row))
                    missing.discard(uid)
                    rows.append(row)
            listed += len(page)
            if not missing:
                break
            if listed > _MOST_LISTED:
                raise AnswerUnreadable(self._client.name, f"a search lists more than {_MOST_LISTED} instances")
            self._step()
        return rows

    def _class_from_metadata(self, row: Row) -> str:
        """Ask for what the search was asked for in vain."""
        place, uid = _place(row), text_of(row, _SOP_INSTANCE)
        (model, *_) = self._client.metadata(place.study, place.series, uid)
        return text_of(model, _SOP_CLASS)


def _place(row: Row) -> Place:
    return Place(text_of(row, _STUDY), text_of(row, _SERIES))
