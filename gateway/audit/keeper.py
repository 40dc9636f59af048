"""Send the trail's files on to a syslog server, and remove them when they are old enough."""

import fcntl
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import structlog

from gateway.audit import syslog
from gateway.audit_options import SyslogServer

log = structlog.get_logger("gateway.audit")

_LOOK = 1.0  # seconds between two looks for further messages; other processes write them
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_SETTLED = 60.0  # seconds after which nobody writes to yesterday's file any more
_DAY = 86_400.0
_AT_ONCE = 200


class Keeper:
    """Follow the files from where it was, each message at least once; a context manager with one thread.

    `keep` is in days, None for ever. Where it stands is in the file `sent`.
    """

    def __init__(self, folder: Path, server: SyslogServer | None, keep: float | None) -> None:
        self._folder = folder
        self._server = server
        self._keep = keep
        self._transport: syslog.Transport | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-keeper", daemon=True)
        self._failing = False
        self._lock: IO[str] | None = None
        self._name, self._offset = "", 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._transport is not None:
            self._transport.close()
        if self._lock is not None:
            self._lock.close()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            last = self._stopping.is_set()  # look once more after everybody else has stopped
            try:
                if self._may():
                    self._send()
                    self._remove()
            except OSError as error:
                self._note_failure(error)
                if last or self._stopping.wait(pause):
                    return
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            if last:
                return
            self._stopping.wait(_LOOK)

    def _may(self) -> bool:
        """See that no other process sends, as one may that stops after a change of the configuration."""
        if self._lock is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
            self._name, self._offset = self._remembered()
        return True

    def _send(self) -> None:
        if self._server is None:
            return
        for name in self._files():
            if name < self._name:
                continue
            if name != self._name:
                self._name, self._offset = name, 0
            while self._send_some(self._server):
                pass
            if time.time() - (self._folder / name).stat().st_mtime < _SETTLED:
                return  # the day has just ended: somebody may still write to this file

    def _send_some(self, server: SyslogServer) -> bool:
        """Send some whole lines; False at the end of the file."""
        with (self._folder / self._name).open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in (file.readline() for _ in range(_AT_ONCE)) if line.endswith(b"\n")]
        if not lines:
            return False
        try:
            if self._transport is None:
                self._transport = syslog.connect(server)
            for line in lines:
                self._transport.send(line[:-1])
                self._offset += len(line)
        except OSError:
            if self._transport is not None:
                self._transport.close()
                self._transport = None
            raise
        finally:
            self._remember()
        if self._failing:
            self._failing = False
            log.info("audit messages reach the syslog server again", server=server.host)
        return True

    def _note_failure(self, error: OSError) -> None:
        if not self._failing and self._server is not None:
            reason = error.strerror or str(error)
            log.error("audit messages wait for the syslog server", server=self._server.host, reason=reason)
        self._failing = True

    def _remove(self) -> None:
        if self._keep is None:
            return
        oldest = time.time() - self._keep * _DAY
        for name in self._files()[:-1]:
            path = self._folder / name
            if path.stat().st_mtime < oldest and (self._server is None or name < self._name):
                path.unlink()

    def _files(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("????-??-??.log"))

    def _remembered(self) -> tuple[str, int]:
        with suppress(OSError, ValueError, KeyError):  # none yet, or cut by a power failure: begin again
            held = json.loads((self._folder / "sent").read_text())
            return str(held["file"]), int(held["offset"])
        return "", 0

    def _remember(self) -> None:
        path = self._folder / "sent.new"
        path.write_text(json.dumps({"file": self._name, "offset": self._offset}))
        os.replace(path, self._folder / "sent")  # noqa: PTH105 - the atomic one, by its name
