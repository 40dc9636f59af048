"""Answer C-STORE: fragments stream into a file of the spool, then somebody takes responsibility for it.

Where the called AE title says `spooled` that is the outbox, once file and row survive a power cut; where it says
`archived`, the archive. Only then comes the response (PS3.4 Annex B); until then nothing is promised, so a broken
association or a failure leaves nothing behind, here or there.
"""

from collections.abc import Mapping

from gateway.delivery import Item
from gateway.dimse import commands
from gateway.dimse.association import Message, Sink
from gateway.dimse.commands import text
from gateway.dimse.session import Report, Session, operation
from gateway.errors import DataSetError, GatewayError, IdentityMismatch, StoreNotAllowed
from gateway.outbox import Arrival, Duplicates, Incoming, Receipt
from gateway.status import DUPLICATE_SOP_INSTANCE, SUCCESS, Service, Status, status_of
from gateway.translate.part10 import Identity, file_header, read_identity, walk

_COERCED = 0xB000
_REJECTED = Status(DUPLICATE_SOP_INSTANCE, "another instance has these UIDs")

RECEIPTS: Mapping[Receipt, Status] = {
    Receipt.QUEUED: Status(SUCCESS, ""),
    Receipt.DUPLICATE: Status(SUCCESS, ""),
    Receipt.REPLACED: Status(SUCCESS, ""),
    Receipt.KEPT: Status(_COERCED, "another instance with these UIDs is kept instead"),
    Receipt.REJECTED: _REJECTED,
}
"""What the outbox did -> the status; success only for what will be in the archive as it was sent."""

CONFLICTS: Mapping[Duplicates, Status] = {
    "keep": RECEIPTS[Receipt.KEPT],
    "reject": _REJECTED,
    "replace": _REJECTED,  # the archive would not have it replaced
}
"""The policy -> the status when the archive keeps another object under the UIDs of this one."""


class Receiver:
    """Write an instance into the spool as its fragments come; why it cannot is remembered and told at the end."""

    def __init__(self, session: Session, header: bytes, transfer_syntax: str) -> None:
        self._walk = walk(transfer_syntax)
        self.error: GatewayError | None = None
        self.file: Incoming | None = None
        try:
            if "store" not in session.peer.allow:
                raise StoreNotAllowed("the peer may get instances but not store any (peers.*.allow)")
            self.file = session.outbox.incoming(session.calling, header)
        except GatewayError as error:
            self.error = error

    def write(self, pieces: list[memoryview]) -> None:
        """Append fragments of the data set."""
        if self.error is not None or self.file is None:
            return
        try:
            self.file.write(*pieces)
        except GatewayError as error:  # the file is gone already
            self.error = error
            return
        if self._walk is not None:
            for piece in pieces:
                self._walk.take(piece)

    def complete(self) -> Incoming:
        """Give the file; raises the error met while writing, or DataSetError when nothing came."""
        if self.error is not None:
            raise self.error
        if self.file is None or self.file.size <= self.file.offset:
            raise DataSetError("the data set is empty")
        return self.file

    def identity(self, file: Incoming) -> Identity | None:
        """Give the UIDs that were seen in passing; None where the file has to be read for them."""
        return self._walk.identity(file.size - file.offset) if self._walk is not None else None

    def discard(self) -> None:
        """Remove the file unless the outbox has taken it; a second call does nothing."""
        if self.file is not None:
            self.file.discard()


def receiver(session: Session, message: Message) -> Receiver:
    """Make the sink for the data set of a C-STORE request."""
    command = message.command
    syntax = message.context.transfer_syntax
    header = file_header(
        text(command, "AffectedSOPClassUID"),
        text(command, "AffectedSOPInstanceUID"),
        syntax,
        source_ae=session.calling,
    )
    return Receiver(session, header, syntax)


def abandon(sink: Sink | None) -> None:
    """Remove what an association that broke off left half received."""
    if isinstance(sink, Receiver):
        sink.discard()


def answer(session: Session, message: Message) -> None:
    """Answer a C-STORE request whose data set has been received."""
    sink = message.sink
    with operation(session, "C-STORE") as report:
        try:
            status = _store(session, message, sink, report)
        except GatewayError as error:
            status = status_of(error, Service.STORE)
            report.note(reason=str(error))
        finally:
            abandon(sink)
        report.note(status=status.code, instance=text(message.command, "AffectedSOPInstanceUID"))
        session.association.send(message.context, commands.response(message.command, status.code, status.comment))


def _store(session: Session, message: Message, sink: Sink | None, report: Report) -> Status:
    if not isinstance(sink, Receiver):
        raise DataSetError("the request has no data set")
    file = sink.complete()
    identity = sink.identity(file) or _read(file, message)
    _insist(identity, message)
    report.note(bytes=file.size - file.offset)
    with session.account.storing(identity, file.open) as told:
        status = _take(session, message, file, identity, report)
        told(status.code)
    return status


def _take(session: Session, message: Message, file: Incoming, identity: Identity, report: Report) -> Status:
    """Give the file to the outbox or the archive, unless a rejection note forbids it, and note one that it is."""
    take = _spool if session.route.acknowledge == "spooled" else _archive
    if session.route.rejecting is None:
        return take(session, message, file, identity, report)
    with file.data_set() as stream:
        judged = session.route.rejecting.judge(stream, message.context.transfer_syntax, identity)
    status = take(session, message, file, identity, report)
    if status.code == SUCCESS or (status.code >> 12 == 0xB and status is not RECEIPTS[Receipt.KEPT]):
        may_reject = "reject" in session.peer.allow
        session.route.rejecting.stored(judged, identity, session.calling, session.called, may_reject=may_reject)
    return status


def _spool(session: Session, message: Message, file: Incoming, identity: Identity, report: Report) -> Status:
    """Put the file into the outbox; after success it survives whatever happens here."""
    arrival = Arrival(
        archive=session.route.name,
        study=identity.study,
        series=identity.series,
        sop_class=identity.sop_class,
        sop_instance=identity.sop_instance,
        transfer_syntax=message.context.transfer_syntax,
        peer=session.calling,
        called=session.called,
    )
    report.note(entry=file.name)
    receipt = session.outbox.commit(file, arrival, duplicates=session.route.duplicates)
    if receipt is not Receipt.QUEUED:
        report.note(duplicate=str(receipt))
    return RECEIPTS[receipt]


def _archive(session: Session, message: Message, file: Incoming, identity: Identity, report: Report) -> Status:
    """Store the file in the archive and give its verdict; the file does not stay here whatever that is."""
    item = Item(
        extent=file.extent,
        study=identity.study,
        series=identity.series,
        sop_class=identity.sop_class,
        sop_instance=identity.sop_instance,
        transfer_syntax=message.context.transfer_syntax,
        peer=session.calling,
    )
    (verdict,) = session.uploader.send([item])
    reason = str(verdict.cause or verdict.comment)
    if reason:
        report.note(reason=reason)
    session.records.stored(session.route.name, session.calling, item, verdict, reason)
    if verdict.status == DUPLICATE_SOP_INSTANCE:
        return CONFLICTS[session.route.duplicates]
    return Status(verdict.status, verdict.comment if verdict.status != SUCCESS else "")


def _read(file: Incoming, message: Message) -> Identity:
    with file.data_set() as stream:
        return read_identity(stream, message.context.transfer_syntax)


def _insist(identity: Identity, message: Message) -> None:
    """Insist that command set, presentation context and data set name the same instance (PS3.4 B.2.3)."""
    if not identity.is_complete:
        raise DataSetError("Study, Series, SOP Instance or SOP Class UID of the data set is missing or no UID")
    if identity.sop_instance != text(message.command, "AffectedSOPInstanceUID"):
        raise IdentityMismatch("SOP Instance UID of data set and command differ")
    classes = {
        identity.sop_class,
        text(message.command, "AffectedSOPClassUID"),
        message.context.abstract_syntax,
    }
    if len(classes) != 1:
        raise IdentityMismatch("SOP Class UID of data set, command and presentation context differ")
