"""Let tests make the embedded archive fail in the ways that real services fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

NOT_NOW: Final = 272
BEING_CREATED: Final = 45071


@dataclass(frozen=True, slots=True)
class Faults:
    """Say what shall go wrong; a count is used up by the requests, answers or instances that it hits.

    Requests: `unauthorized` (401), `throttled` (429), `unavailable` (503), `hanging` (no answer until the client
    goes away). `retry_after` is the header's value, None for no header; `delay` is in seconds. Multipart answers:
    `cut` breaks off behind `cut_after` bytes of the body; `star` writes `transfer-syntax=*` into every part's
    header. Instances: `unexpected` (Failure Reason 272), `being_created` (45071). Pages: `short_page` is the most
    results of one, `repeated` how many of the page before come again. `managed` is no fault: it gives what the
    managed service does otherwise (no Implicit VR, PUT replaces, 4 GB).
    """

    unauthorized: int = 0
    throttled: int = 0
    unavailable: int = 0
    hanging: int = 0
    retry_after: str | None = None
    delay: float = 0.0
    cut: int = 0
    cut_after: int = 0
    star: bool = False
    unexpected: int = 0
    being_created: int = 0
    short_page: int | None = None
    repeated: int = 0
    managed: bool = False


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

    @property
    def faults(self) -> Faults:
        """Return what is turned on, the counts as far as they are not used up."""
        with self._lock:
            return self._faults

    def request(self, line: str) -> str:
        """Note a request; return the name of the fault that it shall get instead of an answer, or nothing."""
        with self._lock:
            self._requests.append(line)
            del self._requests[:-1000]
            return next(
                (name for name in ("unauthorized", "throttled", "unavailable", "hanging") if self._use(name)), ""
            )

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

    def cut_after(self) -> int | None:
        """Return how many bytes the next multipart answer shall have, None for all."""
        with self._lock:
            return self._faults.cut_after if self._use("cut") else None

    def _use(self, name: str) -> bool:
        left: int = getattr(self._faults, name)
        if left:
            changes: dict[str, Any] = {name: left - 1}
            self._faults = replace(self._faults, **changes)
        return bool(left)
