"""The durable table of rejected instances, shared by the processes that receive, answer queries and act."""

import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from gateway.outbox.database import Database
from gateway.translate.rejection_note import TITLES, Note

Action = Literal["hide", "delete"]
"""What becomes of a rejected instance; the second does what the first does and more."""


class State(StrEnum):
    """Say how far a rejection has come."""

    WAITING = "waiting"  # nothing was found that it could be about, or its note is not delivered yet
    HIDDEN = "hidden"  # no query or retrieve finds it; when `due` is set its deletion is still to come
    GONE = "gone"  # deleted, or never there
    REFUSED = "refused"  # not acted upon: it is another patient's


class Stage(StrEnum):
    """Say how an operator sees a rejection: what is hidden until its deletion is apart from what stays hidden."""

    WAITING = "waiting"
    DELETING = "deleting"
    HIDDEN = "hidden"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Describe one rejected instance; times in seconds since 1970, `due` is None when nothing is left to do.

    `attempts` counts failures in a row, `looks` how often it was not there.
    """

    archive: str
    sop_instance: str
    study: str
    series: str
    title: str
    action: Action
    state: State
    patient: str
    note: str
    calling: str
    called: str
    received: float
    due: float | None
    attempts: int
    looks: int

    @property
    def readmits(self) -> bool:
        """Say whether a later copy is taken again."""
        return TITLES[self.title].readmits

    @property
    def stage(self) -> Stage:
        """Say how an operator sees it."""
        is_deleting = self.state is State.HIDDEN and self.due is not None
        return Stage.DELETING if is_deleting else Stage(self.state)


_VERSION = 1
# The columns are Rejection's fields, in their order. A SOP Instance UID names one object in an archive; one that
# comes under other study UIDs is rejected too.
_SCHEMA = """
CREATE TABLE rejections (
    archive TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    study TEXT NOT NULL,
    series TEXT NOT NULL,
    title TEXT NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL,
    patient TEXT NOT NULL,
    note TEXT NOT NULL,
    calling TEXT NOT NULL,
    called TEXT NOT NULL,
    received REAL NOT NULL,
    due REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    looks INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (archive, sop_instance)
) STRICT, WITHOUT ROWID;
CREATE INDEX coming ON rejections (archive, due) WHERE due IS NOT NULL;
CREATE INDEX hidden ON rejections (archive, study, series) WHERE state = 'hidden'
"""
_COLUMNS = ", ".join(field.name for field in fields(Rejection))
# The same rejection again changes nothing, unless it was refused or asks for more than was done. What may not come
# back stays that way whatever note follows, and no note of another patient changes it.
_ADD = """
INSERT INTO rejections VALUES (
    :archive, :sop_instance, :study, :series, :title, :action, 'waiting', :patient, :note, :calling, :called,
    :now, :now, 0, 0
) ON CONFLICT DO UPDATE SET
    study = excluded.study, series = excluded.series, title = excluded.title, action = excluded.action,
    state = CASE state WHEN 'hidden' THEN 'hidden' ELSE 'waiting' END, patient = excluded.patient,
    note = excluded.note, calling = excluded.calling, called = excluded.called,
    received = excluded.received, due = excluded.due, attempts = 0, looks = 0
WHERE state = 'refused' OR patient = excluded.patient AND (
    title <> excluded.title AND (:readmits = 0 OR title IN (SELECT value FROM json_each(:readmitting)))
        AND (action = excluded.action OR excluded.action = 'delete')
    OR title = excluded.title AND action = 'hide' AND excluded.action = 'delete'
)
"""


class Tombstones:
    """Hold what was rejected, for good; every method may be called from any thread.

    Open it after a fork, not before. Raises SpoolFull and SpoolBroken.
    """

    FILE = "rejections.db"

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._changed = threading.Condition()
        self._database = Database(folder / self.FILE, _SCHEMA, _VERSION, clock)

    def close(self) -> None:
        """Close the database; nothing depends on it."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Those who receive and answer

    def add(self, note: Note, uid: str, action: Action, *, archive: str, calling: str, called: str) -> int:
        """Take responsibility for a note, `uid` being its SOP Instance UID; count the instances to act upon."""
        readmitting = json.dumps([code for code, title in TITLES.items() if title.readmits])
        common = {
            "archive": archive,
            "title": note.title,
            "readmits": TITLES[note.title].readmits,
            "readmitting": readmitting,
            "action": action,
            "patient": note.patient,
            "note": uid,
            "calling": calling,
            "called": called,
            "now": self._database.clock(),
        }
        rows = [{**common, **reference._asdict()} for reference in note.references]
        changed = self._database.run(lambda connection: connection.executemany(_ADD, rows).rowcount)
        self.wake()
        return max(0, changed)

    def find(self, archive: str, sop_instance: str) -> Rejection | None:
        """Find the rejection of an instance, if there is one."""
        found = self._list(
            "archive = :archive AND sop_instance = :sop_instance", archive=archive, sop_instance=sop_instance
        )
        return found[0] if found else None

    def forget(self, archive: str, sop_instance: str) -> None:
        """Let an instance come back."""
        self._database.update(
            "DELETE FROM rejections WHERE archive = :archive AND sop_instance = :sop_instance",
            archive=archive,
            sop_instance=sop_instance,
        )

    def hidden(self, archive: str, sop_instances: Collection[str]) -> set[str]:
        """Give those of the instances that are hidden."""
        rows = self._database.ask(
            "SELECT sop_instance FROM rejections WHERE state = 'hidden' AND archive = :archive "
            "AND sop_instance IN (SELECT value FROM json_each(:uids))",
            archive=archive,
            uids=json.dumps([*sop_instances]),
        )
        return {str(row[0]) for row in rows}

    def touched(self, archive: str, studies: Collection[str]) -> set[tuple[str, str]]:
        """Give the series, by study and series, of these studies in which something is hidden."""
        rows = self._database.ask(
            "SELECT DISTINCT study, series FROM rejections WHERE state = 'hidden' AND archive = :archive "
            "AND study IN (SELECT value FROM json_each(:uids))",
            archive=archive,
            uids=json.dumps([*studies]),
        )
        return {(str(study), str(series)) for study, series in rows}

    # The one who acts

    def due(self, archive: str) -> list[Rejection]:
        """List what is due of the note and study that have waited longest."""
        first = self._list("archive = :archive AND due <= :now ORDER BY due LIMIT 1", archive=archive)
        if not first:
            return []
        return self._list(
            "archive = :archive AND due <= :now AND note = :note AND study = :study",
            archive=archive,
            note=first[0].note,
            study=first[0].study,
        )

    def postpone(self, rejections: Sequence[Rejection], wait: float) -> None:
        """Try these again in `wait` seconds, after a failure."""
        self._change(rejections, "due = :now + :wait, attempts = attempts + 1", wait=wait)

    def look_again(self, rejections: Sequence[Rejection], wait: float) -> None:
        """Look for these again in `wait` seconds, for they are not there."""
        self._change(rejections, "due = :now + :wait, attempts = 0, looks = looks + 1", wait=wait)

    def set_state(self, rejections: Sequence[Rejection], state: State, *, final: bool) -> None:
        """Note how far these have come; after a `final` state nothing is due. What came between stands."""
        self._change(rejections, f"state = :state{', due = NULL' if final else ''}", state=state)

    def hurry(self) -> None:
        """Let everything be tried now: what hindered it may have gone."""
        self._database.update("UPDATE rejections SET due = min(due, :now) WHERE due IS NOT NULL")

    def rejections(self) -> list[Rejection]:
        """List everything."""
        return self._list("1 ORDER BY archive, sop_instance")

    def counts(self) -> dict[tuple[str, Stage], int]:
        """Count rejections by archive and stage."""
        rows = self._database.ask(
            "SELECT archive, CASE WHEN state = 'hidden' AND due IS NOT NULL THEN 'deleting' ELSE state END AS stage, "
            "count(*) FROM rejections GROUP BY archive, stage"
        )
        return {(str(archive), Stage(stage)): int(number) for archive, stage, number in rows}

    def wait(self, seconds: float) -> None:
        """Wait until this process has added something, or the time is over."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End every `wait` of this process."""
        with self._changed:
            self._changed.notify_all()

    def _change(self, rejections: Sequence[Rejection], change: str, **values: object) -> None:
        """Change the rows as they were read: a later note's, or one that was let back meanwhile, stay."""
        if not rejections:
            return
        self._database.update(
            f"UPDATE rejections SET {change} WHERE archive = :archive AND note = :note AND due IS NOT NULL "  # noqa: S608 - ours
            "AND sop_instance IN (SELECT value FROM json_each(:uids))",
            archive=rejections[0].archive,
            note=rejections[0].note,
            uids=json.dumps([one.sop_instance for one in rejections]),
            **values,
        )

    def _list(self, condition: str, **values: object) -> list[Rejection]:
        query = f"SELECT {_COLUMNS} FROM rejections WHERE {condition}"  # noqa: S608 - our own names
        return [_rejection(row) for row in self._database.ask(query, **values)]


def _rejection(row: tuple[Any, ...]) -> Rejection:
    values = dict(zip(Rejection.__slots__, row, strict=True))
    return Rejection(**{**values, "state": State(values["state"])})
