"""The statements behind the outbox: each function is one step of one transaction."""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from gateway.outbox.digest import is_same
from gateway.outbox.entry import Duplicates, Limits, Place, Receipt, State
from gateway.outbox.record import Record
from gateway.outbox.rows import PLACE

LONGEST_PRECEDENCE = 600.0
"""For how many seconds an instance may go before earlier ones because its study began before theirs."""

MOST_PER_TRANSACTION = 2000
"""Entries that an operator's command goes through before other processes get their turn."""

FILE_LOST = "its file is missing from the spool"
"""The reason with which a row without a file is set aside: it does not answer for a repeat."""

_PRUNED = 500
_CLOCKS = 1.0  # seconds by which one thread's time may be behind another's


@dataclass(frozen=True, slots=True)
class Selection:
    """Choose entries by study, archive ("" for any) or ids; nothing given is all of them."""

    study: str = ""
    archive: str = ""
    ids: tuple[int, ...] = ()

    def sql(self) -> tuple[str, dict[str, object]]:
        """Return the condition and its values."""
        values: dict[str, object] = {}
        conditions = ["1"]
        if self.study:
            conditions.append("study = :study")
            values["study"] = self.study
        if self.archive:
            conditions.append("archive = :archive")
            values["archive"] = self.archive
        if self.ids:
            conditions.append("id IN (SELECT value FROM json_each(:ids))")
            values["ids"] = json.dumps(self.ids)
        return " AND ".join(conditions), values


def enter(
    connection: sqlite3.Connection,
    received: Record,
    data_set: Callable[[], BinaryIO],
    is_there: Callable[[Place], bool],
    duplicates: Duplicates,
    limits: Limits,
) -> tuple[Receipt, Place | None]:
    """Insert the row, unless the object is known; return also which other's bytes are not wanted any more."""
    if _insert(connection, received):
        return Receipt.QUEUED, None
    arrival = received.arrival
    known = connection.execute(
        f"SELECT {PLACE}, digest, state, due, reason, attempts OR replaces FROM entries "  # noqa: S608 - our names
        "WHERE sop_instance = ? AND series = ? AND study = ? AND archive = ?",
        (arrival.sop_instance, arrival.series, arrival.study, arrival.archive),
    ).fetchone()
    *other, digest, state, due, reason, may_be_stored = known
    place = Place(*other)
    is_over = received.when >= due + limits.repeat_window if state == "done" else not is_there(place)
    if reason == FILE_LOST or is_over:  # a power cut may bring a row back whose bytes have been given back
        connection.execute("DELETE FROM entries WHERE id = ?", (place.id,))
        _insert(connection, received, replaces=state != "done" and duplicates == "replace" and bool(may_be_stored))
        return Receipt.QUEUED, place
    if is_same(digest, received.digest, data_set):
        return Receipt.DUPLICATE, None
    if duplicates == "keep":
        return Receipt.KEPT, None
    if duplicates == "reject":
        return Receipt.REJECTED, None
    connection.execute("DELETE FROM entries WHERE id = ?", (place.id,))
    # The other object may be under way just now: this one must not overtake it.
    not_before = due if state == "leased" else 0.0
    _insert(connection, received, not_before=not_before, replaces=bool(may_be_stored))
    return Receipt.REPLACED, place


def _insert(
    connection: sqlite3.Connection, received: Record, *, not_before: float = 0.0, replaces: bool = False
) -> bool:
    """Insert at the place in the line that the study has; False when the UIDs are taken.

    Any row of the study tells it, since each took it over from another; the place moves on, for a study that never
    ends would let nobody else pass.
    """
    arrival = received.arrival
    inserted = connection.execute(
        _INSERT,
        {
            "id": received.id,
            "archive": arrival.archive,
            "study": arrival.study,
            "series": arrival.series,
            "sop_class": arrival.sop_class,
            "sop_instance": arrival.sop_instance,
            "transfer_syntax": arrival.transfer_syntax,
            "peer": arrival.peer,
            "called": arrival.called,
            "size": received.size,
            "digest": received.digest,
            "received": received.when,
            "earliest": received.when - LONGEST_PRECEDENCE,
            "not_before": not_before,
            "replaces": replaces,
            "segment": received.segment,
            "position": received.position,
        },
    )
    return inserted.rowcount > 0


# One statement, for each gives the interpreter away and has to wait until other associations return it.
_INSERT = """
INSERT INTO entries (id, archive, study, series, sop_class, sop_instance, transfer_syntax, peer, called, size, digest,
    received, place, state, due, replaces, segment, position)
SELECT :id, :archive, :study, :series, :sop_class, :sop_instance, :transfer_syntax, :peer, :called, :size, :digest,
    :received, place, 'todo', max(place, :not_before), :replaces, :segment, :position
FROM (SELECT min(:received, max(
    coalesce((SELECT place FROM entries WHERE study = :study AND archive = :archive LIMIT 1), :received), :earliest
)) AS place)
WHERE true ON CONFLICT (sop_instance, series, study, archive) DO NOTHING
"""


def is_due(connection: sqlite3.Connection, archive: str, now: float) -> bool:
    """Tell whether a claim would find something, at the price of three look-ups."""
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM entries WHERE archive = ? AND state = 'todo' AND due <= ?) "
        "OR EXISTS (SELECT 1 FROM entries WHERE state = 'leased' AND due <= ?) "
        "OR EXISTS (SELECT 1 FROM entries WHERE archive = ? AND state <> 'done' AND received > ?)",
        (archive, now, now, archive, now + _CLOCKS),
    )
    return bool(found.fetchone()[0])


def follow_clock(connection: sqlite3.Connection, archive: str, now: float) -> None:
    """Let go now what was received in the future: the clock was set back, and it would wait for that time."""
    connection.execute(
        "UPDATE entries SET received = :now, place = min(place, :now), "
        "due = CASE state WHEN 'todo' THEN min(due, :now) ELSE due END "
        "WHERE archive = :archive AND state <> 'done' AND received > :now + :clocks",
        {"archive": archive, "now": now, "clocks": _CLOCKS},
    )


def take_back(connection: sqlite3.Connection, now: float) -> None:
    """End the leases that have run out; who held one may be dead."""
    connection.execute("UPDATE entries SET state = 'todo', owner = 0 WHERE state = 'leased' AND due <= ?", (now,))


def choose(connection: sqlite3.Connection, archive: str, count: int, max_bytes: int, now: float) -> list[int]:
    """Choose the next entries, up to `count` and together `max_bytes`, but one of any size."""
    found = connection.execute(
        "SELECT id, size FROM entries WHERE archive = ? AND state = 'todo' AND due <= ? ORDER BY due, id LIMIT ?",
        (archive, now, count),
    )
    chosen: list[int] = []
    room = max_bytes
    for identifier, size in found.fetchall():
        room -= size
        if chosen and room < 0:
            break
        chosen.append(identifier)
    return chosen


def lease(connection: sqlite3.Connection, ids: Sequence[int], owner: int, until: float) -> list[tuple[object, ...]]:
    """Lease entries and return their rows in the order of `ids`."""
    connection.execute(
        "UPDATE entries SET state = 'leased', owner = ?, due = ?, attempts = attempts + 1 "
        "WHERE id IN (SELECT value FROM json_each(?))",
        (owner, until, json.dumps(ids)),
    )
    leased = connection.execute(
        "SELECT entries.* FROM json_each(?) JOIN entries ON entries.id = value ORDER BY key", (json.dumps(ids),)
    )
    return leased.fetchall()


def renew(connection: sqlite3.Connection, ids: Sequence[int], owner: int, until: float) -> set[int]:
    """Make the leases that are still ours last until then; return which they are."""
    kept = connection.execute(
        "UPDATE entries SET due = ? WHERE id IN (SELECT value FROM json_each(?)) "
        "AND state = 'leased' AND owner = ? RETURNING id",
        (until, json.dumps(ids), owner),
    )
    return {row[0] for row in kept.fetchall()}


def finish(connection: sqlite3.Connection, ids: Sequence[int], now: float, limits: Limits) -> list[Place]:
    """Mark entries as delivered and forget the oldest that were; return whose bytes are not wanted any more.

    Whoever holds the lease now, the archive has the object.
    """
    done = connection.execute(
        "UPDATE entries SET state = 'done', due = ?, owner = 0, reason = '' "  # noqa: S608 - our names
        f"WHERE id IN (SELECT value FROM json_each(?)) AND state <> 'done' RETURNING {PLACE}",
        (now, json.dumps(ids)),
    ).fetchall()
    connection.execute(
        "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE state = 'done' AND due < ? LIMIT ?)",
        (now - limits.keep_done, _PRUNED),
    )
    kept = connection.execute("SELECT total(entries) FROM totals WHERE state = 'done'").fetchone()[0]
    if kept > limits.keep_done_entries:
        connection.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE state = 'done' ORDER BY due, id LIMIT ?)",
            (min(int(kept) - limits.keep_done_entries, _PRUNED),),
        )
    return [Place(*row) for row in done]


def segment(connection: sqlite3.Connection, number: int) -> tuple[int, int]:
    """Return how many of a segment's entries wait, and up to which byte of it the database knows them."""
    found = connection.execute("SELECT waiting, known FROM segments WHERE number = ?", (number,)).fetchone()
    return found or (0, 0)


def pass_by(connection: sqlite3.Connection, record: Record) -> None:
    """Note that a record is known though it has no row: it was not taken, and is not to be entered after a crash."""
    connection.execute(
        "INSERT INTO segments VALUES (?, 0, ?) ON CONFLICT DO UPDATE SET known = max(known, excluded.known)",
        (record.segment, record.position + record.size),
    )


def forget_segment(connection: sqlite3.Connection, number: int) -> None:
    """Note that a segment has been removed."""
    connection.execute("DELETE FROM segments WHERE number = ?", (number,))


def put_back(
    connection: sqlite3.Connection, identifier: int, owner: int, state: State, due: float, reason: str
) -> bool:
    """End our lease of an entry that was not taken; tell whether we still had it."""
    changed = connection.execute(
        "UPDATE entries SET state = ?, owner = 0, due = ?, reason = ? "
        "WHERE id = ? AND state = 'leased' AND owner = ?",
        (state, due, reason, identifier, owner),
    )
    return changed.rowcount > 0


def give_back(connection: sqlite3.Connection, ids: Sequence[int], owner: int) -> None:
    """End our leases of entries that were not tried."""
    connection.execute(
        "UPDATE entries SET state = 'todo', owner = 0, due = place, attempts = attempts - 1 "
        "WHERE id IN (SELECT value FROM json_each(?)) AND state = 'leased' AND owner = ?",
        (json.dumps(ids), owner),
    )


def hold(connection: sqlite3.Connection, selection: Selection) -> None:
    """Note that what comes of the selection is to be held; `change` holds what is there."""
    connection.execute("INSERT OR IGNORE INTO holds VALUES (?, ?)", (selection.study, selection.archive))


def unhold(connection: sqlite3.Connection, selection: Selection) -> None:
    """Note that what comes of the selection may go; `change` releases what is there."""
    connection.execute(
        "DELETE FROM holds WHERE :study IN (study, '') AND :archive IN (archive, '')",
        {"study": selection.study, "archive": selection.archive},
    )


CHANGES: Mapping[str, str] = {
    "hold": "UPDATE entries SET state = 'held', due = :now "
    "WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'todo'",
    "release": "UPDATE entries SET state = 'todo', due = place "
    "WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'held' AND NOT EXISTS (SELECT 1 FROM holds "
    "WHERE holds.study IN (entries.study, '') AND holds.archive IN (entries.archive, ''))",
    "retry": "UPDATE entries SET state = 'todo', due = min(place, :now), attempts = min(attempts, 1), reason = '' "
    "WHERE id IN (SELECT value FROM json_each(:ids)) "
    "AND (state = 'set aside' AND reason <> :lost OR state = 'todo' AND due > :now)",
    "discard": "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(:ids)) AND state <> 'done'",
    "withdraw": "DELETE FROM entries WHERE id IN (SELECT value FROM json_each(:ids)) AND state <> 'leased'",
}
"""What an operator, or a rejection note, can do to entries. `discard` takes leased ones as well."""


def change(
    connection: sqlite3.Connection, kind: str, selection: Selection, after: int, now: float
) -> tuple[list[Place], int]:
    """Go through some of the selection with ids above `after`; return which changed, and the next `after` or 0."""
    condition, values = selection.sql()
    found = connection.execute(
        f"SELECT id FROM entries WHERE {condition} AND id > :after ORDER BY id LIMIT :most",  # noqa: S608 - our names
        values | {"after": after, "most": MOST_PER_TRANSACTION},
    )
    chosen = [row[0] for row in found.fetchall()]
    if not chosen:
        return [], 0
    statement = f"{CHANGES[kind]} RETURNING {PLACE}"
    changed = connection.execute(statement, {"ids": json.dumps(chosen), "now": now, "lost": FILE_LOST})
    return [Place(*row) for row in changed.fetchall()], chosen[-1]
