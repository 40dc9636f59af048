"""Leave an archive that is down alone: a circuit breaker."""

import threading
import time
from collections.abc import Callable
from enum import StrEnum


class Circuit(StrEnum):
    """Name the states of a breaker."""

    CLOSED = "closed"  # requests pass
    OPEN = "open"  # none passes
    PROBING = "probing"  # one is on its way to see


class Breaker:
    """Open after `failures` in a row, let one request through after a pause that doubles up to `longest` seconds."""

    def __init__(
        self,
        *,
        failures: int = 5,
        pause: float = 1.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self._most = failures
        self._first = pause
        self._longest = longest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = pause
        self._until = 0.0
        self._state = Circuit.CLOSED
        self._observe = observe

    @property
    def state(self) -> Circuit:
        """Return the state."""
        return self._state

    def permit(self) -> float:
        """Return 0 when a request may go, else in how many seconds to ask again.

        Whoever gets 0 says `succeeded`, `failed` or `unused`.
        """
        with self._lock:
            if self._state is Circuit.CLOSED:
                return 0.0
            left = self._until - self._clock()
            if self._state is Circuit.PROBING or left > 0:
                return max(left, 0.05)
            self._enter(Circuit.PROBING)
            return 0.0

    def unused(self) -> None:
        """Give a permit back."""
        with self._lock:
            if self._state is Circuit.PROBING:
                self._enter(Circuit.OPEN)

    def succeeded(self) -> None:
        """Note that the archive works."""
        with self._lock:
            if self._state is not Circuit.CLOSED:
                self._enter(Circuit.CLOSED)
            self._failures = 0
            self._pause = self._first

    def failed(self, retry_after: float | None = None) -> None:
        """Note that the archive failed, and how many seconds it asked to be left alone for."""
        with self._lock:
            self._failures += 1
            if retry_after is not None:
                self._open(retry_after)
            elif self._state is Circuit.PROBING or (self._state is Circuit.CLOSED and self._failures >= self._most):
                self._open(self._pause)
                self._pause = min(self._longest, self._pause * 2)

    def _open(self, seconds: float) -> None:
        self._enter(Circuit.OPEN)
        self._until = max(self._until, self._clock() + seconds)

    def _enter(self, state: Circuit) -> None:
        self._state = state
        self._observe(state)
