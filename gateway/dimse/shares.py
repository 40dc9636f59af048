"""Share archives and what was read of waiting instances in this process, move destinations in the gateway."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import structlog

from gateway.config import EMBEDDED, Archive, Config
from gateway.dimse.backlog import Headers
from gateway.dimse.scratch import places
from gateway.errors import Cancelled
from gateway.extent import take

log = structlog.get_logger("gateway.dimse")

_LOOK = 0.5  # seconds
_GLANCE = 0.1  # seconds; only while other processes have all turns: a lock of one among many cannot be waited for
_APART = 1 << 10  # bytes of the file for each name, more than anybody may have turns
_FOR_QUERIES = 2  # connections to an archive that retrieves leave to the searches


class Turns:
    """Let `number` at a time have their turn."""

    def __init__(self, number: int) -> None:
        self._free = threading.Semaphore(number)

    @contextmanager
    def turn(self, given_up: Callable[[], bool]) -> Iterator[None]:
        """Wait for a turn and hold it; raises Cancelled when `given_up` comes true meanwhile."""
        while not self._free.acquire(timeout=_LOOK):
            if given_up():
                raise Cancelled("the operation ended before it had its turn")
        try:
            yield
        finally:
            self._free.release()


class SharedTurns:
    """Let `number` at a time have their turn over all processes that use a file; each turn locks a byte of it.

    The kernel ends the lock of a process that dies. Where the file cannot be had, each process counts for itself.
    """

    def __init__(self, number: int, file: Path, name: str) -> None:
        self._own = Turns(number)
        self._number = number
        self._file = file
        self._start = _APART * int.from_bytes(blake2b(name.encode(), digest_size=5).digest())

    @contextmanager
    def turn(self, given_up: Callable[[], bool]) -> Iterator[None]:
        """Wait for a turn and hold it; raises Cancelled when `given_up` comes true meanwhile."""
        with self._own.turn(given_up), self._opened() as descriptor:
            while not self._locks(descriptor):
                if given_up():
                    raise Cancelled("the operation ended before it had its turn")
                time.sleep(_GLANCE)
            yield

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        descriptor = None
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._alone(error)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)  # ends the lock

    def _locks(self, descriptor: int | None) -> bool:
        """Lock one byte that nobody has, for the open file: locks of a process would not part its threads."""
        if descriptor is None:
            return True
        for place in range(self._start, self._start + self._number):
            try:
                if take(descriptor, place, 1):
                    return True
            except OSError as error:
                self._alone(error)
                return True
        return False

    def _alone(self, error: OSError) -> None:
        log.warning(
            "moves to a destination are counted for each process", file=str(self._file), reason=error.strerror
        )


class ArchiveShares:
    """Hold what one archive's connections allow: requests at a time, and how many of them may be for whole series.

    A request for a series lasts as long as its destination needs; were there no connections left, all other
    retrieves and queries would wait for the slowest.
    """

    def __init__(self, connections: int) -> None:
        requests = max(1, connections - _FOR_QUERIES)
        self.requests = Turns(requests)
        self.streams = threading.Semaphore(max(1, requests // 2))


class Shares:
    """Hold the limits of every archive and destination in the configuration; safe from any thread."""

    def __init__(self, config: Config) -> None:
        self.places = places()
        self.headers = Headers()
        embedded = Archive(url="http://localhost")
        self._archives = {
            name: ArchiveShares(archive.connections)
            for name, archive in {EMBEDDED: embedded, **config.archives}.items()
        }
        file = config.spool.folder / "moves"
        self._destinations = {title: SharedTurns(peer.max_moves, file, title) for title, peer in config.peers.items()}

    def archive(self, name: str) -> ArchiveShares:
        """Give the limits of an archive."""
        return self._archives[name]

    def destination(self, title: str) -> SharedTurns:
        """Give the turns of a move destination."""
        return self._destinations[title]
