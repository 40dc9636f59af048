"""Let tests make the embedded archive fail in the ways that real services fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

NOT_NOW: Final = 272
BEING_CREATED: Final = 45071


@dataclass(slots=True)
class Faults:
    """Say what shall go wrong; a count is used up by the requests or instances that it hits.

    `unauthorized`, `throttled` (429) and `unavailable` (503) count requests, `cut` counts multipart answers,
    `unexpected` (Failure Reason 272) and `being_created` (45071) count instances. `retry_after` is the header's
    value, None for no header. `short_page` is the most results that a page holds. `delay` is in seconds.
    """

    unauthorized: int = 0
    throttled: int = 0
    unavailable: int = 0
    retry_after: str | None = None
    cut: int = 0
    unexpected: int = 0
    being_created: int = 0
    short_page: int | None = None
    delay: float = 0.0


class Switches:
    """Hold the faults that are turned on; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults = Faults()
        self._requests: list[str] = []

    def set(self, faults: Faults) -> None:
        """Turn exactly these faults on."""
        with self._lock:
            self._faults = faults

    @contextmanager
    def on(self, faults: Faults) -> Iterator[None]:
        """Turn these faults on for the length of a with block."""
        self.set(faults)
        try:
            yield
        finally:
            self.set(Faults())

    def request(self, line: str) -> tuple[int, str | None] | None:
        """Note a request; return the HTTP status and Retry-After that it shall get instead of an answer."""
        with self._lock:
            self._requests.append(line)
            del self._requests[:-1000]
            for name, status in (("unauthorized", 401), ("throttled", 429), ("unavailable", 503)):
                if self._use(name):
                    return status, None if status == 401 else self._faults.retry_after
        return None

    def requests(self) -> list[str]:
        """Return method and target of the latest requests, at most 1000, the oldest first."""
        with self._lock:
            return list(self._requests)

    def failure_reason(self) -> int | None:
        """Return the Failure Reason that the next instance shall get, None for an honest answer."""
        with self._lock:
            if self._use("unexpected"):
                return NOT_NOW
            return BEING_CREATED if self._use("being_created") else None

    def cut(self) -> bool:
        """Say whether the next multipart answer shall break off."""
        with self._lock:
            return self._use("cut")

    @property
    def delay(self) -> float:
        """Return how long every request waits, in seconds."""
        with self._lock:
            return self._faults.delay

    @property
    def short_page(self) -> int | None:
        """Return the most results that a page holds, None for what was asked."""
        with self._lock:
            return self._faults.short_page

    def _use(self, name: str) -> bool:
        left = getattr(self._faults, name)
        if left:
            setattr(self._faults, name, left - 1)
        return bool(left)
