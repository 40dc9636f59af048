"""Share archives, move destinations and what was read of waiting instances in this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.config import EMBEDDED, Archive, Config
from gateway.dimse.backlog import Headers
from gateway.dimse.scratch import places
from gateway.errors import Cancelled

_LOOK = 0.5  # seconds
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
        self._destinations = {title: Turns(peer.max_moves) for title, peer in config.peers.items()}

    def archive(self, name: str) -> ArchiveShares:
        """Give the limits of an archive."""
        return self._archives[name]

    def destination(self, title: str) -> Turns:
        """Give the turns of a move destination."""
        return self._destinations[title]
