"""The rows of an outbox: what an operator asks and changes, beside the processes that receive and deliver."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from gateway.errors import SpoolFull
from gateway.outbox import owners, queue, reading, reclaim, recovery, schema
from gateway.outbox.entry import Entry, Place, State, Statistics, StudyState
from gateway.outbox.faults import spool_error
from gateway.outbox.journal import Journal
from gateway.outbox.queue import Selection
from gateway.outbox.record import has_more
from gateway.outbox.reserve import Reserve
from gateway.outbox.segments import alone, segment_name

T = TypeVar("T")

_BUSY = 60.0  # seconds to wait for another process's transaction


class Ledger:
    """Ask and change what an outbox holds.

    To open it costs the same however much that is, and leaves no trace: it takes nothing in, hands nothing out, and
    leaves the clearing up after a crash to `Outbox`. All methods may be called from any thread. Raises ConfigError
    when the folder is not an outbox's, SpoolFull, SpoolBroken.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._reading_lock = threading.Lock()
        self._changed = threading.Condition()
        self._reserve = Reserve(folder)
        self._pressing(self._enter)

    def _enter(self) -> None:
        recovery.expect(self._folder)
        with ExitStack() as failing:
            recovery.check(self._folder, self._attach(failing))
            failing.pop_all()

    def _attach(self, failing: ExitStack) -> sqlite3.Connection:
        self._lock = owners.Lock(self._folder / "outbox.lock")
        failing.callback(self._lock.close)
        connection, self._reader = self._connect(failing), self._connect(failing)
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        failing.callback(os.close, self._descriptor)
        self._journal = self._journal_on(connection)
        return connection

    def _journal_on(self, connection: sqlite3.Connection) -> Journal:
        return Journal(connection, self._lock)

    def _connect(self, failing: ExitStack) -> sqlite3.Connection:
        connection = schema.connect(self._folder / "outbox.db", busy=_BUSY)
        failing.callback(connection.close)
        return connection

    def close(self) -> None:
        """Let go of the folder."""
        self._journal.close()
        with self._reading_lock:
            self._reader.close()
        os.close(self._descriptor)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the operator does

    def hold(self, study: str = "", archive: str = "") -> int:
        """Hold a study, an archive or everything, what is there and what comes; count what was there."""
        selection = Selection(study, archive)
        self._run(lambda connection: queue.hold(connection, selection))
        return self._change("hold", selection)

    def release(self, study: str = "", archive: str = "") -> int:
        """Let what is held go on, all of it by default, unless a wider hold still covers it; count what goes on."""
        selection = Selection(study, archive)
        self._run(lambda connection: queue.unhold(connection, selection))
        return self._change("release", selection)

    def retry_now(self, study: str = "", archive: str = "", ids: Sequence[int] = ()) -> int:
        """Let what is set aside or backs off be tried now, all of it by default; count it."""
        return self._change("retry", Selection(study, archive, tuple(ids)))

    def discard(self, study: str = "", archive: str = "", ids: Sequence[int] = ()) -> int:
        """Delete undelivered instances for good; count them. Raises ValueError when nothing is selected."""
        if not study and not ids:
            raise ValueError("discard needs a study or ids")
        return self._change("discard", Selection(study, archive, tuple(ids)))

    def hold_back(self, ids: Sequence[int]) -> int:
        """Hold instances one by one until they are released or withdrawn; count them."""
        return self._change("hold", Selection(ids=tuple(ids))) if ids else 0

    def withdraw(self, ids: Sequence[int]) -> int:
        """Delete instances that are not under way for good, delivered ones only from memory; count them."""
        return self._change("withdraw", Selection(ids=tuple(ids))) if ids else 0

    # What can be asked

    def find(self, study: str = "", series: str = "", sop_instance: str = "") -> list[Entry]:
        """Find the undelivered entries of a study, of a series in it, or of a SOP instance anywhere."""
        return reading.find(self._ask, self._folder, study, series, sop_instance)

    def of_instances(self, archive: str, sop_instances: Sequence[str]) -> list[Entry]:
        """Find the entries of an archive with any of these SOP Instance UIDs, delivered ones as well."""
        return reading.of_instances(self._ask, self._folder, archive, sop_instances)

    def count_waiting(self, archive: str) -> int:
        """Count what is undelivered to an archive, at a price that does not depend on how much it is."""
        return reading.count_waiting(self._ask, archive)

    def waiting_studies(self, archive: str) -> Iterator[str]:
        """Yield the studies of which something is undelivered to an archive, in the order of their UIDs."""
        return reading.waiting_studies(self._ask, archive)

    def waiting(self, archive: str, study: str, *, after: int = 0, most: int = 1000) -> list[Entry]:
        """Return the next undelivered entries of a study with ids above `after`, in the order of their ids."""
        return reading.waiting(self._ask, self._folder, archive, study, after, most)

    def first_of_series(self, archive: str, study: str) -> list[Entry]:
        """Return the first undelivered entry of each series of a study, in the order of their ids."""
        return reading.first_of_series(self._ask, self._folder, archive, study)

    def entries(self, study: str = "", archive: str = "", state: State | None = None) -> Iterator[Entry]:
        """List entries, delivered ones as well, while others change them."""
        return reading.entries(self._ask, self._folder, Selection(study, archive), state)

    def studies(self, study: str = "", archive: str = "") -> Iterator[StudyState]:
        """Sum up by study and archive what is here and what was delivered lately."""
        return reading.studies(self._ask, study, archive)

    def latest(self, most: int) -> list[StudyState]:
        """Sum up the studies that wait for the operator, then those that moved last; at most so many of them."""
        return reading.latest(self._ask, most)

    def holds(self) -> list[tuple[str, str]]:
        """List what is to be held as (study, archive); "" stands for each."""
        return reading.holds(self._ask)

    def statistics(self) -> Statistics:
        """Count what is here, at a price that does not depend on how much it is."""
        return reading.statistics(self._ask)

    def is_attended(self) -> bool:
        """Tell whether a process that receives or delivers has this outbox open."""
        return self._guard(lambda: owners.is_anyone(self._folder))

    # The machinery

    def wake(self) -> None:
        """End every `wait` of this process."""
        with self._changed:
            self._changed.notify_all()

    def _change(self, kind: str, selection: Selection) -> int:
        after, count, now = 0, 0, self._clock()
        while True:
            step = partial(queue.change, kind=kind, selection=selection, after=after, now=now)
            places, after = self._run(step)
            count += len(places)
            if kind in ("discard", "withdraw"):
                self._remove(places)
            if not after:
                self.wake()
                return count

    def _remove(self, places: Sequence[Place]) -> None:
        """Give back the room of what no row needs; what stays after an error goes with its segment."""
        self._remove_empty(self._guard(lambda: reclaim.give_back(self._folder, places)))

    def _remove_empty(self, segments: Iterable[int]) -> None:
        """Remove those of some segments in which nothing waits and nobody writes."""
        for number in segments:
            if not self._segment(number)[0] and self._guard(partial(self._unlink, number)):
                # Its name must not come back after the row has gone: all that is in it would be entered again.
                self._guard(partial(os.fsync, self._descriptor))
                self._run(partial(queue.forget_segment, number=number))

    def _segment(self, number: int) -> tuple[int, int]:
        with self._reading_lock:
            return self._guard(lambda: queue.segment(self._reader, number))

    def _unlink(self, number: int) -> bool:
        """Remove a segment unless somebody writes to it, or there is more in it; tell whether it is gone."""
        path = self._folder / segment_name(number)
        with suppress(FileNotFoundError), alone(path) as descriptor:
            waiting, known = self._segment(number)
            if descriptor is None or waiting or has_more(path, number, known):
                return False
            path.unlink()
        return True

    def _run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return self._pressing(lambda: self._journal.run(operation))

    def _pressing(self, work: Callable[[], T]) -> T:
        """Do what has to succeed on a full disk, for it is what makes room there.

        First with the room that the log has already, for what is given away another program may take.
        """
        with suppress(SpoolFull):
            return self._guard(work)
        with suppress(SpoolFull):
            self._guard(partial(schema.begin_log_anew, self._folder / "outbox.db"))
            return self._guard(work)
        self._guard(self._reserve.give)
        return self._guard(work)

    def _ask(self, query: str, values: dict[str, object]) -> list[tuple[object, ...]]:
        with self._reading_lock:
            return self._guard(lambda: self._reader.execute(query, values).fetchall())

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (OSError, sqlite3.Error) as error:
            raise spool_error(error) from error
