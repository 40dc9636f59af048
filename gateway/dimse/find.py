"""Answer C-FIND (PS3.4 C.4.1): identifier -> search -> pages -> matching here -> pending responses."""

from pydicom.dataset import Dataset

from gateway.config import Peer
from gateway.dimse import commands
from gateway.dimse.ahead import Ahead
from gateway.dimse.association import Context, Message
from gateway.dimse.merge import merged
from gateway.dimse.negotiation import FIND_MODELS
from gateway.dimse.scan import Scan
from gateway.dimse.session import Report, Session, operation
from gateway.errors import Cancelled, GatewayError, PeerError
from gateway.status import (
    PENDING,
    PENDING_WITH_UNSUPPORTED_KEYS,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    Service,
    Status,
    status_of,
)
from gateway.translate import charset
from gateway.translate.identifier import decode_identifier
from gateway.translate.responses import Responder
from gateway.translate.search import plan

_AT_A_TIME = 32_768  # bytes of responses


def answer(session: Session, message: Message) -> None:
    """Answer a C-FIND request with a pending response for each match and a final one."""
    with operation(session, "C-FIND") as report:
        try:
            status = _find(session, message, report)
        except PeerError:
            raise  # nobody is left to answer
        except Cancelled as error:
            status = status_of(error, Service.FIND)
        except GatewayError as error:
            status = status_of(error, Service.FIND)
            report.note(reason=str(error))
        report.note(status=status.code)
        session.account.queried(message, status.code)
        session.association.send(message.context, commands.response(message.command, status.code, status.comment))


def _find(session: Session, message: Message, report: Report) -> Status:
    context = message.context
    if context.abstract_syntax not in FIND_MODELS:
        return Status(SOP_CLASS_NOT_SUPPORTED, "the context is not for queries")
    identifier = decode_identifier(message.data, context.transfer_syntax, default_charset=session.peer.character_set)
    search = plan(
        identifier,
        FIND_MODELS[context.abstract_syntax],
        session.archive.profile,
        session.negotiated_for(message),
        default_level=session.peer.default_level or "",
        lenient=session.peer.lenient,
    )
    pending = PENDING_WITH_UNSUPPORTED_KEYS if search.unsupported_keys else PENDING
    command = commands.encode(
        {
            **commands.response(message.command, pending),
            "CommandDataSetType": commands.DATA_SET_PRESENT,
        }
    )
    responder = Responder(
        search,
        retrieve_aet=session.called,
        transfer_syntax=context.transfer_syntax,
        terms=answer_terms(session.peer, identifier),
    )
    rejecting = session.route.rejecting
    sift = rejecting.sifted if rejecting is not None else None
    scan = Scan(session.archive, search, session.route.max_scanned, sift=sift)
    responses = _Responses(session, context, command)
    backlog = session.backlog(search)
    report.note(level=search.level)
    try:
        with Ahead(session.association, merged(scan, backlog)) as pages:
            for page in pages:
                for match in page:
                    responses.add(responder.encode(match))
                responses.flush()
    finally:
        report.note(matches=responses.sent, scanned=scan.entries)
        if backlog.looked_at:
            report.note(waiting=backlog.looked_at)
        if lost := scan.malformed + responder.malformed:
            report.note(malformed=lost)
    return Status(SUCCESS, "")


class _Responses:
    """Send pending responses, some of them at a time, and look for a C-CANCEL in between."""

    def __init__(self, session: Session, context: Context, command: bytes) -> None:
        self.sent = 0
        self._association = session.association
        self._context = context
        self._command = session.association.pdus(context, command, command=True)
        self._waiting: list[bytes] = []
        self._size = 0
        self._enough = 0  # the first one goes at once

    def add(self, identifier: bytes) -> None:
        """Take the identifier of one response; raises Cancelled."""
        data = self._association.pdus(self._context, identifier, command=False)
        self._waiting.append(self._command + data)
        self._size += len(data)
        if self._size >= self._enough:
            self.flush()
            self._enough = _AT_A_TIME

    def flush(self) -> None:
        """Send what is waiting; raises Cancelled."""
        self._association.connection.send((b"".join(self._waiting),))
        self.sent += len(self._waiting)
        self._waiting, self._size = [], 0
        if self._association.cancelled():
            raise Cancelled("the peer cancelled the query")


def answer_terms(peer: Peer, identifier: Dataset) -> tuple[str, ...]:
    """Give the defined terms in which a peer wants its answers; none are ASCII alone."""
    wanted = peer.answer_character_set
    if wanted == "request":
        declared = charset.terms_of(identifier)
        if any(declared):
            return declared
        wanted = peer.character_set
    return tuple(wanted.split("\\")) if wanted else ()
