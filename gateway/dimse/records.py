"""Take note of what happens on the DIMSE side, for the metrics and the status page."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway import metrics
from gateway.audit import Trail
from gateway.delivery import Item
from gateway.dimse.negotiation import REASONS, Rejection
from gateway.metrics import Recorder
from gateway.recent import Recent
from gateway.translate.stow_outcomes import Disposition, Verdict

_UNKNOWN = "unknown"  # a caller chooses its AE title: only configured ones become labels


@dataclass(frozen=True, slots=True)
class Records:
    """Note for one process; `peers` are the AE titles that are configured, `trail` is the audit trail if any."""

    recorder: Recorder
    recent: Recent
    peers: Collection[str]
    trail: Trail | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note that associations are accepted meanwhile."""
        self.recorder.set(metrics.LISTENING, value=1)
        try:
            yield
        finally:
            self.recorder.set(metrics.LISTENING, value=0)

    @contextmanager
    def association(self, calling: str, address: str) -> Iterator[None]:
        """Note that an association is open meanwhile."""
        peer = self._label(calling)
        self.recorder.add(metrics.ASSOCIATIONS, peer)
        self.recorder.add(metrics.ASSOCIATIONS_OPEN, peer)
        self.recent.note_contact(calling, address)
        try:
            yield
        finally:
            self.recorder.add(metrics.ASSOCIATIONS_OPEN, peer, amount=-1)

    def rejection(self, calling: str, called: str, address: str, rejection: Rejection) -> None:
        """Note that an association was rejected."""
        reason = REASONS.get((rejection.result, rejection.source, rejection.reason), _UNKNOWN)
        self.recorder.add(metrics.REJECTIONS, reason)
        self.recent.note_refusal(calling, called, address, rejection.words)

    def stranger(self, address: str, reason: str) -> None:
        """Note that a caller was refused before it had said who it is."""
        self.recent.note_refusal("", "", address, reason)

    def operation(self, calling: str, service: str, status: str, seconds: float, size: int) -> None:
        """Note that an operation ended; `size` in bytes."""
        peer = self._label(calling)
        self.recorder.add(metrics.OPERATIONS, peer, service, status)
        self.recorder.observe(metrics.OPERATION_SECONDS, peer, service, seconds=seconds)
        if size:
            self.recorder.add(metrics.OPERATION_BYTES, peer, service, amount=size)

    def stored(self, archive: str, calling: str, item: Item, verdict: Verdict, reason: str) -> None:
        """Note what came of an instance whose sender waited for the archive."""
        done = verdict.disposition is Disposition.DONE
        self.recorder.add(metrics.INSTANCES_SENT, archive, str(verdict.disposition))
        failure = "" if done else reason or f"status {verdict.status:04X}H"
        self.recent.note_stored(item.study, archive, calling, item.extent.size, failure)

    def _label(self, calling: str) -> str:
        return calling if calling in self.peers else _UNKNOWN
