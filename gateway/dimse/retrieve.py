"""Answer C-MOVE and C-GET: expand by QIDO, fetch by WADO, send as C-STORE sub-operations (PS3.4 C.4.2, C.4.3)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog
from pydicom.dataset import Dataset

from gateway.dimse import commands
from gateway.dimse.ahead import Ahead
from gateway.dimse.association import Message
from gateway.dimse.commands import number, text
from gateway.dimse.fetch import Fetched, Target, fetch
from gateway.dimse.negotiation import GET_MODELS, MOVE_MODELS
from gateway.dimse.scan import Row, Scan
from gateway.dimse.senders import OverDestination, OverThisAssociation, Sender
from gateway.dimse.session import Report, Session, operation
from gateway.errors import (
    AnswerUnreadable,
    Cancelled,
    DestinationUnknown,
    DestinationUnreachable,
    GatewayError,
    PeerError,
)
from gateway.status import (
    ALL_SUB_OPERATIONS_FAILED,
    CANCEL,
    PENDING,
    SOP_CLASS_NOT_SUPPORTED,
    SUB_OPERATIONS_FAILED,
    SUCCESS,
    Service,
    Status,
    comment,
    status_of,
)
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.matching import text_of
from gateway.translate.search import Search, expand_plan, instances_of

log = structlog.get_logger("gateway.dimse")

_MOST_SUB_OPERATIONS = 65_535  # the counters are US


@dataclass(slots=True)
class Progress:
    """Count sub-operations: remaining + completed + failed + warning stays the total (PS3.4 C.4.2.1.6)."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_instances: list[str] = field(default_factory=list)

    def count(self, sop_instance: str, status: int | None) -> None:
        """Count one ended sub-operation by its C-STORE status, none when it could not be sent."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and (status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_instances.append(sop_instance)

    def counters(self, *, remaining: bool) -> dict[str, int]:
        """Give the counters as command elements; only a pending or cancelled response names the remaining."""
        counts = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": self.failed,
            "NumberOfWarningSuboperations": self.warning,
        }
        return {"NumberOfRemainingSuboperations": self.remaining, **counts} if remaining else counts

    def final(self) -> Status:
        """Give the final status of a retrieve that ran to its end."""
        if self.failed and not self.completed and not self.warning:
            return Status(ALL_SUB_OPERATIONS_FAILED, "no instance could be sent")
        if self.failed or self.warning:
            return Status(SUB_OPERATIONS_FAILED, "some instances failed or had warnings")
        return Status(SUCCESS, "")


def answer(session: Session, message: Message) -> None:
    """Answer a C-MOVE or C-GET request."""
    is_move = number(message.command, "CommandField") == commands.C_MOVE_RQ
    service = Service.MOVE if is_move else Service.GET
    progress = Progress()
    with operation(session, service.value) as report:
        try:
            status = _retrieve(session, message, service, progress, report)
        except PeerError:
            raise  # nobody is left to answer
        except Cancelled:
            status = Status(CANCEL, "cancelled")
        except GatewayError as error:
            status = status_of(error, service)
            report.note(reason=str(error))
        report.note(
            status=status.code,
            completed=progress.completed,
            failed=progress.failed,
            warning=progress.warning,
        )
        _respond(session, message, status, progress)


def _retrieve(session: Session, message: Message, service: Service, progress: Progress, report: Report) -> Status:
    models = MOVE_MODELS if service is Service.MOVE else GET_MODELS
    context = message.context
    if context.abstract_syntax not in models:
        return Status(SOP_CLASS_NOT_SUPPORTED, "the context is not for this operation")
    if service is Service.MOVE:
        report.note(destination=text(message.command, "MoveDestination"))
    sender = _sender(session, message, service)
    identifier = decode_identifier(message.data, context.transfer_syntax, default_charset=session.peer.character_set)
    search = expand_plan(
        identifier,
        models[context.abstract_syntax],
        session.archive.profile,
        session.negotiated_for(message),
        default_level=session.peer.default_level or "",
        lenient=session.peer.lenient,
    )
    with Ahead(session.association, _instances(session, search)) as pages:
        targets = _targets(pages, session.archive.name)
    if len(targets) > _MOST_SUB_OPERATIONS:
        return Status(0xA701, comment(f"{len(targets)} instances are more than {_MOST_SUB_OPERATIONS}"))
    progress.remaining = len(targets)
    try:
        _send_all(session, message, sender, targets, progress)
    finally:
        sender.close()
    return progress.final()


def _sender(session: Session, message: Message, service: Service) -> Sender:
    if service is Service.GET:
        return OverThisAssociation(session)
    destination = text(message.command, "MoveDestination")
    peer = session.config.peers.get(destination)
    if peer is None or peer.port is None:
        raise DestinationUnknown(destination, "is not in the configuration with host and port (peers)")
    return OverDestination(session, destination, peer, message.identifier)


def _instances(session: Session, search: Search) -> Iterator[list[Row]]:
    """Yield the instances that are named, by way of their studies where the archive needs that."""
    for page in Scan(session.archive, search, session.route.max_scanned).pages():
        if not search.studies_first:
            yield page
            continue
        for study in page:
            request = instances_of(study, session.archive.profile)
            if request is None:
                raise AnswerUnreadable(session.archive.name, "a study without Study Instance UID")
            yield from session.archive.search(request.resource, request.parameters)


def _targets(pages: "Ahead[list[Row]]", archive: str) -> list[Target]:
    """Collect each instance once; one that cannot be asked for must not be missing in silence."""
    unique: dict[str, Target] = {}
    for page in pages:
        for row in page:
            target = _target(row)
            if not (target.study and target.series and target.sop_instance):
                raise AnswerUnreadable(archive, "an instance without its UIDs")
            unique.setdefault(target.sop_instance, target)
    return list(unique.values())


def _target(row: Row) -> Target:
    return Target(
        study=text_of(row, 0x0020000D),
        series=text_of(row, 0x0020000E),
        sop_class=text_of(row, 0x00080016),
        sop_instance=text_of(row, 0x00080018),
    )


def _send_all(session: Session, message: Message, sender: Sender, targets: list[Target], progress: Progress) -> None:
    if not targets:
        return
    sender.expect({target.sop_class for target in targets})

    def report_progress() -> None:
        _pending(session, message, progress)

    source: Iterator[Fetched] = fetch(session.archive, targets, session.outbox.scratch)
    unsent = iter(targets)
    try:
        with Ahead(session.association, source, tick=report_progress, dispose=Fetched.discard) as instances:
            for fetched in instances:
                try:
                    status = _send(sender, fetched)
                finally:
                    fetched.discard()
                progress.count(next(unsent).sop_instance, status)
                if progress.remaining:
                    report_progress()
    except DestinationUnreachable as error:
        log.warning("destination unreachable", reason=str(error), unsent=progress.remaining)
        for target in unsent:
            progress.count(target.sop_instance, None)


def _send(sender: Sender, fetched: Fetched) -> int | None:
    """Send one instance; give its C-STORE status, none when it could not be sent. The rest goes on."""
    try:
        if fetched.error is not None:
            raise fetched.error
        return sender.send(fetched)
    except (Cancelled, DestinationUnreachable, PeerError):
        raise
    except GatewayError as error:
        log.warning("sub-operation failed", instance=fetched.target.sop_instance, reason=str(error))
        return None


def _pending(session: Session, message: Message, progress: Progress) -> None:
    response = commands.response(message.command, PENDING)
    session.association.send(message.context, {**response, **progress.counters(remaining=True)})


def _respond(session: Session, message: Message, status: Status, progress: Progress) -> None:
    """Send the final response, with the list of what failed (PS3.4 C.4.2.1.4.2)."""
    response = {
        **commands.response(message.command, status.code, status.comment),
        **progress.counters(remaining=status.code == CANCEL),
    }
    data: bytes | None = None
    if progress.failed_instances:
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = progress.failed_instances
        data = encode_identifier(failed, message.context.transfer_syntax)
    session.association.send(message.context, response, data)
