"""Keep what the embedded archive knows of its instances in SQLite, and search it."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.embedded.query import FILTERS, INSTANCE, SERIES, STUDY, UIDS, Filter, Query, folded

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS study (
  key INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE COLLATE NOCASE, model TEXT NOT NULL,
  StudyDate TEXT, StudyDescription TEXT, AccessionNumber TEXT, PatientID TEXT, PatientName TEXT,
  PatientBirthDate TEXT, ReferringPhysicianName TEXT);
CREATE TABLE IF NOT EXISTS series (
  key INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER NOT NULL REFERENCES study (key),
  uid TEXT NOT NULL COLLATE NOCASE, model TEXT NOT NULL,
  Modality TEXT, PerformedProcedureStepStartDate TEXT, ManufacturerModelName TEXT, UNIQUE (study, uid));
CREATE TABLE IF NOT EXISTS instance (
  key INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL REFERENCES series (key),
  study INTEGER NOT NULL REFERENCES study (key), uid TEXT NOT NULL COLLATE NOCASE,
  file TEXT NOT NULL, transfer_syntax TEXT NOT NULL, model TEXT NOT NULL, UNIQUE (series, uid));
CREATE INDEX IF NOT EXISTS instance_of_study ON instance (study);
CREATE INDEX IF NOT EXISTS instance_uid ON instance (uid);
CREATE INDEX IF NOT EXISTS study_date ON study (StudyDate);
CREATE INDEX IF NOT EXISTS study_patient ON study (PatientID);
CREATE INDEX IF NOT EXISTS study_accession ON study (AccessionNumber);
"""
_JOINS: Final = {
    STUDY: "study",
    SERIES: "series JOIN study ON study.key = series.study",
    INSTANCE: "instance JOIN series ON series.key = instance.series JOIN study ON study.key = instance.study",
}
_COLUMNS: Final = {
    level: tuple(name for name in FILTERS[level] if name not in {UIDS[level], "ModalitiesInStudy"})
    for level in (STUDY, SERIES)
}
_FIRST_UIDS: Final = (UIDS[STUDY], UIDS[SERIES], UIDS[INSTANCE])


@dataclass(frozen=True, slots=True)
class Stored:
    """Name one stored instance: its UIDs, and its file below the archive's folder."""

    key: int
    study: str
    series: str
    instance: str
    file: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Match:
    """Hold one match: the keys of its rows and its values in the index, by level."""

    keys: Mapping[str, int]
    models: Mapping[str, dict[str, Any]]


class Index:
    """Be the archive's database; every method may be called from any thread, a change is durable on return."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.create_function("begins", 2, _begins, deterministic=True)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def holds(self, study: str, series: str, instance: str) -> bool:
        """Say whether the archive has this instance."""
        return bool(self.instances(study, series, instance))

    def add(self, uids: tuple[str, str, str], file: str, transfer_syntax: str, model: dict[str, Any]) -> bool:
        """Add an instance; False when the archive has its (study, series, instance) already."""
        with self._transaction() as connection:
            study = self._merge(STUDY, uids[0], None, model)
            series = self._merge(SERIES, uids[1], study, model)
            cursor = connection.execute(
                "INSERT INTO instance (series, study, uid, file, transfer_syntax, model) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (series, study, uids[2], file, transfer_syntax, json.dumps(model)),
            )
            return cursor.rowcount == 1

    def instances(self, study: str, series: str = "", instance: str = "") -> list[Stored]:
        """Return the stored instances of a study, series or instance, in the order of their arrival."""
        where, values = _of(study, series, instance)
        with self._lock:
            rows = self._connection.execute(
                "SELECT instance.key, study.uid, series.uid, instance.uid, file, transfer_syntax"  # noqa: S608
                f" FROM {_JOINS[INSTANCE]} WHERE {where} ORDER BY instance.key",
                values,
            ).fetchall()
        return [Stored(*row) for row in rows]

    def models(self, keys: Sequence[int]) -> list[str]:
        """Return the metadata of instances as JSON texts; what was removed meanwhile is left out."""
        marks = ", ".join("?" * len(keys))
        with self._lock:
            rows = self._connection.execute(
                f"SELECT model FROM instance WHERE key IN ({marks}) ORDER BY key",  # noqa: S608
                keys,
            ).fetchall()
        return [text for (text,) in rows]

    def remove(self, study: str, series: str = "", instance: str = "") -> list[str]:
        """Remove a study, series or instance, and what it leaves empty; return the files that are left over."""
        with self._transaction() as connection:
            found = self.instances(study, series, instance)
            connection.executemany("DELETE FROM instance WHERE key = ?", [(one.key,) for one in found])
            connection.execute("DELETE FROM series WHERE key NOT IN (SELECT series FROM instance)")
            connection.execute("DELETE FROM study WHERE key NOT IN (SELECT study FROM instance)")
        return [one.file for one in found]

    def files(self) -> set[str]:
        """Return the names of all files that instances are in."""
        with self._lock:
            return {file for (file,) in self._connection.execute("SELECT file FROM instance")}

    def search(self, level: str, path: Mapping[str, str], query: Query) -> list[Match]:
        """Return a page of matches, the newest first; `path` has the UIDs of the URL by level."""
        conditions = [f"{of}.uid = ?" for of in path]
        values: list[str | int] = list(path.values())
        for one in query.filters:
            condition, bound = _condition(one, fuzzy=query.fuzzy)
            conditions.append(condition)
            values += bound
        levels = (STUDY, SERIES, INSTANCE)[: (STUDY, SERIES, INSTANCE).index(level) + 1]
        columns = ", ".join(f"{of}.key, {of}.model" for of in levels)
        statement = (
            f"SELECT {columns} FROM {_JOINS[level]} WHERE {' AND '.join(conditions) or '1'}"  # noqa: S608
            f" ORDER BY {level}.key DESC LIMIT ? OFFSET ?"
        )
        with self._lock:
            rows = self._connection.execute(statement, [*values, query.limit, query.offset]).fetchall()
        return [
            Match(
                dict(zip(levels, row[::2], strict=True)),
                {of: json.loads(text) for of, text in zip(levels, row[1::2], strict=True)},
            )
            for row in rows
        ]

    def newest(self, level: str, key: int) -> dict[str, Any]:
        """Return the metadata of the newest instance in a study or series."""
        with self._lock:
            row = self._connection.execute(
                f"SELECT model FROM instance WHERE {level} = ? ORDER BY key DESC LIMIT 1",  # noqa: S608
                (key,),
            ).fetchone()
        model: dict[str, Any] = json.loads(row[0]) if row else {}
        return model

    def count(self, level: str, key: int) -> int:
        """Return how many instances a study or series has."""
        with self._lock:
            row = self._connection.execute(f"SELECT count(*) FROM instance WHERE {level} = ?", (key,)).fetchone()  # noqa: S608
        return int(row[0])

    def modalities(self, study: int) -> list[str]:
        """Return the modalities of a study's series."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT model FROM series WHERE study = ? ORDER BY key", (study,)
            ).fetchall()
        found = (json.loads(model).get("00080060", {}).get("Value", [None])[0] for (model,) in rows)
        return list(dict.fromkeys(value for value in found if value))

    def _merge(self, level: str, uid: str, study: int | None, model: dict[str, Any]) -> int:
        """Insert or update a study or series: the last instance wins, what it has not stays as it was."""
        scope, bound = ("", [uid]) if study is None else (" AND study = ?", [uid, study])
        row = self._connection.execute(f"SELECT key, model FROM {level} WHERE uid = ?{scope}", bound).fetchone()  # noqa: S608
        known = json.loads(row[1]) if row else {}
        merged = known | {key: model[key] for key in _INDEXED[level] if model.get(key, {}).get("Value")}
        columns = _COLUMNS[level]
        values = [_first(merged, keyword) for keyword in columns]
        if row:
            changes = ", ".join(f"{name} = ?" for name in ("model", *columns))
            self._connection.execute(
                f"UPDATE {level} SET {changes} WHERE key = ?",  # noqa: S608
                [json.dumps(merged), *values, row[0]],
            )
            return int(row[0])
        names = ["uid", "model", *columns, *(["study"] if study is not None else [])]
        cursor = self._connection.execute(
            f"INSERT INTO {level} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608
            [uid, json.dumps(merged), *values, *([study] if study is not None else [])],
        )
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


_INDEXED: Final = {
    STUDY: ("0020000D", "00080020", "00081030", "00080050", "00080090", "00100010", "00100020", "00100030"),
    SERIES: ("0020000E", "00080060", "00400244", "00081090"),
}
"""The tags whose values the index holds itself, by level: the default answers, too."""
_TAGS: Final = {
    "StudyDate": "00080020",
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "PatientID": "00100020",
    "PatientName": "00100010",
    "PatientBirthDate": "00100030",
    "ReferringPhysicianName": "00080090",
    "Modality": "00080060",
    "PerformedProcedureStepStartDate": "00400244",
    "ManufacturerModelName": "00081090",
}


def indexed(level: str) -> Sequence[str]:
    """Return the tags whose values the index holds itself for studies or series; only the UID for instances."""
    return _INDEXED.get(level, ("00080018",))


def _first(model: dict[str, Any], keyword: str) -> str:
    values = model.get(_TAGS[keyword], {}).get("Value") or [""]
    value = values[0]
    if isinstance(value, dict):
        groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        value = "=".join(groups).rstrip("=")
    return folded(keyword, str(value or ""))


def _of(study: str, series: str, instance: str) -> tuple[str, list[str]]:
    given = [(STUDY, study), (SERIES, series), (INSTANCE, instance)]
    return " AND ".join(f"{level}.uid = ?" for level, uid in given if uid), [uid for _, uid in given if uid]


def _condition(one: Filter, *, fuzzy: bool) -> tuple[str, list[str]]:
    if one.keyword in _FIRST_UIDS:
        return f"{one.level}.uid = ?", [one.value]
    if one.keyword == "ModalitiesInStudy":
        return "EXISTS (SELECT 1 FROM series AS any WHERE any.study = study.key AND any.Modality = ?)", [one.value]
    column = f"{one.level}.{one.keyword}"
    if one.until is not None:
        return f"{column} <> '' AND {column} >= ? AND {column} <= ?", [one.value, one.until or "99999999"]
    if fuzzy and one.keyword.endswith("Name") and one.level == STUDY:
        return f"begins({column}, ?)", [one.value]
    return f"{column} = ?", [one.value]


def _begins(stored: str | None, phrase: str) -> bool:
    """Say whether the words of `phrase` begin neighbouring words of a name, in its order."""
    words = (stored or "").replace("^", " ").replace("=", " ").split()
    wanted = phrase.replace("^", " ").replace("=", " ").split()
    return any(
        all(word.startswith(begin) for word, begin in zip(words[at : at + len(wanted)], wanted, strict=True))
        for at in range(len(words) - len(wanted) + 1)
    )
