"""Group commit: whoever comes first does the work of all who wait, with at most one sync of the log."""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from gateway.outbox.record import Small

T = TypeVar("T")

_MOST = 256  # operations in one transaction: other processes wait for it


class _Ticket(Generic[T]):
    __slots__ = ("error", "finished", "operation", "record", "result", "synced")

    def __init__(
        self, operation: Callable[[sqlite3.Connection], T], *, synced: bool, record: Small | None = None
    ) -> None:
        self.operation = operation
        self.record = record
        self.synced = synced
        self.result: T | None = None
        self.error: BaseException | None = None
        self.finished = False


class Journal:
    """Run operations on one connection, those that wait together in one transaction.

    `written` has records on the disk while it lasts; `alone` keeps other processes out of a transaction.

    Callers' own threads lead in turn: a thread of its own would cost a hand-over for each instance.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        alone: AbstractContextManager[object],
        written: Callable[[list[Small]], AbstractContextManager[object]] = lambda _: nullcontext(),
    ) -> None:
        self._connection = connection
        self._written = written
        self._alone = alone
        self._syncs = True
        self._waiting: deque[_Ticket[object]] = deque()
        self._turn = threading.Lock()

    def run(
        self, operation: Callable[[sqlite3.Connection], T], *, synced: bool = True, record: Small | None = None
    ) -> T:
        """Return the operation's result once it is on the disk; an operation that raises changes nothing.

        What is not `synced` all processes see, but a power cut may take it, with all that was written after it. A
        `record` is on the disk before the operation runs, which may run twice. Raises what the operation raised, or
        the OSError or sqlite3.Error for which nothing of the group was written.
        """
        ticket = _Ticket(operation, synced=synced, record=record)
        self._waiting.append(ticket)  # type: ignore[arg-type]
        with self._turn:
            while not ticket.finished:
                self._lead()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]

    def close(self) -> None:
        """Close the connection after the running group."""
        with self._turn:
            self._connection.close()

    def _lead(self) -> None:
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
        try:
            self._sync(wanted=any(ticket.synced for ticket in group))
            records = [ticket.record for ticket in group if ticket.record is not None]
            with self._written(records), self._alone:
                self._write(group)
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            for ticket in group:
                ticket.error = ticket.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            for ticket in group:
                ticket.finished = True

    def _sync(self, *, wanted: bool) -> None:
        if wanted is not self._syncs:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._syncs = wanted

    def _write(self, group: list[_Ticket[object]]) -> None:
        """Run all as if none could raise; where one does, once more with a savepoint for each."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for ticket in group:
                ticket.result = ticket.operation(self._connection)
            execute("COMMIT")
        except Exception:
            if len(group) == 1:
                raise
            if self._connection.in_transaction:
                execute("ROLLBACK")
            self._write_apart(group)

    def _write_apart(self, group: list[_Ticket[object]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for ticket in group:
            execute("SAVEPOINT one")
            try:
                ticket.result = ticket.operation(self._connection)
            except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it
                ticket.error = error
                # A full disk has rolled back everything already: this then raises, and nobody's work counts.
                execute("ROLLBACK TO one")
            execute("RELEASE one")
        execute("COMMIT")
