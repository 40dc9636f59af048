"""Find the instances that a retrieve names, page by page, and hand them out while more are found."""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.extent import Extent

_LONG = 3  # instances of a series from which one request for all of it is the faster way


@dataclass(frozen=True, slots=True)
class Target:
    """Name an instance to retrieve.

    `waiting` is where it is in the outbox, if the archive may not have it yet; `recent` says that it was fetched
    lately.
    """

    study: str
    series: str
    sop_class: str
    sop_instance: str
    waiting: Extent | None = None
    recent: bool = False

    @property
    def is_here(self) -> bool:
        """Say whether it need not be asked from the archive."""
        return self.waiting is not None or self.recent

    @property
    def uids(self) -> tuple[str, str, str]:
        """Give the UIDs of its study, its series and itself."""
        return self.study, self.series, self.sop_instance


@dataclass(frozen=True, slots=True)
class Series:
    """Name a series to retrieve in one request; or a whole study, when `series` is empty."""

    study: str
    series: str = ""


class Expansion:
    """Read pages of targets in a thread and hand each instance out once; safe from any thread.

    `whole_series` allows to hand out a series in place of its instances. Who takes one claims its instances as
    they come and says when it is over; what was not claimed by then is handed out one by one.

    `early` is handed out before any page has come. When it is a study, all wait for it until every page has; then
    series of it that did not begin to come are handed out as others are, and `is_passed` says when it meets one.
    """

    def __init__(self, pages: Iterable[Sequence[Target]], *, whole_series: bool, early: Series | None = None) -> None:
        self._pages = pages
        self._whole_series = whole_series
        self._early = early
        self._led: set[Series] = set()
        self._changed = threading.Condition()
        self._targets: dict[str, Target] = {}
        self._waiting: deque[Target] = deque()
        self._taken: set[str] = set()
        self._streaming: dict[Series, list[Target]] = {}
        self._streamed: set[Series] = set()
        self._unfetched: Counter[Series] = Counter()
        self._classes: dict[str, None] = {}
        self._complete = False
        self._left = False
        self._stopped = False
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin to read the pages."""
        threading.Thread(target=self._read, name="expand", daemon=True).start()

    @property
    def known(self) -> int:
        """Give the number of instances found so far."""
        return len(self._targets)

    @property
    def total(self) -> int | None:
        """Give the number of instances, None while it is not known."""
        return len(self._targets) if self._complete else None

    @property
    def classes(self) -> list[str]:
        """Give the SOP classes found so far, in the order of their first instances."""
        with self._changed:
            return list(self._classes)

    def completed(self) -> list[Target]:
        """Wait for the last page and give every instance; raises what ended the reading early."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete)
            if self._error is not None:
                raise self._error
            return list(self._targets.values())

    def leave(self) -> None:
        """Hand out nothing more, and let those go who wait to take; the reading goes on."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the reading too, with the page that is under way."""
        self._stopped = True
        self.leave()

    def take(self, streams: threading.Semaphore) -> Target | Series | None:
        """Give what to fetch next, None when there is no more; waits for it.

        A series is given only when `streams` can be acquired at once; `finished` releases it. While series of ours
        are under way the next one waits for them; when others have all streams it is handed out in instances.
        """
        with self._changed:
            early, self._early = self._early, None
            if early is not None and not self._left and streams.acquire(blocking=False):
                self._streamed.add(early)
                self._streaming[early] = []
                return early
            while not self._left:
                unit = self._next(streams)
                if unit is not None or (self._complete and not self._streaming):
                    return unit
                self._changed.wait()
        return None

    def _next(self, streams: threading.Semaphore) -> Target | Series | None:
        while self._waiting:
            target = self._waiting[0]
            series, holder = Series(target.study, target.series), self._brought_by(target)
            if target.sop_instance in self._taken:
                self._waiting.popleft()
            elif holder is not None:
                self._streaming[holder].append(self._waiting.popleft())
            elif target.is_here or not self._worth_a_stream(series):
                break
            elif streams.acquire(blocking=False):
                self._streamed.add(series)
                self._streaming[series] = []
                return series
            elif self._streaming:
                return None
            else:
                break
        if not self._waiting:
            return None
        target = self._waiting.popleft()
        self._taken.add(target.sop_instance)
        if not target.is_here:
            self._unfetched[Series(target.study, target.series)] -= 1
        return target

    def _brought_by(self, target: Target) -> Series | None:
        """Give the unit under way that an instance is to come with."""
        series, study = Series(target.study, target.series), Series(target.study)
        if target.is_here:
            return None
        if series in self._streaming:
            return series
        apart = self._complete and self._worth_a_stream(series)
        return study if study in self._streaming and not apart else None

    def _worth_a_stream(self, series: Series) -> bool:
        """Say whether enough of a series is wanted from the archive, wherever it stands: not all sort by series."""
        return self._whole_series and series not in self._streamed and self._unfetched[series] >= _LONG

    def claim(self, unit: Series, sop_instance: str) -> Target | None:
        """Give the target that arrived with a unit, None when it is unexpected, here, or another's to bring.

        The archive may send an instance before its page of the search has come: then this waits for the page.
        """
        with self._changed:
            self._changed.wait_for(lambda: sop_instance in self._targets or self._complete or self._left)
            target = self._targets.get(sop_instance)
            if target is None or target.is_here or sop_instance in self._taken or self._is_others(unit, target):
                return None
            if not unit.series:
                series = Series(target.study, target.series)
                self._streamed.add(series)
                self._led.add(series)
            self._taken.add(sop_instance)
            return target

    def _is_others(self, unit: Series, target: Target) -> bool:
        """Say whether an instance that comes with its study is of a series that was handed out apart."""
        series = Series(target.study, target.series)
        return not unit.series and series in self._streamed and series not in self._led

    def is_passed(self, unit: Series, sop_instance: str) -> bool:
        """Say whether what a unit brings after an instance that it could not claim is not worth waiting for."""
        with self._changed:
            target = self._targets.get(sop_instance)
            if self._left or (self._complete and len(self._taken) == len(self._targets)):
                return True
            return target is not None and self._is_others(unit, target)

    def finished(self, series: Series, streams: threading.Semaphore) -> None:
        """Say that a series' stream is over, whole or not."""
        streams.release()
        with self._changed:
            self._waiting.extendleft(reversed(self._streaming.pop(series)))
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for page in self._pages:
                with self._changed:
                    self._add(page)
                    self._changed.notify_all()
                if self._stopped:
                    return
        except Exception as error:  # noqa: BLE001 - `completed` raises it where it can be answered
            self._error = error
        finally:
            with self._changed:
                self._complete = True
                for unit, held in self._streaming.items():
                    if not unit.series:  # of its series some may now be had apart
                        self._waiting.extendleft(reversed(held))
                        held.clear()
                self._left = self._left or self._error is not None
                self._changed.notify_all()

    def _add(self, page: Sequence[Target]) -> None:
        for target in page:
            if target.sop_instance not in self._targets:
                self._targets[target.sop_instance] = target
                self._waiting.append(target)
                if not target.is_here:
                    self._unfetched[Series(target.study, target.series)] += 1
                self._classes[target.sop_class] = None
