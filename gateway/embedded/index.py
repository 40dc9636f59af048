"""Keep what the embedded archive knows of its instances in SQLite: one writer, as many readers as ask."""

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.embedded import metadata
from gateway.embedded.lookup import Lookup
from gateway.embedded.query import COLUMNS, SERIES, STUDY, TAGS, folded

_VERSION: Final = 1
_PRAGMAS: Final = ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000", "foreign_keys = ON")
_SCHEMA: Final = """
CREATE TABLE study (
  key INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE,
  StudyDate TEXT NOT NULL DEFAULT '', StudyDescription TEXT NOT NULL DEFAULT '',
  AccessionNumber TEXT NOT NULL DEFAULT '', PatientID TEXT NOT NULL DEFAULT '',
  PatientName TEXT NOT NULL DEFAULT '', PatientBirthDate TEXT NOT NULL DEFAULT '',
  ReferringPhysicianName TEXT NOT NULL DEFAULT '', model TEXT NOT NULL);
CREATE TABLE series (
  key INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER NOT NULL REFERENCES study (key), uid TEXT NOT NULL,
  Modality TEXT NOT NULL DEFAULT '', PerformedProcedureStepStartDate TEXT NOT NULL DEFAULT '',
  ManufacturerModelName TEXT NOT NULL DEFAULT '', model TEXT NOT NULL, UNIQUE (study, uid));
CREATE TABLE instance (
  key INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL REFERENCES series (key),
  study INTEGER NOT NULL REFERENCES study (key), uid TEXT NOT NULL,
  file TEXT NOT NULL, transfer_syntax TEXT NOT NULL, UNIQUE (series, uid));
CREATE TABLE metadata (key INTEGER PRIMARY KEY REFERENCES instance (key) ON DELETE CASCADE, model TEXT NOT NULL);
CREATE INDEX series_of_study ON series (study);
CREATE INDEX series_uid ON series (uid);
CREATE INDEX instance_of_study ON instance (study);
CREATE INDEX instance_of_series ON instance (series);
CREATE INDEX instance_uid ON instance (uid);
CREATE INDEX study_date ON study (StudyDate);
CREATE INDEX study_patient ON study (PatientID);
CREATE INDEX study_name ON study (PatientName);
CREATE INDEX study_birth_date ON study (PatientBirthDate);
CREATE INDEX study_accession ON study (AccessionNumber);
"""
_INDEXED: Final = {
    STUDY: ("0020000D", "00080020", "00081030", "00080050", "00080090", "00100010", "00100020", "00100030"),
    SERIES: ("0020000E", "00080060", "00400244", "00081090"),
}
_READERS: Final = 16
"""Connections kept open for readers; more are made and closed when that many are busy."""


@dataclass(frozen=True, slots=True)
class Addition:
    """Ask to add an instance: UIDs of study, series and instance, its file, its metadata; `replace` what is there."""

    uids: tuple[str, str, str]
    file: str
    transfer_syntax: str
    model: Mapping[str, Any]
    replace: bool = False


@dataclass(slots=True)
class _Batch:
    """Hold what one caller wants to be added, and what became of it."""

    additions: Sequence[Addition]
    added: list[bool] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    done: bool = False
    error: Exception | None = None


class Index:
    """Be the archive's database; every method may be called from any thread, a change is durable on return."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._readers: deque[sqlite3.Connection] = deque()
        self._writer = self._connect()
        try:
            self._prepare()
        except BaseException:
            self._writer.close()
            raise

    def _prepare(self) -> None:
        for pragma in _PRAGMAS:
            self._writer.execute(f"PRAGMA {pragma}")
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:
            self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise OSError("the archive's folder belongs to another version of this program")

    def close(self) -> None:
        """Close the database; nobody may be reading or writing."""
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    @contextmanager
    def reading(self) -> Iterator[Lookup]:
        """Give a view of the database that does not change, and that no writer holds up."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        try:
            yield Lookup(connection)
        finally:
            connection.execute("ROLLBACK")
            if len(self._readers) < _READERS:
                self._readers.append(connection)
            else:
                connection.close()

    def add(self, additions: Sequence[Addition]) -> tuple[list[bool], list[str]]:
        """Add instances; say for each whether it was added, or was there already, and which files are left over.

        What several threads add at the same time becomes durable by one commit. Raises sqlite3.Error.
        """
        batch = _Batch(additions)
        self._waiting.append(batch)
        with self._writing:
            if not batch.done:
                batches = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._commit(batches)
        if batch.error is not None:
            raise batch.error
        return batch.added, batch.replaced

    def remove(self, study: str, series: str = "", instance: str = "") -> list[str]:
        """Remove a study, series or instance, and what it leaves empty; return the files that are left over."""
        with self._writing, self._transaction() as connection:
            lookup = Lookup(connection)
            found = lookup.place(study, series)
            if found is None:
                return []
            condition, values = found.condition(instance)
            parents = [(key,) for key in lookup.series_of(found, instance)]
            files = connection.execute(f"DELETE FROM instance WHERE {condition} RETURNING file", values).fetchall()  # noqa: S608
            connection.executemany(
                "DELETE FROM series WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM instance WHERE series = ?1)", parents
            )
            connection.execute(
                "DELETE FROM study WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM series WHERE study = ?1)",
                [found.study],
            )
        return [file for (file,) in files]

    def _commit(self, batches: Sequence[_Batch]) -> None:
        """Add all batches in one transaction, or, if that fails, each in its own: one must not harm another."""
        try:
            with self._transaction() as connection:
                for batch in batches:
                    batch.added, batch.replaced = [], []
                    for addition in batch.additions:
                        batch.added.append(_add(connection, addition, batch.replaced))
        except Exception as error:  # noqa: BLE001 - it is raised where the batch came from
            if len(batches) > 1:
                for batch in batches:
                    self._commit([batch])
                return
            batches[0].error = error
        for batch in batches:
            batch.done = True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        connection.create_function("begins", 2, _begins, deterministic=True)
        return connection


def indexed(level: str) -> Sequence[str]:
    """Return the tags whose values the index holds itself for studies or series; only the UID for instances."""
    return _INDEXED.get(level, ("00080018",))


def _add(connection: sqlite3.Connection, addition: Addition, replaced: list[str]) -> bool:
    study_uid, series_uid, uid = addition.uids
    present = Lookup(connection).instances(*addition.uids)
    if present and not addition.replace:
        return False
    study = _merge(connection, STUDY, {"uid": study_uid}, addition.model)
    series = _merge(connection, SERIES, {"study": study, "uid": series_uid}, addition.model)
    connection.executemany("DELETE FROM instance WHERE key = ?", [(one.key,) for one in present])
    replaced += [one.file for one in present]
    key = connection.execute(
        "INSERT INTO instance (series, study, uid, file, transfer_syntax) VALUES (?, ?, ?, ?, ?)",
        (series, study, uid, addition.file, addition.transfer_syntax),
    ).lastrowid
    connection.execute("INSERT INTO metadata (key, model) VALUES (?, ?)", (key, _text(addition.model)))
    return True


def _merge(connection: sqlite3.Connection, level: str, where: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    """Insert or update a study or series: the last instance wins, what it has not stays as it was."""
    fresh = metadata.lines({tag: model[tag] for tag in _INDEXED[level] if model.get(tag, {}).get("Value")})
    condition = " AND ".join(f"{name} = ?" for name in where)
    with closing(
        connection.execute(f"SELECT key, model FROM {level} WHERE {condition}", list(where.values()))  # noqa: S608
    ) as found:
        row = found.fetchone()
    known = metadata.split(row[1]) if row else {}
    merged = known | fresh
    if row and merged == known:
        return int(row[0])
    values = {name: _first(model, name) for name in COLUMNS[level] if TAGS[name] in fresh}
    values["model"] = metadata.joined(merged.values())
    if row:
        changes = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE {level} SET {changes} WHERE key = ?", [*values.values(), row[0]])  # noqa: S608
        return int(row[0])
    values |= where
    cursor = connection.execute(
        f"INSERT INTO {level} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",  # noqa: S608
        list(values.values()),
    )
    return int(cursor.lastrowid or 0)


def _text(model: Mapping[str, Any]) -> str:
    return metadata.joined(metadata.lines(model).values())


def _first(model: Mapping[str, Any], keyword: str) -> str:
    value = model[TAGS[keyword]]["Value"][0]
    if isinstance(value, dict):
        groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        value = "=".join(groups).rstrip("=")
    return folded(keyword, str(value or ""))


def _begins(stored: str, phrase: str) -> bool:
    """Say whether the words of `phrase` begin neighbouring words of a name, in its order."""
    words = stored.replace("^", " ").replace("=", " ").split()
    wanted = phrase.replace("^", " ").replace("=", " ").split()
    return any(
        all(word.startswith(begin) for word, begin in zip(words[at : at + len(wanted)], wanted, strict=True))
        for at in range(len(words) - len(wanted) + 1)
    )
