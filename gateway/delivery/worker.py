"""Deliver what the outbox holds for one archive: threads that claim, send and settle."""

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog
from structlog.contextvars import bound_contextvars

from gateway.delivery.breaker import Breaker, Circuit
from gateway.delivery.prepared import Item
from gateway.delivery.retry import RetryPolicy, delay
from gateway.delivery.uploader import Uploader
from gateway.dicomweb.client import Client
from gateway.errors import ArchiveBusy, ArchiveError, GatewayError, TooLarge
from gateway.outbox import FILE_LOST, Duplicates, Entry, Outbox
from gateway.translate.stow_outcomes import Disposition, Verdict, failed

_TICK = 0.5  # seconds between looks at whether to stop
_REST = 1.0  # seconds after the outbox failed


@dataclass(frozen=True, slots=True)
class Settings:
    """Say how one archive is delivered to; times in seconds, lengths in bytes.

    After a claim that found less than all workers can send, `gather` goes by before the next.
    """

    workers: int = 4
    batch_bytes: int = 32 << 20
    lease: float = 120.0
    gather: float = 0.05
    duplicates: Duplicates = "reject"
    retry: RetryPolicy = field(default_factory=RetryPolicy)


Observe = Callable[[Entry, Verdict], None]
"""Be told the verdict on each attempt, for metrics."""


class Delivery:
    """Deliver to the archive of `client` from `start` to `stop`."""

    def __init__(
        self,
        outbox: Outbox,
        client: Client,
        settings: Settings,
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.time,
        observe: Observe = lambda _entry, _verdict: None,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._settings = settings
        self.breaker = breaker or Breaker()
        self._clock = clock
        self._observe = observe
        self._uploader = Uploader(client, outbox.scratch, duplicates=settings.duplicates)
        self._log = structlog.get_logger("gateway").bind(archive=client.name)
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._waiting = threading.Lock()
        self._ready: deque[list[Entry]] = deque()
        self._rest: list[Entry] = []
        self._next_claim = 0.0
        self._leased: set[int] = set()
        self._leased_lock = threading.Lock()
        names = [f"deliver-{client.name}-{number}" for number in range(settings.workers)]
        self._workers = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._keeper = threading.Thread(target=self._keep, name=f"leases-{client.name}", daemon=True)

    def start(self) -> None:
        """Start the workers."""
        for thread in (*self._workers, self._keeper):
            thread.start()

    def end(self) -> None:
        """Begin nothing more; `stop` waits for what runs."""
        self._stopping.set()
        self._outbox.wake()

    def stop(self, grace: float = 30.0) -> bool:
        """Let running requests end within `grace` seconds, give back what was not sent; tell whether all ended.

        The lease of a request that still runs is left to run out: nobody knows what will become of it.
        """
        self.end()
        until = time.monotonic() + grace
        for thread in self._workers:
            thread.join(max(0.0, until - time.monotonic()))
        self._over.set()
        self._keeper.join()
        return not any(thread.is_alive() for thread in self._workers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                entries = self._next()
                try:
                    self._deliver(entries)
                finally:
                    self._let_go(entries)
            except GatewayError as error:
                # The disk or the database: what is leased is taken back later, by whom ever.
                self._log.error("delivery interrupted", reason=str(error))
                self._stopping.wait(_REST)
            except Exception:  # noqa: BLE001 - a worker must live
                # Our own fault; without its workers the delivery would end and nobody notice.
                self._log.exception("delivery interrupted")
                self._stopping.wait(_REST)

        with self._waiting:
            try:
                self._give_back()
            except GatewayError as error:
                self._log.error("leases not given back", reason=str(error))

    def _next(self) -> list[Entry]:
        """Wait for the entries of a request; one worker does so, and the others behind it.

        Entries are claimed for all workers at once: to lease costs a sync, during which nothing can be received.
        """
        with self._waiting:
            while not self._stopping.is_set():
                if not self._ready and not self._is_due():
                    continue
                if pause := self.breaker.permit():
                    self._give_back()
                    self._stopping.wait(min(pause, _TICK))
                    continue
                # To a probe goes one instance only.
                probing = self.breaker.state is Circuit.PROBING
                try:
                    if probing:
                        self._give_back()
                    if not self._ready:
                        self._claim(1 if probing else self._settings.workers, alone=probing)
                except GatewayError:
                    self.breaker.unused()
                    raise
                if self._ready:
                    return self._ready.popleft()
                self.breaker.unused()
        return []

    def _is_due(self) -> bool:
        """Wait until there is something to send; after a claim that found little, for more to come first."""
        if self._stopping.wait(self._next_claim - time.monotonic()):
            return False
        return bool(self._rest) or self._outbox.wait(self._client.name, _TICK)

    def _claim(self, requests: int, *, alone: bool) -> None:
        """Lease what so many requests take, and have the leases prolonged: an upload may take longer than one.

        What does not fill the last of several requests waits for the next claim, for each has its price.
        """
        most = 1 if alone else self._client.profile.store_batch
        wanted = most * requests - len(self._rest)
        claimed = self._outbox.claim(
            self._client.name,
            count=wanted,
            max_bytes=self._settings.batch_bytes * requests,
            lease=self._settings.lease,
        )
        with self._leased_lock:
            self._leased |= {entry.id for entry in claimed}
        self._ready.extend(_batches([*self._rest, *claimed], most, self._settings.batch_bytes))
        self._rest = []
        if len(claimed) < wanted and not alone:
            self._next_claim = time.monotonic() + self._settings.gather
            if len(self._ready) > 1 and len(self._ready[-1]) < most:
                self._rest = self._ready.pop()

    def _give_back(self) -> None:
        """Give back what was claimed and nobody has begun."""
        entries = [entry for batch in (*self._ready, self._rest) for entry in batch]
        self._ready.clear()
        self._rest = []
        if entries:
            self._let_go(entries)
            self._outbox.give_back([entry.id for entry in entries])

    def _let_go(self, entries: Sequence[Entry]) -> None:
        """Have the leases prolonged no more."""
        with self._leased_lock:
            self._leased -= {entry.id for entry in entries}

    def _deliver(self, entries: Sequence[Entry]) -> None:
        for number, group in enumerate(groups := _groups(entries)):
            # The first may be the probe, which somebody waits for.
            if number and self._stopping.is_set():
                self._outbox.give_back([entry.id for rest in groups[number:] for entry in rest])
                return
            # the C-STORE's line names the entry, so does the request to the archive
            with bound_contextvars(request=f"{group[0].id:016x}"):
                begun = time.monotonic()
                verdicts = self._send(group)
                self._note(verdicts)
                self._settle(group, verdicts, time.monotonic() - begun)

    def _send(self, group: Sequence[Entry]) -> Sequence[Verdict]:
        try:
            uploader = self._uploader.correlated(f"{group[0].id:016x}")
            return uploader.send([Item.of(entry) for entry in group])
        except Exception as error:  # noqa: BLE001 - a worker must live
            # Our own fault; the instances wait, and are set aside if it happens too often.
            self._log.exception("delivery failed", instances=len(group))
            return [failed(GatewayError(f"the delivery failed: {type(error).__name__}"))] * len(group)

    def _note(self, verdicts: Sequence[Verdict]) -> None:
        faults = [
            v.cause for v in verdicts if isinstance(v.cause, ArchiveError) and not isinstance(v.cause, TooLarge)
        ]
        if not faults:
            if self.breaker.state is not Circuit.CLOSED:
                self._log.info("archive answers again")
            self.breaker.succeeded()
            return
        was = self.breaker.state
        self.breaker.failed(faults[0].retry_after if isinstance(faults[0], ArchiveBusy) else None)
        if was is Circuit.CLOSED and self.breaker.state is Circuit.OPEN:
            self._log.warning("archive fails, delivery pauses", reason=str(faults[0]))

    def _settle(self, entries: Sequence[Entry], verdicts: Sequence[Verdict], seconds: float) -> None:
        judged = list(zip(entries, verdicts, strict=True))
        done = [entry.id for entry, verdict in judged if verdict.disposition is Disposition.DONE]
        if done:
            self._outbox.done(done)
        for entry, verdict in judged:
            if verdict.disposition is not Disposition.DONE:
                self._postpone(entry, verdict)
            self._observe(entry, verdict)
        self._log.info(
            "sent",
            entries=" ".join(f"{entry.id:016x}" for entry in entries),
            instances=len(entries),
            stored=len(done),
            seconds=round(seconds, 3),
        )

    def _postpone(self, entry: Entry, verdict: Verdict) -> None:
        cause = verdict.cause
        reason = str(cause) if cause is not None else verdict.comment
        wait = None
        if not entry.extent.exists():
            reason = FILE_LOST
        elif cause is not None and verdict.disposition is Disposition.RETRY:
            wait = delay(cause, entry.attempts, random.random(), self._settings.retry)  # noqa: S311 - only a delay
        if wait is None:
            self._outbox.set_aside(entry.id, reason)
            self._log.warning(
                "set aside", entry=f"{entry.id:016x}", instance=entry.sop_instance, peer=entry.peer, reason=reason
            )
        else:
            self._outbox.retry(entry.id, self._clock() + wait, reason)

    def _keep(self) -> None:
        while not self._over.wait(self._settings.lease / 3):
            with self._leased_lock:
                ids = list(self._leased)
            try:
                if ids:
                    self._outbox.renew(ids, self._settings.lease)
            except GatewayError as error:
                self._log.error("leases not prolonged", reason=str(error))


def stop_all(deliveries: Sequence[Delivery], grace: float) -> None:
    """Stop deliveries within `grace` seconds altogether."""
    until = time.monotonic() + grace
    for delivery in deliveries:
        delivery.end()
    for delivery in deliveries:
        delivery.stop(max(0.0, until - time.monotonic()))


def _batches(entries: Sequence[Entry], count: int, most: int) -> list[list[Entry]]:
    """Share entries out to requests of up to `count` and together `most` bytes, but one of any size."""
    batches: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if not batches or len(batches[-1]) >= count or entry.size > room:
            batches.append([])
            room = most
        batches[-1].append(entry)
        room -= entry.size
    return batches


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Say which entries share a request: one that failed before goes alone, lest it take others down with it.

    So do those that replace, and a second entry with the same SOP Instance UID, which the answer could not tell
    from the first.
    """
    together: dict[str, Entry] = {}
    alone: list[Entry] = []
    for entry in entries:
        if entry.attempts > 1 or entry.replaces or entry.sop_instance in together:
            alone.append(entry)
        else:
            together[entry.sop_instance] = entry
    return [group for group in itertools.chain([list(together.values())], ([entry] for entry in alone)) if group]
