"""A small durable database in the spool, shared by processes: what surrounds each statement."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from gateway.errors import SpoolBroken
from gateway.outbox.faults import spool_error
from gateway.outbox.schema import connect

T = TypeVar("T")

_BUSY = 60.0  # seconds to wait for another process's transaction


class Database:
    """Run statements on one file; every method may be called from any thread.

    Open it after a fork, not before. `schema` makes the tables when there are none; another `version` of them is
    refused. `:now` stands for the clock in each query. Raises SpoolFull and SpoolBroken.
    """

    def __init__(self, path: Path, schema: str, version: int, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._name = path.name
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(path, busy=_BUSY)
            self.run(lambda connection: self._prepare(connection, schema, version))
        except (OSError, sqlite3.Error) as error:
            raise spool_error(error, self._name) from error

    def close(self) -> None:
        """Close the database; nothing depends on it."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """Give the rows of a query."""
        given = {"now": self.clock(), **values}
        try:
            with self._lock:
                return self._connection.execute(query, given).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise spool_error(error, self._name) from error

    def update(self, statement: str, **values: object) -> int:
        """Run one statement in a transaction and give the number of rows that it changed."""
        given = {"now": self.clock(), **values}
        return self.run(lambda connection: connection.execute(statement, given)).rowcount

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation in a transaction, which is on the disk afterwards; one that raises changes nothing."""
        try:
            with self._lock, _transaction_on(self._connection):
                return operation(self._connection)
        except (OSError, sqlite3.Error) as error:
            raise spool_error(error, self._name) from error

    def _prepare(self, connection: sqlite3.Connection, schema: str, version: int) -> None:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found == 0:
            for statement in schema.split(";"):  # one by one: `executescript` would commit before the first
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
        elif found != version:
            problem = f"was written by another version (schema {found}, this one knows {version})"
            raise SpoolBroken(f"{self._name} {problem}")


@contextmanager
def _transaction_on(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
