"""Write audit messages to files, one syslog line each, without keeping anybody waiting.

A thread of each process appends what was handed to it to the day's file, with one write and one fsync for all that
came together. Processes append to the same file: a write of theirs is never cut by another.
"""

import os
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import structlog

from gateway.audit import syslog
from gateway.audit.messages import Event, Outcome, Source

log = structlog.get_logger("gateway.audit")

_MOST_WAITING = 20_000
_AGAIN = 5.0  # seconds after a failure

Writer = Callable[[Event], bytes]
"""Writes the XML of a message about an event."""


class Trail:
    """Take events of one process; use as a context manager, leaving it writes what still waits."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder = folder
        self._source = source
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._stopping = threading.Event()
        self._lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join()

    def record(self, writer: Writer, outcome: Outcome = Outcome.SUCCESS) -> None:
        """Hand over an event that happened now; never waits, safe from any thread."""
        line = _line(self._source, writer, outcome)
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1
            if self._lost == 1:
                log.error("audit messages are lost: their disk does not take them", waiting=_MOST_WAITING)

    def _write(self) -> None:
        lines, over = b"", False
        while not over:
            if not lines or self._stopping.is_set():  # while the disk fails the rest waits where there is a bound
                more, over = self._collect()
                lines += more
            if self._append(lines):
                lines = b""
            elif not over:
                self._stopping.wait(_AGAIN)

    def _collect(self) -> tuple[bytes, bool]:
        """Wait for messages and give all that came together, and whether they are the last."""
        batch = [self._waiting.get()]
        while not self._waiting.empty():
            batch.append(self._waiting.get())
        return b"".join(line for line in batch if line is not None), None in batch

    def _append(self, lines: bytes) -> bool:
        try:
            _append(self._folder, lines)
        except OSError as error:
            log.error("audit messages cannot be written", folder=str(self._folder), reason=error.strerror)
            return False
        if self._lost:
            log.error("audit messages were lost", number=self._lost)
            self._lost = 0
        return True


def append(folder: Path, source: Source, writer: Writer, outcome: Outcome = Outcome.SUCCESS) -> None:
    """Write one event of a process that has no threads; a failure is logged."""
    try:
        _append(folder, _line(source, writer, outcome))
    except OSError as error:
        log.error("an audit message cannot be written", folder=str(folder), reason=error.strerror)


def file_of(folder: Path, day: datetime) -> Path:
    """Name the file of a day (UTC)."""
    return folder / f"{day:%Y-%m-%d}.log"


def _line(source: Source, writer: Writer, outcome: Outcome) -> bytes:
    event = Event(source, datetime.now(UTC), outcome)
    return syslog.message(event, writer(event)) + b"\n"


def _append(folder: Path, lines: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = file_of(folder, datetime.now(UTC))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        owner = folder.stat()
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)  # root's command must not lock the gateway out
        while lines:
            lines = lines[os.write(descriptor, lines) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
