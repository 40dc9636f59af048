"""Ask the embedded archive's database questions, all of one moment."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.embedded import metadata
from gateway.embedded.query import INSTANCE, LEVELS, SERIES, STUDY, TAGS, UIDS, Filter, Query

_LATEST: Final = "99999999"
_PARENTS: Final = {
    STUDY: {},
    SERIES: {STUDY: "JOIN study ON study.key = series.study"},
    INSTANCE: {
        SERIES: "JOIN series ON series.key = instance.series",
        STUDY: "JOIN study ON study.key = instance.study",
    },
}


@dataclass(frozen=True, slots=True)
class Stored:
    """Name one stored instance: its key, which grows with each store, its file and transfer syntax."""

    key: int
    file: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Place:
    """Hold the keys of a study, and of a series in it."""

    study: int
    series: int | None = None

    def condition(self, instance: str = "") -> tuple[str, list[int | str]]:
        """Return the SQL condition for the instances at this place, and its values."""
        if self.series is None:
            return "study = ?", [self.study]
        return ("series = ? AND uid = ?", [self.series, instance]) if instance else ("series = ?", [self.series])


@dataclass(frozen=True, slots=True)
class Match:
    """Hold one match of a search: the keys of its rows and the texts of its attributes, by level and by tag."""

    keys: Mapping[str, int]
    lines: Mapping[str, str]


class Lookup:
    """Read the database through one connection, by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def place(self, study: str, series: str = "") -> Place | None:
        """Find a study, or a series in it."""
        row = self._connection.execute("SELECT key FROM study WHERE uid = ?", [study]).fetchone()
        if row is None or not series:
            return Place(row[0]) if row else None
        within = self._connection.execute("SELECT key FROM series WHERE study = ? AND uid = ?", [row[0], series])
        found = within.fetchone()
        return Place(row[0], found[0]) if found else None

    def instances(self, study: str, series: str = "", instance: str = "") -> list[Stored]:
        """Return the stored instances of a study, series or instance, in the order of their arrival."""
        place = self.place(study, series)
        if place is None:
            return []
        condition, values = place.condition(instance)
        rows = self._connection.execute(
            f"SELECT key, file, transfer_syntax FROM instance WHERE {condition} ORDER BY key",  # noqa: S608
            values,
        )
        return [Stored(*row) for row in rows]

    def series_of(self, place: Place, instance: str = "") -> list[int]:
        """Return the keys of the series that the instances at a place are in."""
        condition, values = place.condition(instance)
        rows = self._connection.execute(f"SELECT DISTINCT series FROM instance WHERE {condition}", values)  # noqa: S608
        return [key for (key,) in rows]

    def models(self, keys: Sequence[int]) -> list[str]:
        """Return the metadata of instances, the inside of a JSON object each; removed ones are left out."""
        marks = ", ".join("?" * len(keys))
        rows = self._connection.execute(f"SELECT model FROM metadata WHERE key IN ({marks}) ORDER BY key", keys)  # noqa: S608
        return [text for (text,) in rows]

    def files(self) -> set[str]:
        """Return the names of all files that instances are in."""
        return {file for (file,) in self._connection.execute("SELECT file FROM instance")}

    def page(
        self, level: str, path: Mapping[str, str], query: Query, wanted: frozenset[str], *, held: bool
    ) -> Iterator[Match]:
        """Yield a page of matches, the newest first; `path` has the UIDs of the URL by level.

        The `wanted` attributes come from the index itself when they are all `held` there, else from the newest
        instance of each match.
        """
        place = self.place(path[STUDY], path.get(SERIES, "")) if path else None
        if path and place is None:
            return
        levels = LEVELS[: LEVELS.index(level) + 1]
        models = [f"{of}.model" for of in levels if of != INSTANCE] if held else ["metadata.model"]
        joins = " ".join(_PARENTS[level].values())
        if not held:
            joins += f" JOIN metadata ON metadata.key = {_NEWEST[level]}"
        keys = ", ".join(f"{of}.key" for of in levels)
        detail = f"SELECT {keys}, {level}.uid, {', '.join(models)} FROM {level} {joins} WHERE {level}.key = ?"  # noqa: S608
        for key in self._connection.execute(*_selection(level, place, query)).fetchall():
            row = self._connection.execute(detail, key).fetchone()
            uid = TAGS[UIDS[level]]
            lines = {uid: metadata.line(uid, {"vr": "UI", "Value": [row[len(levels)]]})}
            for text in row[len(levels) + 1 :]:
                lines.update((tag, one) for tag, one in metadata.split(text).items() if tag in wanted)
            yield Match(dict(zip(levels, row, strict=False)), lines)

    def count(self, level: str, key: int) -> int:
        """Return how many instances a study or series has."""
        row = self._connection.execute(f"SELECT count(*) FROM instance WHERE {level} = ?", [key]).fetchone()  # noqa: S608
        return int(row[0])

    def modalities(self, study: int) -> list[str]:
        """Return the distinct modalities of a study's series."""
        rows = self._connection.execute("SELECT model FROM series WHERE study = ? ORDER BY key", [study])
        found = (metadata.split(model).get(TAGS["Modality"], "") for (model,) in rows)
        return list(dict.fromkeys(metadata.first(line) for line in found if line))


_NEWEST: Final = {
    **{
        level: f"(SELECT one.key FROM instance AS one WHERE one.{level} = {level}.key ORDER BY one.key DESC LIMIT 1)"  # noqa: S608
        for level in (STUDY, SERIES)
    },
    INSTANCE: "instance.key",
}
"""The newest instance of a study or series."""


def _selection(level: str, place: Place | None, query: Query) -> tuple[str, list[int | str]]:
    """Return the SELECT for the keys of a page: sorted and skipped without reading what is answered."""
    conditions, values = [], list[int | str]()
    if place is not None:
        parent, key = (STUDY, place.study) if place.series is None else (SERIES, place.series)
        conditions.append(f"{level}.{parent} = ?")
        values.append(key)
    for one in query.filters:
        condition, bound = _condition(one, level, fuzzy=query.fuzzy)
        conditions.append(condition)
        values += bound
    joins = [join for of, join in _PARENTS[level].items() if any(one.level == of for one in query.filters)]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    selected = f"SELECT {level}.key FROM {level} {' '.join(joins)} {where} ORDER BY {level}.key DESC LIMIT ? OFFSET ?"  # noqa: S608
    return selected, [*values, query.limit, query.offset]


def _condition(one: Filter, level: str, *, fuzzy: bool) -> tuple[str, list[str]]:
    if one.keyword in UIDS.values():
        return f"{one.level}.uid = ?", [one.value]
    if one.keyword == "ModalitiesInStudy":
        study = "study.key" if level == STUDY else f"{level}.study"
        return f"{study} IN (SELECT study FROM series WHERE Modality = ?)", [one.value]  # noqa: S608
    column = f"{one.level}.{one.keyword}"
    if one.until is not None:
        return f"{column} <> '' AND {column} BETWEEN ? AND ?", [one.value, one.until or _LATEST]
    if fuzzy and one.keyword.endswith("Name") and one.level == STUDY:
        return f"begins({column}, ?)", [one.value]
    return f"{column} = ?", [one.value]
