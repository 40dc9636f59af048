"""A modality that asks for storage commitment: pynetdicom, with what transfer syntaxes and roles a test gives it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import processes
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association

VERIFICATION = "1.2.840.10008.1.1"
PUSH_MODEL = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"
LITTLE_ENDIAN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def references(*pairs: tuple[str, str], transaction: str | None = "") -> Dataset:
    """Make the data set of a request; None leaves the Transaction UID out."""
    dataset = Dataset()
    if transaction is not None:
        dataset.TransactionUID = transaction or generate_uid()
    dataset.ReferencedSOPSequence = []
    for sop_class, sop_instance in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        dataset.ReferencedSOPSequence.append(item)
    return dataset


@dataclass(frozen=True)
class Report:
    event_type: int
    transaction: str
    retrieve_ae_title: str
    committed: list[tuple[str, str]]
    failed: dict[tuple[str, str], int]
    way: str  # "same association" or "new association"
    syntax: str
    called: str
    calling: str
    roles: tuple[bool, bool] | None  # that the caller proposed: SCU, SCP


@dataclass
class Modality:
    """Ask a gateway at `port` under a title, listen under the same or another; collect the reports."""

    port: int
    title: str = "CT01"
    called: str = "GATEWAY"
    seconds: float = 0  # that it takes to answer a report
    called_with: int = 0
    answers: list[int] = field(default_factory=list)  # to the next reports; then success
    reports: list[Report] = field(default_factory=list)
    refused: int = 0

    @contextmanager
    def association(self, syntaxes: Sequence[str] = LITTLE_ENDIAN, *, echo: bool = False) -> Iterator[Association]:
        entity = AE(ae_title=self.title)
        entity.add_requested_context(PUSH_MODEL, list(syntaxes))
        if echo:
            entity.add_requested_context(VERIFICATION)
        association = entity.associate(
            "127.0.0.1",
            self.port,
            ae_title=self.called,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take, ["same association"])],
        )
        assert association.is_established
        raw = association.dul.socket.socket
        try:
            yield association
            threading.Event().wait(0.2)  # pynetdicom fails when it is to release while it answers
            association.release()
        finally:
            association.kill()
            association.join(10)
            raw.close()  # which it forgets when the other side is gone

    def ask(self, request: Dataset | None, *, stay: float = 0, syntaxes: Sequence[str] = LITTLE_ENDIAN) -> int:
        """Ask, stay up to so many seconds until a report comes, release, and give the status."""
        with self.association(syntaxes) as association:
            status = action(association, request)
            if stay:
                self.await_reports(len(self.reports) + 1, stay)
        return status

    def await_reports(self, count: int, seconds: float = 20) -> list[Report]:
        processes.await_true(lambda: len(self.reports) >= count, seconds, f"report {count}")
        return self.reports

    @contextmanager
    def listening(
        self,
        port: int,
        *,
        title: str = "",
        syntaxes: Sequence[str] = LITTLE_ENDIAN,
        roles: tuple[bool, bool] | None = (True, True),
    ) -> Iterator[None]:
        """Listen for reports; `roles` (SCU, SCP) are what a caller may be, None to leave its proposal unanswered."""
        entity = AE(ae_title=title or self.title)
        entity.require_called_aet = True
        granted = {"scu_role": roles[0], "scp_role": roles[1]} if roles else {}
        entity.add_supported_context(PUSH_MODEL, list(syntaxes), **granted)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take, ["new association"])]
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def _take(self, event: evt.Event, way: str) -> tuple[int, None]:
        self.called_with += 1
        threading.Event().wait(self.seconds)
        answer = self.answers.pop(0) if self.answers else 0x0000
        if answer:
            self.refused += 1
            return answer, None
        said = event.event_information
        requestor = event.assoc.requestor
        proposed = requestor.role_selection.get(PUSH_MODEL)
        self.reports.append(
            Report(
                event_type=int(event.event_type or 0),
                transaction=str(said.TransactionUID),
                retrieve_ae_title=str(said.get("RetrieveAETitle", "")),
                committed=[_pair(item) for item in said.get("ReferencedSOPSequence", [])],
                failed={_pair(item): int(item.FailureReason) for item in said.get("FailedSOPSequence", [])},
                way=way,
                syntax=str(event.context.transfer_syntax),
                called=str(event.assoc.acceptor.primitive.called_ae_title),
                calling=str(requestor.ae_title),
                roles=None if proposed is None else (bool(proposed.scu_role), bool(proposed.scp_role)),
            )
        )
        return 0x0000, None


def action(association: Association, request: Dataset | None, **named: Any) -> int:
    """Send N-ACTION and give its status; `named` replaces action type, class and instance."""
    status, _ = association.send_n_action(
        request,
        named.get("action_type", 1),
        named.get("class_uid", PUSH_MODEL),
        named.get("instance_uid", WELL_KNOWN),
    )
    assert "Status" in status, "the gateway gave no response"
    return int(status.Status)


def _pair(item: Dataset) -> tuple[str, str]:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)
