"""The durable table of transactions, shared by the processes that receive, judge and report."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gateway import status
from gateway.commitment.request import Reference, Request
from gateway.commitment.transaction import Outcome, State, Transaction
from gateway.errors import CommitmentRefused
from gateway.outbox.database import Database

MOST_OPEN = 1000
"""Transactions of one peer that may be open at the same time."""
KEEP_ENDED = 86_400.0
"""For how many seconds a transaction can be looked up after its end."""

_VERSION = 1
# `due` is when the next attempt is wanted, and when an ended one ended. `holder` is the association that asked, for
# which alone the report is until `held_until`; `claimed_until` is the lease of who judges or reports just now.
_SCHEMA = """
CREATE TABLE transactions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    calling TEXT NOT NULL,
    called TEXT NOT NULL,
    archive TEXT NOT NULL,
    received REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    refs TEXT NOT NULL,
    verdicts TEXT NOT NULL DEFAULT '[]',
    due REAL NOT NULL,
    judged REAL NOT NULL DEFAULT 0,
    holder TEXT NOT NULL,
    held_until REAL NOT NULL,
    claimed_until REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX open ON transactions (calling, uid) WHERE state <> 'ended';
CREATE INDEX coming ON transactions (state, due);
CREATE INDEX holders ON transactions (holder) WHERE state <> 'ended';
"""
_COLUMNS = "id, uid, calling, called, archive, received, state, attempts, refs, verdicts"
_FREE = "claimed_until <= :now"
_TO_JUDGE = f"state = 'waiting' AND due <= :now AND {_FREE} AND archive = :archive"
_TO_REPORT = f"state = 'judged' AND due <= :now AND held_until <= :now AND {_FREE}"
_FORGOTTEN = "state = 'ended' AND due <= :now - :keep"
_FORGET = f"DELETE FROM transactions WHERE {_FORGOTTEN}"  # noqa: S608 - our own names
_TO_REPORT_HERE = f"state = 'judged' AND holder = :holder AND {_FREE}"


class Register:
    """Hold the transactions until their reports are delivered; every method may be called from any thread.

    Open it after a fork, not before. Raises SpoolFull and SpoolBroken.
    """

    FILE = "commitments.db"

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

    # The association that asks

    def add(self, request: Request, *, calling: str, called: str, archive: str, holder: str, hold: float) -> None:
        """Take responsibility for a transaction whose report is for the association `holder` for `hold` seconds.

        Raises CommitmentRefused when its UID is in use or the peer has too many open.
        """
        now = self._database.clock()

        def insert(connection: sqlite3.Connection) -> None:
            opened = connection.execute(
                "SELECT count(*), total(uid = ?) FROM transactions WHERE calling = ? AND state <> 'ended'",
                (request.transaction, calling),
            ).fetchone()
            if opened[1]:
                raise CommitmentRefused(
                    status.DUPLICATE_TRANSACTION, f"transaction {request.transaction} is under way"
                )
            if opened[0] >= MOST_OPEN:
                raise CommitmentRefused(status.RESOURCE_LIMITATION, f"{MOST_OPEN} transactions of this peer are open")
            connection.execute(
                "INSERT INTO transactions (uid, calling, called, archive, received, state, refs, due, holder, "
                "held_until) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    request.transaction,
                    calling,
                    called,
                    archive,
                    now,
                    State.WAITING,
                    json.dumps(request.references),
                    now,
                    holder,
                    now + hold,
                ),
            )

        self._database.run(insert)
        self.wake()

    def keep(self, holder: str, hold: float) -> bool:
        """Keep the reports for the association `holder` for `hold` seconds from now; tell whether there are any."""
        return self._update(
            "held_until = :now + :hold WHERE holder = :holder AND state <> 'ended'", holder=holder, hold=hold
        )

    def let_go(self, holder: str) -> None:
        """Give the reports of an association that has ended to whoever can deliver them."""
        self._update("held_until = 0 WHERE holder = :holder AND state <> 'ended'", holder=holder)
        self.wake()

    def hand_over(self, transaction: Transaction) -> None:
        """Give one report to whoever can deliver it, while its association goes on."""
        self._update("holder = '', held_until = 0 WHERE id = :id", id=transaction.id)

    def claim_here(self, holder: str, lease: float) -> Transaction | None:
        """Claim a report that is for the association `holder`, whenever its next attempt was due."""
        return next(iter(self._claim(_TO_REPORT_HERE, lease, 1, holder=holder)), None)

    # The judge

    def claim_waiting(self, archive: str, lease: float) -> Transaction | None:
        """Claim a transaction that waits for this archive's answer."""
        return next(iter(self._claim(_TO_JUDGE, lease, 1, archive=archive)), None)

    def judge(self, transaction: Transaction, verdicts: Sequence[int]) -> None:
        """Note the verdicts, one for each reference: from now on the report is to be delivered."""
        self._update(
            "state = 'judged', verdicts = :verdicts, due = :now, judged = :now, attempts = 0, claimed_until = 0, "
            "reason = '' WHERE id = :id AND state = 'waiting'",
            id=transaction.id,
            verdicts=json.dumps(verdicts),
        )
        self.wake()

    def waiting_for_others(self, archives: Collection[str]) -> list[Transaction]:
        """List the transactions that wait for an archive that is none of these."""
        return self._list(
            "state = 'waiting' AND archive NOT IN (SELECT value FROM json_each(:archives))",
            archives=json.dumps([*archives]),
        )

    # The reporter

    def reports_due(self) -> list[tuple[str, str]]:
        """List between whom reports are due: calling and called AE title of their requests."""
        rows = self._database.ask(f"SELECT DISTINCT calling, called FROM transactions WHERE {_TO_REPORT}")  # noqa: S608 - ours
        return [(str(calling), str(called)) for calling, called in rows]

    def claim_reports(self, calling: str, called: str, lease: float, most: int) -> list[Transaction]:
        """Claim up to `most` reports that are due between these two."""
        condition = f"{_TO_REPORT} AND calling = :calling AND called = :called"
        return self._claim(condition, lease, most, calling=calling, called=called)

    def hurry(self) -> None:
        """Let all that no association holds be tried now: what hindered it, or who claimed it, may have gone.

        For the start of the one process that judges and reports.
        """
        self._update(
            "due = min(due, :now), claimed_until = 0 "
            "WHERE state = 'waiting' OR state = 'judged' AND held_until <= :now"
        )

    def expire(self, age: float) -> list[Transaction]:
        """End the transactions that were judged more than `age` seconds ago, and forget those that ended long ago."""
        condition, values = f"state = 'judged' AND judged <= :now - :age AND {_FREE}", {"age": age}
        expired = self._list(condition, **values) if self._is_any(condition, values) else []
        for transaction in expired:
            self.end(transaction, Outcome.EXPIRED)
        return expired

    def end(self, transaction: Transaction, outcome: Outcome) -> None:
        """Note that the report was delivered, or will not be."""
        self._update(
            "state = 'ended', reason = :outcome, due = :now, claimed_until = 0 WHERE id = :id",
            id=transaction.id,
            outcome=outcome,
        )
        if self._is_any(_FORGOTTEN, {"keep": KEEP_ENDED}):
            self._database.update(_FORGET, keep=KEEP_ENDED)

    # All who claim

    def renew(self, transaction: Transaction, lease: float) -> None:
        """Keep a claim for `lease` seconds from now."""
        self._update("claimed_until = :now + :lease WHERE id = :id", id=transaction.id, lease=lease)

    def postpone(self, transaction: Transaction, wait: float, reason: str) -> None:
        """Give a claim up; the next attempt is due in `wait` seconds."""
        self._update(
            "due = :now + :wait, reason = :reason, claimed_until = 0 WHERE id = :id",
            id=transaction.id,
            wait=wait,
            reason=reason,
        )

    def give_back(self, transaction: Transaction) -> None:
        """Give a claim up as if it had never been made."""
        self._update("claimed_until = 0, attempts = attempts - 1 WHERE id = :id", id=transaction.id)

    def transactions(self) -> list[Transaction]:
        """List what is open and what ended lately."""
        return self._list("1")

    def wait(self, seconds: float) -> None:
        """Wait until this process has changed something, or the time is over."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End every `wait` of this process."""
        with self._changed:
            self._changed.notify_all()

    # The machinery

    def _claim(self, condition: str, lease: float, most: int, **values: object) -> list[Transaction]:
        if not self._is_any(condition, values):
            return []
        now = self._database.clock()
        statement = (
            "UPDATE transactions SET claimed_until = :now + :lease, attempts = attempts + 1 WHERE id IN "  # noqa: S608 - our own names
            f"(SELECT id FROM transactions WHERE {condition} ORDER BY due, id LIMIT :most) RETURNING {_COLUMNS}"
        )
        given = {**values, "now": now, "lease": lease, "most": most}
        rows = self._database.run(lambda connection: connection.execute(statement, given).fetchall())
        return sorted(map(_transaction, rows), key=lambda transaction: transaction.id)

    def _is_any(self, condition: str, values: Mapping[str, object]) -> bool:
        """Look before a write: most of the time there is nothing to do."""
        return bool(self._database.ask(f"SELECT 1 FROM transactions WHERE {condition} LIMIT 1", **values))  # noqa: S608 - ours

    def _list(self, condition: str, **values: object) -> list[Transaction]:
        query = f"SELECT {_COLUMNS} FROM transactions WHERE {condition} ORDER BY id"  # noqa: S608 - our own names
        return [_transaction(row) for row in self._database.ask(query, **values)]

    def _update(self, change: str, **values: object) -> bool:
        return self._database.update(f"UPDATE transactions SET {change}", **values) > 0  # noqa: S608 - ours


def _transaction(row: tuple[Any, ...]) -> Transaction:
    identifier, uid, calling, called, archive, received, state, attempts, references, verdicts = row
    return Transaction(
        id=identifier,
        uid=uid,
        calling=calling,
        called=called,
        archive=archive,
        received=received,
        state=State(state),
        attempts=attempts,
        references=tuple(Reference(*pair) for pair in json.loads(references)),
        verdicts=tuple(json.loads(verdicts)),
    )
