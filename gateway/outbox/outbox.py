"""The outbox: takes instances in and hands them out for delivery."""

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

from gateway.errors import DataSetError, GatewayError, SpoolFull
from gateway.outbox import owners, queue, reading, recovery, reserve
from gateway.outbox.entry import Arrival, Duplicates, Entry, Limits, Place, Receipt, State
from gateway.outbox.faults import spool_error
from gateway.outbox.gathering import written
from gateway.outbox.incoming import Incoming
from gateway.outbox.journal import Journal
from gateway.outbox.ledger import Ledger
from gateway.outbox.record import Record, Small, head
from gateway.outbox.rows import entry, is_there
from gateway.outbox.segments import Segment, Segments

_POLL = 0.05  # seconds until an entry of another process is seen


class Outbox(Ledger):
    """Hold what was acknowledged until the archive has it; share the folder with other processes.

    All methods may be called from any thread; open it after a fork, not before. Nothing needs to be closed for the
    sake of the data. `make_room` gives back what is on the disk for convenience only and says whether there was any;
    it is called before an instance is refused. Raises ConfigError when the folder is not an outbox's, SpoolFull,
    SpoolBroken.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits = limits or Limits()
        self._make_room = make_room
        self._receiving: set[Incoming] = set()
        self._receiving_lock = threading.Lock()
        super().__init__(folder, clock=clock)
        self._ids = itertools.count(self._owner << 32)

    def _enter(self) -> None:
        for path in (self._folder, self._folder / "incoming", self._folder / "owners"):
            path.mkdir(parents=True, exist_ok=True)
        with closing(owners.Lock(self._folder / "recovery.lock")) as entering, ExitStack() as failing, entering:
            connection = self._attach(failing)
            recovery.prepare(self._folder, connection)
            now = self._clock()
            number = connection.execute("INSERT INTO owners (opened) VALUES (?)", (now,)).lastrowid
            self._owner = int(number or 0)
            self._presence = owners.Presence(self._folder, self._owner)
            failing.callback(self._presence.leave)
            recovery.recover(self._folder, connection, owners.living(self._folder), now, self._limits)
            self._reserve.hold()
            failing.pop_all()

    def _journal_on(self, connection: sqlite3.Connection) -> Journal:
        self._segments = Segments(str(self._folder), self._descriptor, lambda: next(self._ids))
        return Journal(connection, self._lock, partial(written, self._segments))

    def close(self) -> None:
        """Let go of the folder; what is leased to us is taken back by the next that opens it."""
        self._segments.close()
        self._tidy()
        super().close()
        self._presence.leave()

    # Taking in

    def incoming(self, peer: str, header: bytes, *, expected: int = 0) -> Incoming:
        """Begin a file with the Part 10 header; `expected` is how many bytes may come, where that is known.

        Raises SpoolFull before anything is taken, SpoolBroken.
        """
        self.check_room(peer, expected)
        receiving = Incoming(
            next(self._ids),
            header,
            peer=peer,
            expected=expected,
            take=lambda: self._guard(self._segments.take),
            room=lambda incoming: self.check_room(incoming.peer, 0),
            on_end=self._free,
        )
        with self._receiving_lock:
            self._receiving.add(receiving)
        return receiving

    def scratch(self) -> Path:
        """Name a file in the spool that is removed at the latest after this process has gone."""
        return Path(self._scratch())

    def check_room(self, peer: str, expected: int = 0) -> None:
        """Raise SpoolFull when so many bytes from this peer would pass a limit."""
        limits = self._limits
        with self._receiving_lock:
            receiving = list(self._receiving)
        still = sum(max(0, incoming.expected - incoming.size) for incoming in receiving)
        if not self._disk_has(still + expected) and not (self._make_room() and self._disk_has(still + expected)):
            raise SpoolFull(f"the disk is above the high-water mark ({limits.high_water:.0%})")
        if limits.quota is None and limits.peer_quota is None:
            return
        total, of_peer = reading.usage(self._ask, peer)
        for incoming in receiving:
            size = max(incoming.expected, incoming.size)
            total += size
            of_peer += size if incoming.peer == peer else 0
        if limits.quota is not None and total + expected > limits.quota:
            raise SpoolFull("the outbox holds as many bytes as it may")
        if limits.peer_quota is not None and of_peer + expected > limits.peer_quota:
            raise SpoolFull("the outbox holds as many bytes of this peer as it may")

    def commit(self, incoming: Incoming, arrival: Arrival, *, duplicates: Duplicates = "keep") -> Receipt:
        """Take responsibility: return once the record survives a power cut, or is not wanted.

        Its row may be lost in one, and is then made again of the record. Raises DataSetError when there is no data
        set, SpoolFull or SpoolBroken; then nothing was taken.
        """
        if incoming.size <= incoming.offset:
            raise DataSetError("the data set is empty")
        take_in = self._together if incoming.small is not None else self._alone
        try:
            receipt, unwanted = take_in(incoming, arrival, duplicates)
        except (OSError, sqlite3.Error) as error:
            incoming.discard()
            raise spool_error(error) from error
        if receipt.is_taken:
            incoming.given()
        else:
            incoming.discard()
        self._remove([unwanted] if unwanted else [])
        self._tidy()
        self.wake()
        return receipt

    def _alone(self, incoming: Incoming, arrival: Arrival, duplicates: Duplicates) -> tuple[Receipt, Place | None]:
        """Enter what lies in a segment already, with a sync of its own."""
        received = self._record(incoming, arrival, *incoming.place)
        incoming.seal(head(received, duplicates))
        return self._journal.run(partial(self._row, received, incoming, duplicates), synced=False)

    def _together(self, incoming: Incoming, arrival: Arrival, duplicates: Duplicates) -> tuple[Receipt, Place | None]:
        """Write and enter what is in memory, along with others."""
        received = self._record(incoming, arrival)
        small = Small(head(received, duplicates), incoming.small or bytearray())

        def enter(connection: sqlite3.Connection) -> tuple[Receipt, Place | None]:
            placed = received._replace(segment=small.segment, position=small.position)
            receipt, other = self._row(placed, incoming, duplicates, connection)
            if not receipt.is_taken:
                queue.pass_by(connection, placed)
            return receipt, other

        receipt = None
        try:
            receipt, unwanted = self._journal.run(enter, synced=False, record=small)
        finally:
            # Others may stand behind it: what was not taken cannot be cut off.
            if small.segment and not (receipt and receipt.is_taken):
                self._remove([received._replace(segment=small.segment, position=small.position).place])
        return receipt, unwanted

    def _row(
        self, record: Record, incoming: Incoming, duplicates: Duplicates, connection: sqlite3.Connection
    ) -> tuple[Receipt, Place | None]:
        return queue.enter(
            connection, record, incoming.data_set, partial(is_there, self._folder), duplicates, self._limits
        )

    def _record(self, incoming: Incoming, arrival: Arrival, segment: int = 0, position: int = 0) -> Record:
        return Record(
            incoming.id, arrival, incoming.size, incoming.offset, incoming.digest, self._clock(), segment, position
        )

    # Handing out

    def claim(self, archive: str, *, count: int, max_bytes: int, lease: float) -> list[Entry]:
        """Lease up to `count` due entries of together `max_bytes` (one may be longer) for `lease` seconds.

        The study that began first goes first. It cannot starve others: an instance goes before those that came at
        most ten minutes earlier, and one that failed queues anew at the time of its retry.
        """
        if not self.is_due(archive):
            return []
        now = self._clock()

        def take(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            queue.take_back(connection, now)
            queue.follow_clock(connection, archive, now)
            ids = queue.choose(connection, archive, count, max_bytes, now)
            return queue.lease(connection, ids, self._owner, now + lease) if ids else []

        return [entry(self._folder, row) for row in self._run(take)]

    def is_due(self, archive: str) -> bool:
        """Tell whether there is something to claim."""
        with self._reading_lock:
            return self._guard(lambda: queue.is_due(self._reader, archive, self._clock()))

    def wait(self, archive: str, seconds: float) -> bool:
        """Wait until there is something to claim, `wake` is called or the time is over; tell which it was."""
        until = time.monotonic() + seconds
        while not (due := self.is_due(archive)) and (left := until - time.monotonic()) > 0:
            with self._changed:
                if self._changed.wait(min(left, _POLL)):
                    return self.is_due(archive)
        return due

    def renew(self, ids: Sequence[int], lease: float) -> set[int]:
        """Prolong our leases; return the ids that are still ours."""
        until = self._clock() + lease
        return self._run(lambda connection: queue.renew(connection, ids, self._owner, until))

    def done(self, ids: Sequence[int]) -> None:
        """Note that the archive has the instances, and remove their files."""
        now = self._clock()
        self._remove(self._run(lambda connection: queue.finish(connection, ids, now, self._limits)))
        self._guard(self._reserve.hold)

    def retry(self, identifier: int, at: float, reason: str) -> bool:
        """Give our lease up, to be tried again at that time (s since 1970); False when we had lost it."""
        return self._run(
            lambda connection: queue.put_back(connection, identifier, self._owner, State.TODO, at, reason)
        )

    def set_aside(self, identifier: int, reason: str) -> bool:
        """Give our lease up and let the operator decide; False when we had lost it."""
        now = self._clock()
        return self._run(
            lambda connection: queue.put_back(connection, identifier, self._owner, State.SET_ASIDE, now, reason)
        )

    def give_back(self, ids: Sequence[int]) -> None:
        """Give our leases up as if they had never been claimed."""
        self._run(lambda connection: queue.give_back(connection, ids, self._owner))
        self.wake()

    def _scratch(self) -> str:
        return f"{self._folder}/incoming/{next(self._ids):016x}"

    def _disk_has(self, room: int) -> bool:
        disk = self._guard(lambda: os.fstatvfs(self._descriptor))
        keep_free = max((1 - self._limits.high_water) * disk.f_blocks * disk.f_frsize, 2 * reserve.LENGTH)
        return disk.f_bavail * disk.f_frsize - room >= keep_free

    def _free(self, incoming: Incoming, segment: Segment | None) -> None:
        with self._receiving_lock:
            self._receiving.discard(incoming)
        if segment is not None:
            self._segments.give(segment)
            self._tidy()

    def _tidy(self) -> None:
        """Remove what was closed and is empty; what fails here, the next that opens the outbox does."""
        with suppress(GatewayError):
            self._remove_empty(self._segments.closed())
