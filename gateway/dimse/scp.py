"""Listen for peers: one thread per connection, from the association request to its end."""

import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Self

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, reset_contextvars

from gateway.commitment import Register
from gateway.config import Config
from gateway.dimse import commands, commit, echo, find, retrieve, store
from gateway.dimse.acceptor import Acceptor
from gateway.dimse.association import Association, Message, PeerAborted
from gateway.dimse.auditing import Auditor
from gateway.dimse.census import Census
from gateway.dimse.commands import number
from gateway.dimse.negotiation import (
    CONGESTION,
    LOCAL_LIMIT,
    Acceptance,
    Rejection,
    accept,
    is_for_storage,
    reject_reason,
)
from gateway.dimse.pdu import (
    ABORT,
    ASSOCIATE_RQ,
    BY_USER,
    UNEXPECTED_PDU,
    AssociateRequest,
    PduError,
    decode_request,
    encode_abort,
    encode_accept,
    encode_reject,
)
from gateway.dimse.ports import Ports
from gateway.dimse.records import Records
from gateway.dimse.reports import Reports
from gateway.dimse.session import Handler, Route, Session
from gateway.dimse.shares import Shares
from gateway.dimse.tls import Certificates, names_of
from gateway.dimse.upper_layer import Connection, TimeIsUp
from gateway.errors import GatewayError, PeerError
from gateway.outbox import Outbox
from gateway.status import PROCESSING_FAILURE, UNRECOGNIZED_OPERATION

log = structlog.get_logger("gateway.dimse")

_HANDLERS: Mapping[int, Handler] = {
    commands.C_ECHO_RQ: echo.answer,
    commands.C_STORE_RQ: store.answer,
    commands.C_FIND_RQ: find.answer,
    commands.C_MOVE_RQ: retrieve.answer,
    commands.C_GET_RQ: retrieve.answer,
    commands.N_ACTION_RQ: commit.answer,
    commands.N_EVENT_REPORT_RSP: commit.responded,
}
# Connections beyond the associations allowed, so that each of them can be told why it is rejected
_SPARE_CONNECTIONS = 64
_LINGER = 2.0  # seconds for a peer to close after our last PDU


class Scp:
    """Accept associations on a port; use as a context manager, leaving it stops gracefully.

    `routes` maps a called AE title to what it stands for. Other processes may accept on the same `ports`; these are
    closed at the end, but for them.
    """

    def __init__(
        self,
        config: Config,
        routes: Mapping[str, Route],
        outbox: Outbox,
        register: Register,
        census: Census,
        ports: Ports,
        records: Records,
    ) -> None:
        self._config = config
        self._routes = routes
        self._outbox = outbox
        self._register = register
        self._census = census
        self._shares = Shares(config)
        self._records = records
        self._auditor = Auditor(records.trail, config)
        self._tls = Certificates(config.listen.tls) if config.listen.tls else None
        self._acceptor = Acceptor(
            ports,
            self._serve,
            records.listening,
            most=config.listen.max_associations + _SPARE_CONNECTIONS,
            most_strangers=config.listen.max_associations_per_peer,
        )
        self._lock = threading.Lock()
        self._associations: set[Association] = set()
        self._stopping = False

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no new connection, let running operations end within the grace time, then abort what is left."""
        self._stopping = True
        self._acceptor.stop()
        with self._lock:
            associations = list(self._associations)
        for association in associations:
            association.stop()
        deadline = time.monotonic() + self._config.listen.grace
        for thread in self._acceptor.running():
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = list(self._associations)
        for association in left:
            log.warning("association cut at stop", reason="still running after the grace time")
            association.connection.sever()
        for thread in self._acceptor.running():
            thread.join(_LINGER)
        self._acceptor.close()

    def drain(self, stop: int) -> None:
        """Take no new connection and wait until those that are here have ended, or `stop` can be read."""
        self._acceptor.stop()
        self._acceptor.wait_idle(stop)

    def _serve(self, sock: socket.socket, address: str, secured: bool) -> None:  # noqa: FBT001 - by the acceptor
        try:
            listen = self._config.listen
            if secured and self._tls is not None:
                sock = self._tls.context().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = Connection(sock, max_pdu=listen.max_pdu, timeout=listen.network_timeout)
            try:
                deadline = time.monotonic() + listen.negotiation_timeout
                self._shake_hands(connection, address, deadline)
                self._associate(connection, address, names_of(sock), deadline)
            finally:
                connection.close()
        except PeerError as error:
            log.info("connection ended", address=address, reason=str(error))
        except OSError as error:
            log.warning("connection ended", address=address, reason=f"{type(error).__name__}: {error.strerror}")

    def _shake_hands(self, connection: Connection, address: str, deadline: float) -> None:
        try:
            connection.handshake(deadline)
        except PeerError as error:
            self._auditor.alert(address, str(error))
            self._records.stranger(address, str(error))
            raise

    def _associate(self, connection: Connection, address: str, names: frozenset[str], deadline: float) -> None:
        try:
            kind, body = connection.next_pdu(deadline, whole=True)
            if kind == ABORT:
                return
            if kind != ASSOCIATE_RQ:
                raise PduError("the first PDU is not an association request", UNEXPECTED_PDU)
            request = decode_request(bytes(body))
        except PduError as error:
            connection.send((encode_abort(BY_USER),))  # PS3.8 action AA-1
            connection.drain(time.monotonic() + _LINGER)
            log.warning("association request unreadable", address=address, reason=str(error))
            self._records.stranger(address, str(error))
            return
        rejection = reject_reason(request, self._config, address, names)
        if rejection is None:
            acceptance = accept(request, self._config)
            rejection = self._no_room(request, acceptance)
        if rejection is None:
            place = self._census.enter(request.calling, self._config.listen.max_associations_per_peer)
            if isinstance(place, int):
                self._hold(connection, request, acceptance, address, place)
                return
            rejection = Rejection(*LOCAL_LIMIT, place)
        self._reject(connection, request, rejection, address)

    def _hold(
        self, connection: Connection, request: AssociateRequest, acceptance: Acceptance, address: str, place: int
    ) -> None:
        association = self._association(connection, request, acceptance)
        try:
            self._acceptor.introduce()
            with self._lock:
                self._associations.add(association)
            if self._stopping:
                association.stop()
            connection.send((encode_accept(request, acceptance.results, acceptance.user),))
            session = self._session(association, request, acceptance, address)
            # every line that this thread logs from here on names the association, and within an operation that one
            with bound_contextvars(request=session.correlation), self._records.association(request.calling, address):
                self._run(session)
        finally:
            self._census.leave(place)
            with self._lock:
                self._associations.discard(association)

    def _association(self, connection: Connection, request: AssociateRequest, acceptance: Acceptance) -> Association:
        listen = self._config.listen
        return Association(
            connection,
            acceptance.contexts,
            peer_max_pdu=request.user.max_length,
            network_timeout=listen.network_timeout,
            max_identifier=listen.max_identifier,
        )

    def _session(
        self, association: Association, request: AssociateRequest, acceptance: Acceptance, address: str
    ) -> Session:
        session = Session(
            association=association,
            config=self._config,
            calling=request.calling,
            called=request.called,
            address=address,
            peer=acceptance.peer,
            route=self._routes[request.called],
            outbox=self._outbox,
            negotiated=acceptance.negotiated,
            reports=Reports(association, self._register, timeout=self._config.listen.network_timeout),
            shares=self._shares,
            records=self._records,
            name=secrets.token_hex(4),
            account=self._auditor.association(request.calling, request.called, address),
        )
        collect = association.sink_for
        association.sink_for = lambda message: (
            store.receiver(session, message)
            if number(message.command, "CommandField") == commands.C_STORE_RQ
            else collect(message)
        )
        return session

    def _no_room(self, request: AssociateRequest, acceptance: Acceptance) -> Rejection | None:
        """Turn away who only wants to store while the spool takes no more (transient: the peer may try again)."""
        if self._stopping:
            return Rejection(*CONGESTION, "the gateway is stopping")
        if is_for_storage(acceptance.contexts.values()):
            try:
                self._outbox.check_room(request.calling)
            except GatewayError as error:
                return Rejection(*CONGESTION, str(error))
        return None

    def _reject(self, connection: Connection, request: AssociateRequest, rejection: Rejection, address: str) -> None:
        connection.send((encode_reject(rejection.result, rejection.source, rejection.reason),))
        connection.drain(time.monotonic() + _LINGER)
        self._auditor.alert(address, f"association rejected: {rejection.words}", calling=request.calling)
        log.warning(
            "association rejected",
            calling=request.calling,
            called=request.called,
            address=address,
            reason=rejection.words,
        )
        self._records.rejection(request.calling, request.called, address, rejection)

    def _run(self, session: Session) -> None:
        association = session.association
        try:
            for message in association.requests(self._config.listen.idle_timeout, session.reports.quiet):
                _dispatch(session, message)
            if association.stopped:
                association.abort()
            else:
                association.connection.drain(time.monotonic() + _LINGER)
        except PduError as error:
            association.abort(reason=error.reason)
            self._log_end(session, error)
        except TimeIsUp as error:
            association.abort(reason=0)
            self._log_end(session, error)
        except PeerError as error:
            if not isinstance(error, PeerAborted):
                association.connection.close()
            self._log_end(session, error)
        finally:
            for sink in association.unfinished:
                store.abandon(sink)
            session.reports.close()
            session.account.close()

    @staticmethod
    def _log_end(session: Session, error: PeerError) -> None:
        log.warning(
            "association ended",
            calling=session.calling,
            called=session.called,
            address=session.address,
            reason=str(error),
        )


def _dispatch(session: Session, message: Message) -> None:
    field = number(message.command, "CommandField")
    handler = _HANDLERS.get(field)
    if handler is not None:
        before = bind_contextvars(request=session.correlation)
        try:
            _guarded(handler, session, message)
        finally:
            reset_contextvars(**before)
    elif field & 0x8000:
        raise PduError("a response arrived that nobody waits for", UNEXPECTED_PDU)
    else:
        answer = commands.response(message.command, UNRECOGNIZED_OPERATION, "operation is not offered")
        session.association.send(message.context, answer)


def _guarded(handler: Handler, session: Session, message: Message) -> None:
    """Run a handler; a fault of our own costs its operation a failure status, not the peer its association."""
    try:
        handler(session, message)
    except PeerError:
        raise
    except Exception:
        log.exception(
            "fault in the gateway", request=session.correlation, calling=session.calling, called=session.called
        )
        answer = commands.response(message.command, PROCESSING_FAILURE, "the gateway has failed; see its log")
        session.association.send(message.context, answer)
