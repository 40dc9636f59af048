"""Listen for peers: one thread per connection, from the association request to its end."""

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import structlog

from gateway.config import Config, ServerTls
from gateway.dicomweb.client import Client
from gateway.dimse import commands, echo, find, retrieve, store
from gateway.dimse.association import Association, Message, PeerAborted
from gateway.dimse.commands import number
from gateway.dimse.negotiation import CONGESTION, LOCAL_LIMIT, Acceptance, Rejection, accept, reject_reason
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
from gateway.dimse.session import Handler, Session
from gateway.dimse.upper_layer import Connection, TimeIsUp
from gateway.errors import PeerError
from gateway.status import PROCESSING_FAILURE, UNRECOGNIZED_OPERATION

log = structlog.get_logger("gateway.dimse")

_HANDLERS: Mapping[int, Handler] = {
    commands.C_ECHO_RQ: echo.answer,
    commands.C_STORE_RQ: store.answer,
    commands.C_FIND_RQ: find.answer,
    commands.C_MOVE_RQ: retrieve.answer,
    commands.C_GET_RQ: retrieve.answer,
}
# Connections beyond the associations allowed, so that each of them can be told why it is rejected
_SPARE_CONNECTIONS = 64
_LINGER = 2.0  # seconds for a peer to close after our last PDU


class Scp:
    """Accept associations on one port; use as a context manager, leaving it stops gracefully.

    `archives` maps a called AE title to its archive's client; `incoming` is the folder for instances under way.
    """

    def __init__(self, config: Config, archives: Mapping[str, Client], incoming: Path) -> None:
        self._config = config
        self._archives = archives
        self._incoming = incoming
        self._tls = _server_context(config.listen.tls) if config.listen.tls else None
        self._socket: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._associations: dict[Association, str] = {}
        self._stopping = False

    def __enter__(self) -> Self:
        listen = self._config.listen
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        self._socket = socket.create_server((listen.host, listen.port), family=family, backlog=256)
        self._acceptor = threading.Thread(target=self._accept, name="acceptor", daemon=True)
        self._acceptor.start()
        return self

    @property
    def port(self) -> int:
        """Give the TCP port that is listened on."""
        if self._socket is None:
            raise RuntimeError("not started")
        return int(self._socket.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        """Take no new connection, let running operations end within the grace time, then abort what is left."""
        self._stopping = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the acceptor may have closed it
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        with self._lock:
            associations = list(self._associations)
        for association in associations:
            association.stop()
        deadline = time.monotonic() + self._config.listen.grace
        for thread in self._running():
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = list(self._associations)
        for association in left:
            log.warning("association cut at stop", reason="still running after the grace time")
            association.connection.sever()
        for thread in self._running():
            thread.join(_LINGER)

    def _running(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._threads)

    def _accept(self) -> None:
        listener = self._socket
        while listener is not None and not self._stopping:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if not self._stopping:
                    log.error("cannot accept a connection", problem=str(error))
                    time.sleep(0.1)  # out of descriptors: let some be closed
                continue
            if len(self._running()) >= self._config.listen.max_associations + _SPARE_CONNECTIONS:
                sock.close()
                continue
            thread = threading.Thread(target=self._serve, args=(sock, str(address[0])), daemon=True)
            with self._lock:  # together: a thread that is not started yet cannot be joined by `__exit__`
                self._threads.add(thread)
                thread.start()

    def _serve(self, sock: socket.socket, address: str) -> None:
        try:
            listen = self._config.listen
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection = Connection(sock, max_pdu=listen.max_pdu, timeout=listen.network_timeout)
            try:
                self._associate(connection, address)
            finally:
                connection.close()
        except PeerError as error:
            log.info("connection ended", address=address, reason=str(error))
        except OSError as error:
            log.warning("connection ended", address=address, reason=f"{type(error).__name__}: {error.strerror}")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _associate(self, connection: Connection, address: str) -> None:
        deadline = time.monotonic() + self._config.listen.negotiation_timeout
        connection.handshake(deadline)
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
            return
        rejection = reject_reason(request, self._config, address)
        if rejection is None:
            acceptance = accept(request, self._config)
            association = self._association(connection, request, acceptance)
            rejection = self._admit(association, request.calling)
        if rejection is not None:
            self._reject(connection, request, rejection, address)
            return
        try:
            connection.send((encode_accept(request, acceptance.results, acceptance.user),))
            self._run(self._session(association, request, acceptance, address))
        finally:
            with self._lock:
                self._associations.pop(association, None)

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
            archive=self._archives[request.called],
            max_scanned=self._max_scanned(request.called),
            incoming=self._incoming,
            negotiated=acceptance.negotiated,
        )
        collect = association.sink_for
        association.sink_for = lambda message: (
            store.receiver(session, message)
            if number(message.command, "CommandField") == commands.C_STORE_RQ
            else collect(message)
        )
        return session

    def _max_scanned(self, called: str) -> int:
        archive = self._config.archives.get(self._config.ae_titles[called].archive)
        return archive.max_scanned if archive is not None else self._config.embedded.max_scanned

    def _admit(self, association: Association, calling: str) -> Rejection | None:
        """Count the association in, or say which limit is reached (transient: the peer may try again)."""
        listen = self._config.listen
        with self._lock:
            if self._stopping:
                return Rejection(*CONGESTION, "the gateway is stopping")
            if len(self._associations) >= listen.max_associations:
                return Rejection(*LOCAL_LIMIT, "listen.max_associations is reached")
            if Counter(self._associations.values())[calling] >= listen.max_associations_per_peer:
                return Rejection(*LOCAL_LIMIT, "listen.max_associations_per_peer is reached")
            self._associations[association] = calling
        return None

    def _reject(self, connection: Connection, request: AssociateRequest, rejection: Rejection, address: str) -> None:
        connection.send((encode_reject(rejection.result, rejection.source, rejection.reason),))
        connection.drain(time.monotonic() + _LINGER)
        log.warning(
            "association rejected",
            calling=request.calling,
            called=request.called,
            address=address,
            reason=rejection.words,
        )

    def _run(self, session: Session) -> None:
        association = session.association
        try:
            for message in association.requests(self._config.listen.idle_timeout):
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
            store.abandon(association.unfinished)

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
        _guarded(handler, session, message)
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
        log.exception("fault in the gateway", calling=session.calling, called=session.called)
        answer = commands.response(message.command, PROCESSING_FAILURE, "the gateway has failed; see its log")
        session.association.send(message.context, answer)


def _server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make the server's TLS context: TLS 1.2 and 1.3, forward secrecy only (PS3.15 B.9, BCP 195)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM")
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
