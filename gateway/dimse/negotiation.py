"""Decide on an association request, from it and the policy to an answer (PS3.7 Annex D, PS3.8 9.3)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pydicom.config import IGNORE
from pydicom.uid import UID
from pynetdicom import sop_class
from pynetdicom.presentation import AllStoragePresentationContexts

from gateway.commitment import SOP_CLASS as STORAGE_COMMITMENT
from gateway.config import Config, Peer
from gateway.dimse.association import Context
from gateway.dimse.pdu import (
    ABSTRACT_SYNTAX_UNKNOWN,
    ACCEPTED,
    APPLICATION_CONTEXT,
    TRANSFER_SYNTAXES_UNKNOWN,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    UserInformation,
)
from gateway.translate.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.translate.search import Model, Negotiated

VERIFICATION = "1.2.840.10008.1.1"
# PS3.4 C.6: each model's FIND, MOVE and GET SOP classes differ in their last component
_MODELS = {
    "1.2.840.10008.5.1.4.1.2.1": Model.PATIENT_ROOT,
    "1.2.840.10008.5.1.4.1.2.2": Model.STUDY_ROOT,
    "1.2.840.10008.5.1.4.1.2.3": Model.PATIENT_STUDY_ONLY,
}
FIND_MODELS: Mapping[str, Model] = {f"{root}.1": model for root, model in _MODELS.items()}
MOVE_MODELS: Mapping[str, Model] = {f"{root}.2": model for root, model in _MODELS.items()}
GET_MODELS: Mapping[str, Model] = {f"{root}.3": model for root, model in _MODELS.items()}
# PS3.4 Annexes Y and Z: SOP Instance UID alone names what is wanted
COMPOSITE_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"
COMPOSITE_GET = "1.2.840.10008.5.1.4.1.2.4.3"
WITHOUT_BULK_GET = "1.2.840.10008.5.1.4.1.2.5.3"
MOVES = frozenset((*MOVE_MODELS, COMPOSITE_MOVE))
GETS = frozenset((*GET_MODELS, COMPOSITE_GET, WITHOUT_BULK_GET))

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
# Explicit VR first: the acceptor's order wins, and Implicit VR would make senders drop VRs of private elements
MESSAGE_SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE)

# Services that are DIMSE-C or DIMSE-N but not storage, retired ones and UIDs of other things among them; a context
# of theirs that we do not offer is refused, while any other UID, private and retired storage classes among them,
# is taken for a storage class.
STANDARD_STORAGE = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_STANDARD_OTHER = (
    frozenset(
        str(uid)
        for group in vars(sop_class).values()
        if isinstance(group, dict)
        for uid in group.values()
        if isinstance(uid, str)
    )
) - STANDARD_STORAGE
_PRIVATE_SHUTDOWN = "1.2.276.0.7230010.3.4.1915765545.18030.917282194.0"  # DCMTK's termscu

# Bytes of SOP Class Extended Negotiation that are answered with 1 (PS3.4 C.5.1.1): relational queries, combined
# date-time, fuzzy names, timezone adjustment, not multi-frame views, empty value and multiple value matching
FIND_EXTENSIONS = bytes((1, 1, 1, 1, 0, 1, 1))
_RETRIEVE_EXTENSIONS = bytes((1, 0))  # relational, not multi-frame views (PS3.4 C.5.2.1)

# (result, source, reason) of PS3.8 Table 9-21
_Reason = tuple[int, int, int]
APPLICATION_CONTEXT_UNKNOWN: _Reason = (1, 1, 2)
CALLING_TITLE_UNKNOWN: _Reason = (1, 1, 3)
CALLED_TITLE_UNKNOWN: _Reason = (1, 1, 7)
PROTOCOL_VERSION_UNKNOWN: _Reason = (1, 2, 2)
CONGESTION: _Reason = (2, 3, 1)
LOCAL_LIMIT: _Reason = (2, 3, 2)

REASONS: Mapping[_Reason, str] = {
    APPLICATION_CONTEXT_UNKNOWN: "application context unknown",
    CALLING_TITLE_UNKNOWN: "calling title not recognized",
    CALLED_TITLE_UNKNOWN: "called title not recognized",
    PROTOCOL_VERSION_UNKNOWN: "protocol version unknown",
    CONGESTION: "temporary congestion",
    LOCAL_LIMIT: "local limit exceeded",
}
"""What the peer is told, for metrics."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Say why an association is not accepted: to the peer by three numbers, to the log in words."""

    result: int
    source: int
    reason: int
    words: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Hold what was agreed; `extended` are the answers per SOP class, decoded as what a query may use."""

    peer: Peer
    results: tuple[ContextResult, ...]
    contexts: Mapping[int, Context]
    user: UserInformation
    negotiated: Mapping[str, Negotiated]


def reject_reason(
    request: AssociateRequest, config: Config, address: str, names: frozenset[str] = frozenset()
) -> Rejection | None:
    """Say whether the policy refuses the request.

    `address` is the caller's IP address, `names` what its certificate proves (`tls.names_of`).
    """
    if not request.protocol_version & 1:
        return Rejection(*PROTOCOL_VERSION_UNKNOWN, "protocol version 1 is not offered")
    if request.application_context != APPLICATION_CONTEXT:
        return Rejection(*APPLICATION_CONTEXT_UNKNOWN, "unknown application context name")
    if request.called not in config.ae_titles:
        return Rejection(*CALLED_TITLE_UNKNOWN, "called AE title is not one of ours (ae_titles)")
    if not _is_title(request.calling):
        return Rejection(*CALLING_TITLE_UNKNOWN, "calling AE title has characters that none may have")
    peer = config.peers.get(request.calling)
    if peer is None and config.unknown_peers == "reject":
        return Rejection(*CALLING_TITLE_UNKNOWN, "calling AE title is not known; add it to peers")
    return _foreign(peer, address, names) if peer is not None else None


def _is_title(title: str) -> bool:
    """Say whether it may be written where an AE is expected (PS3.5 Table 6.2-1); one of spaces alone may call too."""
    return title.isascii() and "\\" not in title and (title.isprintable() or not title)


def _foreign(peer: Peer, address: str, names: frozenset[str]) -> Rejection | None:
    """See that who bears a peer's title is that peer, as far as the configuration says how to know."""
    if peer.addresses and not _is_within(address, peer.addresses):
        return Rejection(*CALLING_TITLE_UNKNOWN, "calling AE title is bound to other addresses")
    if peer.certificates and not names & set(peer.certificates):
        return Rejection(*CALLING_TITLE_UNKNOWN, "calling AE title is bound to another certificate")
    return None


def _is_within(address: str, networks: Iterable[str]) -> bool:
    caller = ip_address(address.partition("%")[0])
    mapped = getattr(caller, "ipv4_mapped", None)  # how IPv4 callers look on an IPv6 socket
    return any((mapped or caller) in ip_network(network) for network in networks)


def accept(request: AssociateRequest, config: Config) -> Acceptance:
    """Answer each presentation context and each negotiation item that we use."""
    peer = config.peers.get(request.calling, Peer())
    results, contexts = [], {}
    for proposed in request.contexts:
        result = _context(proposed, peer)
        results.append(result)
        if result.result == ACCEPTED:
            role = request.user.roles.get(proposed.abstract_syntax, (True, False))
            contexts[proposed.identifier] = Context(
                proposed.identifier, proposed.abstract_syntax, result.transfer_syntax, peer_is_scp=role[1]
            )
    accepted = {context.abstract_syntax for context in contexts.values()}
    extended, negotiated = _extended(request, accepted)
    user = UserInformation(
        max_length=config.listen.max_pdu,
        implementation_class=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
        roles=_roles(request, accepted),
        extended=extended,
        asynchronous=(1, 1) if request.user.asynchronous is not None else None,
    )
    return Acceptance(peer, tuple(results), contexts, user, negotiated)


def is_for_storage(contexts: Iterable[Context]) -> bool:
    """Say whether an association is there for C-STORE and for no query or retrieval."""
    uids = {context.abstract_syntax for context in contexts}
    queries = FIND_MODELS.keys() | MOVE_MODELS.keys() | GET_MODELS.keys()
    return any(map(_is_storage, uids)) and not queries & uids


def _roles(request: AssociateRequest, accepted: set[str]) -> dict[str, tuple[bool, bool]]:
    """Answer SCP/SCU Role Selection (PS3.7 D.3.3.4): of storage commitment we are the SCP, to be called as such."""
    roles = {uid: role for uid, role in request.user.roles.items() if uid in accepted and _is_storage(uid)}
    if STORAGE_COMMITMENT in accepted and STORAGE_COMMITMENT in request.user.roles:
        roles[STORAGE_COMMITMENT] = (request.user.roles[STORAGE_COMMITMENT][0], False)
    return roles


def _context(proposed: ProposedContext, peer: Peer) -> ContextResult:
    uid, syntaxes = proposed.abstract_syntax, proposed.transfer_syntaxes
    first = syntaxes[0] if syntaxes else IMPLICIT_LE
    if not _offered(uid, peer):
        return ContextResult(proposed.identifier, ABSTRACT_SYNTAX_UNKNOWN, first)
    if _is_storage(uid):
        # the requestor's order: what it has compressed passes through as it is
        chosen = first if syntaxes else None
    else:
        chosen = next((syntax for syntax in MESSAGE_SYNTAXES if syntax in syntaxes), None)
    if chosen is None:
        return ContextResult(proposed.identifier, TRANSFER_SYNTAXES_UNKNOWN, first)
    return ContextResult(proposed.identifier, ACCEPTED, chosen)


def _offered(uid: str, peer: Peer) -> bool:
    if uid == VERIFICATION:
        return "echo" in peer.allow
    for service, models in (("find", frozenset(FIND_MODELS)), ("move", MOVES), ("get", GETS)):
        if uid in models:
            return service in peer.allow
    if uid == STORAGE_COMMITMENT:
        return "commit" in peer.allow
    # a C-GET brings storage contexts for its sub-operations
    return _is_storage(uid) and bool({"store", "get"} & peer.allow)


def _is_storage(uid: str) -> bool:
    if uid in STANDARD_STORAGE:
        return True
    known = UID(uid, IGNORE)
    if known.type and (known.type != "SOP Class" or "Storage" not in known.name or "Commitment" in known.name):
        return False
    legal = 0 < len(uid) <= 64 and all(part.isdigit() for part in uid.split("."))
    return legal and uid not in _STANDARD_OTHER and uid != _PRIVATE_SHUTDOWN


def _extended(request: AssociateRequest, accepted: set[str]) -> tuple[dict[str, bytes], dict[str, Negotiated]]:
    """Answer SOP Class Extended Negotiation of FIND, MOVE and GET (PS3.4 C.5) with what works here."""
    answers: dict[str, bytes] = {}
    negotiated: dict[str, Negotiated] = {}
    for uid, asked in request.user.extended.items():
        if uid not in accepted:
            continue
        if uid in FIND_MODELS:
            works = FIND_EXTENSIONS
        elif uid in MOVE_MODELS or uid in GET_MODELS:
            works = _RETRIEVE_EXTENSIONS
        else:
            continue
        answer = bytes(a & w for a, w in zip(asked, works, strict=False))
        answers[uid] = answer
        granted = [bool(byte) for byte in answer.ljust(len(FIND_EXTENSIONS), b"\0")]
        negotiated[uid] = Negotiated(
            relational=granted[0],
            combined_datetime=granted[1],
            fuzzy=granted[2],
            timezone=granted[3],
            empty_value=granted[5],
        )
    return answers, negotiated
