"""Watch while nobody looks: ask the archives whether they answer, and write down what every minute brought."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gateway import metrics
from gateway.admin.parts import Parts
from gateway.dicomweb.client import Client
from gateway.errors import ArchiveError
from gateway.metrics import Key
from gateway.recent import Minute

_NOWHERE = "2.25.1"  # a study that no archive has: the cheapest question that needs the right to search
_COUNT_EVERY = 5.0  # seconds
_PATIENCE = 2.0  # seconds for the threads to end; a hanging request is left behind


@dataclass(frozen=True, slots=True)
class Probe:
    """Say how an archive answered last: when (s since 1970), how fast in seconds, or why not."""

    at: float
    seconds: float
    error: ArchiveError | None


class Watch:
    """Watch from its entering to its leaving; `probes` has what was learnt of each archive, none at first."""

    def __init__(self, parts: Parts) -> None:
        self.probes: dict[str, Probe] = {}
        self._parts = parts
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._probe, args=(client,), name=f"probe-{name}", daemon=True)
            for name, client in parts.archives.items()
        ]
        self._threads.append(threading.Thread(target=self._count, name="minutes", daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _probe(self, client: Client) -> None:
        while not self._over.is_set():
            begun, failure = time.monotonic(), None
            try:
                for _ in client.search("studies", [("StudyInstanceUID", _NOWHERE)]):
                    pass
            except ArchiveError as error:
                failure = error
            self.probes[client.name] = Probe(time.time(), time.monotonic() - begun, failure)
            self._over.wait(self._parts.config.admin.probe if self._parts.config.admin else 0)

    def _count(self) -> None:
        before = self._parts.metrics.total()
        while not self._over.wait(_COUNT_EVERY):
            now = self._parts.metrics.total()
            counts = [new - old for new, old in zip(_flow(now), _flow(before), strict=True)]
            before = now
            if any(counts):
                self._parts.recent.note_minute(Minute(int(time.time() // 60), *counts))


def _flow(totals: dict[Key, float]) -> tuple[float, float, float]:
    """Give the instances received, the instances archived and the bytes received until now."""
    received = sum(
        value
        for (_, service, status), value in metrics.values(totals, metrics.OPERATIONS)
        if service == "C-STORE" and (status == "0000" or status.startswith("B"))
    )
    archived = sum(
        value for (_, outcome), value in metrics.values(totals, metrics.INSTANCES_SENT) if outcome == "done"
    )
    size = sum(
        value for (_, service), value in metrics.values(totals, metrics.OPERATION_BYTES) if service == "C-STORE"
    )
    return received, archived, size
