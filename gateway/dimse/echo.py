"""Answer C-ECHO (PS3.7 9.1.5)."""

from gateway.dimse import commands
from gateway.dimse.association import Message
from gateway.dimse.session import Session, operation
from gateway.status import SUCCESS


def answer(session: Session, message: Message) -> None:
    """Answer a verification request with success; the archive's state is not part of it."""
    with operation(session, "C-ECHO") as report:
        session.association.send(message.context, commands.response(message.command, SUCCESS))
        report.note(status=SUCCESS)
