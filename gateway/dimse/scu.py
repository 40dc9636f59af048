"""Call a peer: open an association as its requestor and send it instances (PS3.4 Annex B, SCU)."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.config import Peer
from gateway.dimse import commands
from gateway.dimse.association import Association, Context
from gateway.dimse.negotiation import VERIFICATION
from gateway.dimse.pdu import (
    ABORT,
    ACCEPTED,
    APPLICATION_CONTEXT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    AssociateRequest,
    ProposedContext,
    UserInformation,
    decode_accept,
    encode_request,
)
from gateway.dimse.tls import client_context
from gateway.dimse.upper_layer import Connection
from gateway.errors import DestinationUnreachable, PeerError
from gateway.status import SUCCESS
from gateway.translate.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_CONNECT = 10.0  # seconds
_MAX_PDU = 131_072
_MAX_DATA_SET = 1 << 20


class AssociationRefused(DestinationUnreachable):
    """Report that the peer answered the association request with a rejection or an abort."""


def associate(
    title: str,
    peer: Peer,
    *,
    calling: str,
    proposals: Sequence[tuple[str, str]],
    timeout: float,
    roles: Mapping[str, tuple[bool, bool]] = MappingProxyType({}),
    connected: Callable[[Connection], None] = lambda _: None,
) -> Association:
    """Open an association with `peer`, one presentation context for each (SOP class, transfer syntax).

    At most 128 proposals; `timeout` in seconds for each step. `roles` are what we want to be (SCU, SCP) per SOP
    class where that is not SCU (PS3.7 D.3.3.4): a context is for requests of ours unless the peer refuses them.
    `connected` gets the connection as soon as there is one. Raises DestinationUnreachable.
    """
    offered = tuple(ProposedContext(2 * number + 1, uid, (syntax,)) for number, (uid, syntax) in enumerate(proposals))
    request = AssociateRequest(
        called=title,
        calling=calling,
        protocol_version=1,
        application_context=APPLICATION_CONTEXT,
        contexts=offered,
        user=UserInformation(
            max_length=_MAX_PDU,
            implementation_class=IMPLEMENTATION_CLASS_UID,
            implementation_version=IMPLEMENTATION_VERSION_NAME,
            roles=roles,
        ),
    )
    connection = _connect(title, peer, timeout)
    try:
        connected(connection)
        connection.handshake(time.monotonic() + timeout)
        connection.send((encode_request(request),))
        kind, body = connection.next_pdu(time.monotonic() + timeout, whole=True)
        if kind != ASSOCIATE_AC:
            raise AssociationRefused(title, _refusal(kind, bytes(body)))
        answer = decode_accept(bytes(body))
    except PeerError as error:
        connection.close()
        raise DestinationUnreachable(title, str(error)) from error
    except DestinationUnreachable:
        connection.close()
        raise
    by_identifier = {context.identifier: context for context in offered}
    # an old peer that answers nothing still takes what it listens for; one that answers otherwise has said no
    refused = {uid for uid, role in roles.items() if answer.user.roles.get(uid, role) != role}
    contexts = {
        result.identifier: Context(
            result.identifier,
            by_identifier[result.identifier].abstract_syntax,
            result.transfer_syntax,
            peer_is_scp=by_identifier[result.identifier].abstract_syntax not in refused,
        )
        for result in answer.contexts
        if result.result == ACCEPTED and result.identifier in by_identifier
    }
    return Association(
        connection,
        contexts,
        peer_max_pdu=answer.user.max_length,
        network_timeout=timeout,
        max_identifier=_MAX_DATA_SET,
    )


def echo(title: str, peer: Peer, *, calling: str, timeout: float) -> None:
    """Send C-ECHO to `peer`; raises DestinationUnreachable unless the answer is success (PS3.7 9.1.5)."""
    proposals = [(VERIFICATION, ExplicitVRLittleEndian), (VERIFICATION, ImplicitVRLittleEndian)]
    association = associate(title, peer, calling=calling, proposals=proposals, timeout=timeout)
    try:
        context = next(iter(association.contexts.values()), None)
        if context is None:
            raise DestinationUnreachable(title, "does not take C-ECHO")
        number = association.next_message_id()
        request: dict[str, int | str] = {
            "AffectedSOPClassUID": VERIFICATION,
            "CommandField": commands.C_ECHO_RQ,
            "MessageID": number,
        }
        association.send(context, request)
        status = commands.status(association.response_to(number, timeout).command)
        association.release(timeout)
    except PeerError as error:
        raise DestinationUnreachable(title, str(error)) from error
    finally:
        association.connection.close()
    if status != SUCCESS:
        raise DestinationUnreachable(title, f"answers C-ECHO with status {status:04X}H")


def _connect(title: str, peer: Peer, timeout: float) -> Connection:
    try:
        sock = socket.create_connection((peer.host, peer.port), _CONNECT)
        if peer.tls is not None:
            sock = client_context(peer.tls).wrap_socket(
                sock, server_hostname=peer.tls.server_name or peer.host, do_handshake_on_connect=False
            )
    except OSError as error:
        raise DestinationUnreachable(title, f"cannot be connected: {error.strerror or error}") from error
    return Connection(sock, max_pdu=_MAX_PDU, timeout=timeout)


def _refusal(kind: int, body: bytes) -> str:
    if kind == ASSOCIATE_RJ:
        return f"rejected the association: result {body[1]}, source {body[2]}, reason {body[3]}"
    if kind == ABORT:
        return "aborted the association request"
    return f"answered the association request with a PDU of type {kind:02X}H"
