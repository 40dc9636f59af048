"""Answer C-ECHO, and ask for it (PS3.7 9.1.5)."""

import contextlib

from gateway.config import Peer
from gateway.dimse import commands
from gateway.dimse.association import Message
from gateway.dimse.negotiation import EXPLICIT_LE, IMPLICIT_LE, VERIFICATION
from gateway.dimse.scu import associate
from gateway.dimse.session import Session, operation
from gateway.errors import DestinationError, PeerError
from gateway.status import SUCCESS


def answer(session: Session, message: Message) -> None:
    """Answer a verification request with success; the archive's state is not part of it."""
    with operation(session, "C-ECHO") as report:
        session.association.send(message.context, commands.response(message.command, SUCCESS))
        report.note(status=SUCCESS)


def ask(title: str, peer: Peer, *, calling: str, timeout: float) -> None:
    """Have a peer verify that it is there; `timeout` in seconds for each step. Raises DestinationError."""
    proposals = [(VERIFICATION, IMPLICIT_LE), (VERIFICATION, EXPLICIT_LE)]
    association = associate(title, peer, calling=calling, proposals=proposals, timeout=timeout)
    try:
        context = next(iter(association.contexts.values()), None)
        if context is None:
            raise DestinationError(title, "takes associations but not for C-ECHO")
        identifier = association.next_message_id()
        request: dict[str, int | str] = {
            "CommandField": commands.C_ECHO_RQ,
            "MessageID": identifier,
            "AffectedSOPClassUID": VERIFICATION,
        }
        association.send(context, request)
        response = association.response_to(identifier, timeout, lambda: None)
        if (status := commands.status(response.command)) != SUCCESS:
            raise DestinationError(title, f"answers C-ECHO with status {status:04X}H")
    except PeerError as error:
        raise DestinationError(title, str(error)) from error
    finally:
        with contextlib.suppress(PeerError):  # it answered; how it says good-bye is its affair
            association.release(timeout)
