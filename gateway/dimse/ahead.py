"""Fetch from a slow source in a thread, a little ahead of an association that stays attentive to its peer."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, Self, TypeVar

from gateway.dimse.association import Association
from gateway.errors import Cancelled

T = TypeVar("T")

_LOOK = 1.0  # seconds; only a bound, since an arrival from either side ends the wait at once


class _End:
    """Mark the end of the source, with the error that ended it, if one did."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Iterate over `source` while a thread reads up to `depth` items ahead of it, the one under way included.

    No more than `depth` + 1 items are ever held: the next is asked for as soon as one has been used up.

    An item may be held for `hold` seconds, so that one wake-up serves for several that come close together.
    While it waits it calls `tick` every second and raises Cancelled as soon as the peer cancels, or the
    PeerError that ended the association. Leaving the context lets the thread go: it ends with its next item;
    `dispose` gets what was read and not used.
    """

    def __init__(
        self,
        association: Association,
        source: Iterable[T],
        *,
        depth: int = 1,
        hold: float = 0,
        tick: Callable[[], None] = lambda: None,
        dispose: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._association = association
        self._source = source
        self._hold = hold
        self._woken = 0.0
        self._tick = tick
        self._dispose = dispose
        self._items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth + 1)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._room.release()
        self._clear()

    def settle(self, seconds: float) -> None:
        """Give the thread of a context that was left some seconds to end with its item."""
        self._thread.join(seconds)

    def _clear(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._items.get_nowait()
                if not isinstance(item, _End):
                    self._dispose(item)

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._next()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item
            self._room.release()

    def _next(self) -> T | _End:
        since = time.monotonic()
        while True:
            if self._association.cancelled():
                raise Cancelled("the peer cancelled the operation")
            try:
                return self._items.get_nowait()
            except queue.Empty:
                self._association.connection.wait(self._hold or _LOOK)
                if time.monotonic() - since >= _LOOK:
                    since = time.monotonic()
                    self._tick()

    def _fetch(self) -> None:
        end = _End()
        try:
            source = iter(self._source)
            while self._may_go_on():
                item = next(source, end)
                if item is end:
                    break
                self._put(item)
        except Exception as error:  # noqa: BLE001 - handed to the thread that iterates, which raises it
            end = _End(error)
        finally:
            if isinstance(self._source, Generator):
                self._source.close()
        self._put(end)

    def _may_go_on(self) -> bool:
        """Wait for room, before the next item is asked for: one that waits for room would be one more held."""
        self._room.acquire()
        return not self._left.is_set()

    def _put(self, item: T | _End) -> None:
        self._items.put(item)
        now = time.monotonic()
        if now - self._woken >= self._hold or isinstance(item, _End):
            self._woken = now
            self._association.connection.wake()
        if self._left.is_set():
            self._clear()  # the context may have been left just before the item was placed
