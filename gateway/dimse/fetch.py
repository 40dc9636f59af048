"""Fetch instances from the archive into files: whole series in one request, single instances in parallel."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import structlog

from gateway.cache import RecentObjects
from gateway.dicomweb.client import Client
from gateway.dicomweb.retrieval import Instance
from gateway.dimse.expansion import Expansion, Series, Target
from gateway.dimse.scratch import Content, InFile, Scratch
from gateway.dimse.shares import ArchiveShares
from gateway.dimse.waiting import take_waiting
from gateway.errors import (
    AnswerUnreadable,
    ArchiveBusy,
    ArchiveUnreachable,
    Cancelled,
    DataSetError,
    GatewayError,
    SignInRefused,
)
from gateway.translate.part10 import FileMeta, read_file_meta

log = structlog.get_logger("gateway.dimse")

_PARALLEL = 4
_AHEAD = 8  # instances
_AHEAD_BYTES = 1 << 29
_PATIENCE = 2.0  # seconds that a series' request may stand still because its destination is slow
_GIVE_UP = 8  # requests in a row that an archive did not answer


@dataclass(frozen=True, slots=True)
class Fetched:
    """Hold an instance as a Part 10 file with its File Meta, or the error that kept it from being one.

    `derived` says that the archive does not hold it like this.
    """

    target: Target
    content: Content | None = None
    meta: FileMeta | None = None
    error: GatewayError | None = None
    derived: bool = False

    @property
    def size(self) -> int:
        """Give its bytes."""
        return self.content.size if self.content is not None else 0

    @property
    def data_size(self) -> int:
        """Give the bytes of its data set."""
        return self.size - self.meta.offset if self.meta is not None else 0

    def discard(self) -> None:
        """Let go of the content; a second call does nothing."""
        if self.content is not None:
            self.content.discard()


class Fetch:
    """Iterate over the instances of an expansion as they arrive; the caller discards each.

    A few are fetched ahead, at most half a gigabyte of them. A series' request that is refused, breaks off, lacks
    instances or stands still for too long is made up for instance by instance. Raises what ended the expansion.
    What comes whole is kept among the `recent` objects, and what is there is not fetched.
    """

    def __init__(
        self,
        archive: Client,
        expansion: Expansion,
        scratch: Scratch,
        shares: ArchiveShares,
        recent: RecentObjects,
    ) -> None:
        self._archive = archive
        self._recent = recent
        self._expansion = expansion
        self._scratch = scratch
        self._shares = shares
        lock = threading.Lock()
        # two, so that an instance wakes who waits for it, and not all who wait for room: that takes turns of
        # the interpreter from those who read and send
        self._arrived, self._room = threading.Condition(lock), threading.Condition(lock)
        self._ready: deque[Fetched] = deque()
        self._ready_bytes = 0
        self._running = _PARALLEL
        self._left = False
        self._unanswered = 0

    def __iter__(self) -> Iterator[Fetched]:
        for _ in range(_PARALLEL):
            threading.Thread(target=self._work, name="fetch", daemon=True).start()
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._ready or not self._running or self._left)
                if self._left:
                    return
                fetched = self._ready.popleft() if self._ready else None
                self._ready_bytes -= fetched.size if fetched is not None else 0
                self._room.notify()
            if fetched is None:
                self._expansion.completed()
                return
            yield fetched

    def leave(self) -> None:
        """End the iteration and remove what was fetched ahead; requests under way end by themselves."""
        with self._arrived:
            self._left = True
            ready, self._ready = self._ready, deque()
            self._arrived.notify_all()
            self._room.notify_all()
        self._expansion.leave()
        for fetched in ready:
            fetched.discard()

    def _work(self) -> None:
        try:
            while (unit := self._expansion.take(self._shares.streams)) is not None:
                if isinstance(unit, Series):
                    try:
                        self._series(unit)
                    finally:
                        self._expansion.finished(unit, self._shares.streams)
                else:
                    self._put(self._instance(unit))
        except Cancelled:
            pass  # nobody waits for the rest
        finally:
            with self._arrived:
                self._running -= 1
                self._arrived.notify()

    def _instance(self, target: Target) -> Fetched:
        """Take one instance that is here or fetch it, unless the archive has not answered a row of requests."""
        try:
            content = take_waiting(target) or self._take_recent(target)
            if content is not None:
                return Fetched(target, content, _meta("spool", content))
        except GatewayError as error:
            return Fetched(target, error=error)
        if self._unanswered >= _GIVE_UP:
            return Fetched(target, error=ArchiveUnreachable(self._archive.name, "did not answer a row of requests"))
        with self._shares.requests.turn(lambda: self._left):
            mark = self._recent.mark()
            fetched = fetch_instance(self._archive, target, self._scratch)
        self._keep(fetched, mark)
        silent = isinstance(fetched.error, ArchiveUnreachable | ArchiveBusy | SignInRefused)
        self._unanswered = self._unanswered + 1 if silent else 0
        return fetched

    def _take_recent(self, target: Target) -> Content | None:
        path = self._scratch.name()
        size = self._recent.take(target.uids, path)
        return InFile(path, size) if size is not None else None

    def _keep(self, fetched: Fetched, mark: bytes) -> None:
        if fetched.content is not None:
            self._recent.keep(fetched.target.uids, fetched.size, fetched.content.put, mark)

    def _series(self, unit: Series) -> None:
        late: Fetched | None = None
        try:
            with self._shares.requests.turn(lambda: self._left):
                mark = self._recent.mark()
                with self._archive.retrieve(unit.study, unit.series) as instances:
                    for fetched in self._parts(unit, instances, mark):
                        if not self._put(fetched, _PATIENCE):
                            late = fetched
                            break
        except Cancelled:
            raise
        except GatewayError as error:
            log.warning("not fetched in one answer", study=unit.study, series=unit.series or "all", reason=str(error))
        if late is not None:
            self._put(late)

    def _parts(self, unit: Series, instances: Iterable[Instance], mark: bytes) -> Iterator[Fetched]:
        """Yield what an answer brings of the instances that are waited for; end when the rest is not worth it."""
        for instance in instances:
            content = self._scratch.take(instance.chunks)
            try:
                meta = _meta(self._archive.name, content)
            except AnswerUnreadable as error:
                log.warning("part of a series not used", reason=str(error))
                content.discard()
                continue
            target = self._expansion.claim(unit, meta.sop_instance)
            if target is not None:
                fetched = Fetched(target, content, meta)
                self._keep(fetched, mark)
                yield fetched
                continue
            content.discard()
            if self._expansion.is_passed(unit, meta.sop_instance):
                return

    def _put(self, fetched: Fetched, patience: float | None = None) -> bool:
        """Hand an instance over as soon as there is room; give False when there was none in `patience` seconds."""
        with self._arrived:
            if not self._room.wait_for(lambda: self._left or self._has_room(), patience):
                return False
            if not self._left:
                self._ready.append(fetched)
                self._ready_bytes += fetched.size
                self._arrived.notify()
                if self._has_room():
                    self._room.notify()
                return True
        fetched.discard()
        raise Cancelled("the instance is not wanted any more")

    def _has_room(self) -> bool:
        return not self._ready or (len(self._ready) < _AHEAD and self._ready_bytes < _AHEAD_BYTES)


def fetch_instance(archive: Client, target: Target, scratch: Scratch, transfer_syntax: str = "*") -> Fetched:
    """Fetch one instance as it is stored, or converted by the archive; a failure is in the result."""
    content: Content | None = None
    try:
        with archive.retrieve(
            target.study, target.series, target.sop_instance, transfer_syntax=transfer_syntax
        ) as instances:
            for instance in instances:
                if content is not None:
                    raise AnswerUnreadable(archive.name, "more than one instance")
                content = scratch.take(instance.chunks)
        if content is None:
            raise AnswerUnreadable(archive.name, "no instance")
        meta = _meta(archive.name, content)
        if meta.sop_instance != target.sop_instance:
            raise AnswerUnreadable(archive.name, "another instance than the one asked for")
    except GatewayError as error:
        if content is not None:
            content.discard()
        return Fetched(target, error=error)
    return Fetched(target, content, meta)


def _meta(archive: str, content: Content) -> FileMeta:
    with content.open() as file:
        try:
            return read_file_meta(file)
        except DataSetError as error:
            raise AnswerUnreadable(archive, f"not a Part 10 file: {error}") from error
