"""A process that receives and delivers under load until it is killed: `outbox_victim.py FOLDER ROUND [POINT NTH]`.

Each acknowledgement is a line on standard output, written at once. POINT is a place in the code, `before:` or
`after:` a call, where the process kills itself at the NTH time.
"""

import itertools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spooled import arrival, content, data_set, put
from spooled import receive as incoming

from gateway.outbox import Entry, Limits, Outbox, Receipt, reclaim, segments

CALLS = ("open", "fsync", "pwritev", "pwrite", "fdatasync", "ftruncate", "unlink")
POINTS = [
    f"{when}:{what}"
    for what in (*CALLS, "BEGIN IMMEDIATE", "COMMIT", "punch", "archived")
    for when in ("before", "after")
]


def dying(name: str, call: Callable[..., Any], point: str, nth: int) -> Callable[..., Any]:
    count = itertools.count(1)

    def called(*arguments: Any, **options: Any) -> Any:
        when, _, what = point.partition(":")
        now = what == name and next(count) == nth
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*arguments, **options)
        finally:
            if now:
                os.kill(os.getpid(), signal.SIGKILL)

    return called


def arm(point: str, nth: int) -> None:
    for name in CALLS:
        setattr(os, name, dying(name, getattr(os, name), point, nth))
    reclaim.punch_hole = dying("punch", reclaim.punch_hole, point, nth)
    segments.LONG = 300_000

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            run = statements.get(statement)
            return run(self) if run is not None else super().execute(statement, *values)

    statements = {
        name: dying(name, lambda connection, name=name: sqlite3.Connection.execute(connection, name), point, nth)
        for name in ("BEGIN IMMEDIATE", "COMMIT")
    }
    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **o: connect(*a, factory=Connection, **o)  # type: ignore[assignment]
    globals()["archive"] = dying("archived", archive, point, nth)


def seed(instance: str) -> tuple[str, int]:
    """Say what an instance must hold, and how long it is."""
    return instance, 1 + int(instance.rpartition(".")[2]) * 7919 % 300_000


def archive(folder: Path, entry: Entry) -> None:
    """Be an archive: keep the data set, refuse nothing, keep the first of two."""
    file = folder / "archive" / entry.sop_instance
    if not file.exists():
        made = folder / "archive" / f"making-{threading.get_ident()}"
        made.write_bytes(data_set(entry.extent))
        made.replace(file)


def receive(outbox: Outbox, name: str) -> None:
    for number in itertools.count():
        instance = f"{name}.{number}"
        data = content(*seed(instance))
        assert put(outbox, arrival(instance, study=f"1.2.{number // 5}"), data) is Receipt.QUEUED
        with incoming(outbox, arrival(instance), data):  # given up
            pass
        os.write(1, f"{instance}\n".encode())


def deliver(outbox: Outbox, folder: Path) -> None:
    while True:
        if outbox.wait("main", 1):
            entries = outbox.claim("main", count=5, max_bytes=10**7, lease=600)
            for entry in entries:
                archive(folder, entry)
            outbox.done([entry.id for entry in entries])


def main(folder: Path, round_: str, point: str = "", nth: str = "0") -> None:
    arm(point, int(nth))
    outbox = Outbox(folder / "spool", Limits(high_water=1))
    for number in range(4):
        threading.Thread(target=receive, args=(outbox, f"9.{round_}.{number}")).start()
    for _ in range(2):
        threading.Thread(target=deliver, args=(outbox, folder)).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
