"""Answer N-ACTION of the Storage Commitment Push Model (PS3.4 J.3.2); its report follows when it is judged."""

import structlog

from gateway.commitment import SOP_CLASS, read_request
from gateway.dimse import commands
from gateway.dimse.association import Message
from gateway.dimse.commands import number, text
from gateway.dimse.pdu import UNEXPECTED_PDU, PduError
from gateway.dimse.session import Session, operation
from gateway.errors import CommitmentRefused, GatewayError
from gateway.status import SUCCESS, UNRECOGNIZED_OPERATION, Service, status_of

log = structlog.get_logger("gateway.dimse")


def answer(session: Session, message: Message) -> None:
    """Answer a request for storage commitment: success says that the transaction will survive a restart."""
    command = message.command
    with operation(session, "N-ACTION") as report:
        try:
            if message.context.abstract_syntax != SOP_CLASS:
                raise CommitmentRefused(UNRECOGNIZED_OPERATION, "the context is not for storage commitment")
            request = read_request(
                sop_class=text(command, "RequestedSOPClassUID"),
                sop_instance=text(command, "RequestedSOPInstanceUID"),
                action_type=number(command, "ActionTypeID"),
                data=message.data,
                transfer_syntax=message.context.transfer_syntax,
            )
            report.note(transaction=request.transaction, instances=len(request.references))
            session.reports.add(
                request,
                message.context,
                calling=session.calling,
                called=session.called,
                archive=session.archive.name,
            )
            status, comment = SUCCESS, ""
        except GatewayError as error:
            refusal = status_of(error, Service.COMMIT)
            status, comment = refusal.code, refusal.comment
            report.note(reason=str(error))
        report.note(status=status)
        session.association.send(message.context, commands.response(command, status, comment))


def responded(session: Session, message: Message) -> None:
    """Take the response to a report of ours; raises PduError when none is due."""
    try:
        due = session.reports.responded(message)
    except GatewayError as error:  # the register's: the report will be sent again
        log.error("commitment interrupted", reason=str(error))
        return
    if not due:
        raise PduError("a response arrived that nobody waits for", UNEXPECTED_PDU)
