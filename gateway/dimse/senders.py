"""Send instances as C-STORE sub-operations: to a move destination, or back over a C-GET's own association."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from gateway.config import Peer
from gateway.dimse import commands
from gateway.dimse.association import Association, Context
from gateway.dimse.commands import number
from gateway.dimse.fetch import Fetched
from gateway.dimse.negotiation import EXPLICIT_LE, IMPLICIT_LE
from gateway.dimse.scu import MOST_CONTEXTS, associate
from gateway.dimse.session import Session
from gateway.errors import Cancelled, DestinationError, PeerError, TranscodingError
from gateway.translate.transcode import accepts, convert

log = structlog.get_logger("gateway.dimse")

_Contexts = Mapping[str, Context]  # transfer syntax -> context, for one SOP class


class Sender(Protocol):
    """Send fetched instances one after the other."""

    def expect(self, sop_classes: set[str]) -> None:
        """Learn which SOP classes will be sent."""

    def send(self, fetched: Fetched) -> int:
        """Send an instance and give its C-STORE status; raises GatewayError when it cannot be sent."""

    def close(self) -> None:
        """End what was opened for sending."""


class OverThisAssociation:
    """Send over the association of a C-GET, in contexts whose SCP role the peer took (PS3.4 C.4.3)."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def expect(self, sop_classes: set[str]) -> None:
        """Take note of nothing: the contexts are negotiated already."""

    def send(self, fetched: Fetched) -> int:
        """Send an instance and give its C-STORE status."""
        association = self._session.association
        return _store(self._session, association, _contexts(association, fetched), fetched, {})

    def close(self) -> None:
        """Leave the association to its owner."""


class OverDestination:
    """Send over an association of our own with a move destination; a dropped one is opened again once."""

    def __init__(self, session: Session, title: str, peer: Peer, message_id: int) -> None:
        self._session = session
        self._title = title
        self._peer = peer
        self._originator: dict[str, int | str] = {
            "MoveOriginatorApplicationEntityTitle": session.calling,
            "MoveOriginatorMessageID": message_id,
        }
        self._classes: set[str] = set()
        self._proposed: list[tuple[str, str]] = []
        self._association: Association | None = None

    def expect(self, sop_classes: set[str]) -> None:
        """Learn which SOP classes will be sent, so that one association serves them all."""
        self._classes = sop_classes

    def send(self, fetched: Fetched) -> int:
        """Send an instance and give its C-STORE status; raises DestinationUnreachable without association."""
        for _ in range(2):
            try:
                association = self._with_context_for(fetched)
                return _store(self._session, association, _contexts(association, fetched), fetched, self._originator)
            except PeerError as error:
                self._drop()
                log.warning("destination dropped the association", destination=self._title, reason=str(error))
            except Cancelled:
                self._drop()
                raise
        raise DestinationError(self._title, "dropped the association twice on this instance")

    def close(self) -> None:
        """Release the association."""
        if self._association is not None:
            with contextlib.suppress(PeerError):  # all was answered; how it says good-bye is its affair
                self._association.release(self._session.config.listen.network_timeout)
            self._association = None

    def _with_context_for(self, fetched: Fetched) -> Association:
        """Give an association on which the instance's class and stored syntax were proposed."""
        if fetched.meta is None:
            raise TranscodingError("there is no file to send")
        needed = (fetched.meta.sop_class, fetched.meta.transfer_syntax)
        if self._association is not None and needed in self._proposed:
            return self._association
        self.close()
        wanted = [
            needed,
            *((uid, syntax) for uid in sorted(self._classes | {needed[0]}) for syntax in _FALLBACK),
        ]
        wanted += self._proposed
        wanted += [(uid, needed[1]) for uid in sorted(self._classes)]
        self._proposed = list(dict.fromkeys(wanted))[:MOST_CONTEXTS]
        self._association = associate(
            self._title,
            self._peer,
            calling=self._session.called,
            proposals=self._proposed,
            timeout=self._session.config.listen.network_timeout,
        )
        return self._association

    def _drop(self) -> None:
        if self._association is not None:
            self._association.abort()
            self._association = None


_FALLBACK = (EXPLICIT_LE, IMPLICIT_LE)


def _contexts(association: Association, fetched: Fetched) -> _Contexts:
    """Find the contexts for an instance's SOP class in which we may be the SCU."""
    sop_class = fetched.meta.sop_class if fetched.meta else ""
    return {
        context.transfer_syntax: context
        for context in association.contexts.values()
        if context.abstract_syntax == sop_class and context.peer_is_scp
    }


def _store(
    session: Session,
    association: Association,
    contexts: _Contexts,
    fetched: Fetched,
    originator: Mapping[str, int | str],
) -> int:
    """Do one C-STORE sub-operation, converting only when the peer takes no context with the stored syntax."""
    if fetched.path is None or fetched.meta is None:
        raise TranscodingError("there is no file to send")
    stored = fetched.meta.transfer_syntax
    chosen = accepts(stored, list(contexts))
    if chosen is None:
        raise TranscodingError(
            f"stored as {stored}; the peer accepted {', '.join(contexts) or 'no context of its SOP class'}"
        )
    message_id = association.next_message_id()
    command: dict[str, int | str] = {
        "CommandField": commands.C_STORE_RQ,
        "MessageID": message_id,
        "AffectedSOPClassUID": fetched.meta.sop_class,
        "AffectedSOPInstanceUID": fetched.target.sop_instance,
        "Priority": 0,
        **originator,
    }
    if chosen == stored:
        _send_file(association, contexts[chosen], command, fetched.path, fetched.meta.offset)
    else:
        converted = session.outbox.scratch()
        try:
            with fetched.path.open("rb") as source, converted.open("xb") as target:
                source.seek(fetched.meta.offset)
                convert(source, stored, target, chosen)
            _send_file(association, contexts[chosen], command, converted, 0)
        finally:
            converted.unlink(missing_ok=True)

    def attentive() -> None:
        if association is session.association:
            return
        try:
            if session.association.cancelled():
                raise Cancelled("the peer cancelled the operation")
        except PeerError as error:  # not the destination's: nothing is to be tried again
            raise Cancelled("the peer that asked went away") from error

    timeout = session.config.listen.network_timeout
    return number(association.response_to(message_id, timeout, attentive).command, "Status")


def _send_file(
    association: Association, context: Context, command: Mapping[str, int | str], path: Path, offset: int
) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        association.send_stream(context, command, file, path.stat().st_size - offset)
