"""A whole gateway in one process that kills itself at a step: `gateway_victim.py CONFIG POINT NTH`.

POINT is `before:` or `after:` a step of receiving or delivering; at the NTH time the process is gone.
"""

import itertools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway.app import running
from gateway.config import load
from gateway.dicomweb.client import Client
from gateway.dicomweb.stow import Upload
from gateway.dimse.association import Association
from gateway.log import set_up
from gateway.outbox import Incoming, Outbox, reclaim

STEPS: dict[str, tuple[Any, str]] = {
    # of receiving, in their order
    "open the file": (Outbox, "incoming"),
    "write": (Incoming, "write"),
    "write the head": (os, "pwrite"),
    "sync": (os, "fdatasync"),
    "begin": (sqlite3.Connection, "BEGIN IMMEDIATE"),
    "commit": (sqlite3.Connection, "COMMIT"),
    "take over": (Outbox, "commit"),
    "answer": (Association, "send"),
    # of delivering, in theirs
    "claim": (Outbox, "claim"),
    "request": (Client, "store"),
    "half the body": (Upload, "chunks"),
    "done": (Outbox, "done"),
    "give the room back": (reclaim, "punch_hole"),
}
POINTS = [f"{when}:{step}" for step in STEPS for when in ("before", "after")]


class Killer:
    """Kill this process at a point."""

    def __init__(self, point: str, nth: int) -> None:
        self._when, _, self._step = point.partition(":")
        self._nth = nth
        self._count = itertools.count(1)

    def arm(self) -> None:
        owner, name = STEPS[self._step]
        if owner is sqlite3.Connection:
            self._arm_sqlite(name)
        elif name == "chunks":
            setattr(owner, name, self._dripping(getattr(owner, name)))
        else:
            setattr(owner, name, self._dying(getattr(owner, name)))

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _dying(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            now = next(self._count) == self._nth
            if now and self._when == "before":
                self._die()
            try:
                return call(*arguments, **options)
            finally:
                if now:
                    self._die()

        return called

    def _dripping(self, call: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        """Die in the middle of a request's body, before or after a piece of it was taken."""

        def called(upload: Upload) -> Iterator[bytes]:
            for piece in call(upload):
                now = next(self._count) == self._nth
                if now and self._when == "before":
                    self._die()
                yield piece
                if now:
                    self._die()

        return called

    def _arm_sqlite(self, statement: str) -> None:
        run = self._dying(lambda connection: sqlite3.Connection.execute(connection, statement))

        class Connection(sqlite3.Connection):
            def execute(self, asked: str, *values: Any) -> sqlite3.Cursor:
                return run(self) if asked == statement else super().execute(asked, *values)

        connect = sqlite3.connect
        sqlite3.connect = lambda *a, **o: connect(*a, factory=Connection, **o)  # type: ignore[assignment]


def main(config: Path, point: str, nth: str) -> None:
    settings = load(config)
    set_up(settings.log.level, settings.log.format)
    Killer(point, int(nth)).arm()
    with running(settings):
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
