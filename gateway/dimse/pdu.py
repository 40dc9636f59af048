"""Read and write the association PDUs of PS3.8 section 9.3 and the sub-items of PS3.7 Annex D.

Only this small part of the upper layer is text of our own: pynetdicom needs 80 ms to take apart a request
with 128 presentation contexts of 38 transfer syntaxes, this module 1 ms (docs/decisions.md, D1).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.errors import PeerError

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
ACCEPTED, USER_REJECTION, NO_REASON, ABSTRACT_SYNTAX_UNKNOWN, TRANSFER_SYNTAXES_UNKNOWN = range(5)

RELEASE_REQUEST = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_RESPONSE = struct.pack(">BxI4x", RELEASE_RP, 4)

# PS3.8 Table 9-26: who aborts, and why a provider does
BY_USER, BY_PROVIDER = 0, 2
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6

_HEADER = struct.Struct(">BxH")
_FIXED = struct.Struct(">HH16s16s32s")
_MOST_CONTEXTS = 128
_SHORTEST_PDU = 8  # bytes of a P-DATA-TF with one fragment of two, the shortest that PS3.8 Annex E allows


class PduError(PeerError):
    """Report a PDU that breaks PS3.8; `reason` is the abort reason of Table 9-26."""

    def __init__(self, problem: str, reason: int = INVALID_PARAMETER) -> None:
        self.reason = reason
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """Hold one presentation context of a request."""

    identifier: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """Hold the answer to one presentation context: a result of PS3.8 Table 9-18 and the syntax chosen."""

    identifier: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class UserInformation:
    """Hold the user information items of PS3.7 Annex D; `max_length` 0 means no limit."""

    max_length: int = 0
    implementation_class: str = ""
    implementation_version: str = ""
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)  # SOP class -> SCU, SCP
    extended: Mapping[str, bytes] = field(default_factory=dict)  # SOP class -> application information
    asynchronous: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """Hold an A-ASSOCIATE-RQ; `fixed` are its bytes 11 to 74, which the answer repeats (Table 9-17)."""

    called: str
    calling: str
    protocol_version: int
    application_context: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation
    fixed: bytes = bytes(64)


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """Hold an A-ASSOCIATE-AC."""

    contexts: tuple[ContextResult, ...]
    user: UserInformation


def decode_request(body: bytes) -> AssociateRequest:
    """Take apart the body of an A-ASSOCIATE-RQ (PS3.8 9.3.2); raises PduError."""
    version, called, calling = _fixed_part(body)
    application_context, user, contexts = "", UserInformation(), []
    for kind, value in _items(body, 68, len(body)):
        if kind == 0x10:
            application_context = _uid(value)
        elif kind == 0x20:
            contexts.append(_proposed_context(value))
        elif kind == 0x50:
            user = _user_information(value)
    identifiers = {context.identifier for context in contexts}
    if len(identifiers) != len(contexts) or len(contexts) > _MOST_CONTEXTS:
        raise PduError("presentation context IDs are not unique")
    return AssociateRequest(called, calling, version, application_context, tuple(contexts), user, bytes(body[4:68]))


def decode_accept(body: bytes) -> AssociateAccept:
    """Take apart the body of an A-ASSOCIATE-AC (PS3.8 9.3.3); raises PduError."""
    _fixed_part(body)
    user, contexts = UserInformation(), []
    for kind, value in _items(body, 68, len(body)):
        if kind == 0x21:
            if len(value) < 4:
                raise PduError("a presentation context result is too short")
            syntaxes = [_uid(item) for sub, item in _items(value, 4, len(value)) if sub == 0x40]
            contexts.append(ContextResult(value[0], value[2], syntaxes[0] if syntaxes else ""))
        elif kind == 0x50:
            user = _user_information(value)
    return AssociateAccept(tuple(contexts), user)


def encode_request(request: AssociateRequest) -> bytes:
    """Build an A-ASSOCIATE-RQ."""
    items = [_item(0x10, request.application_context.encode())]
    for context in request.contexts:
        syntaxes = b"".join(_item(0x40, syntax.encode()) for syntax in context.transfer_syntaxes)
        abstract = _item(0x30, context.abstract_syntax.encode())
        items.append(_item(0x20, bytes((context.identifier, 0, 0, 0)) + abstract + syntaxes))
    items.append(_encode_user_information(request.user))
    body = _FIXED.pack(1, 0, _title(request.called), _title(request.calling), b"") + b"".join(items)
    return struct.pack(">BxI", ASSOCIATE_RQ, len(body)) + body


def encode_accept(request: AssociateRequest, contexts: Sequence[ContextResult], user: UserInformation) -> bytes:
    """Build the A-ASSOCIATE-AC that answers `request`."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for context in contexts:
        syntax = _item(0x40, context.transfer_syntax.encode())
        items.append(_item(0x21, bytes((context.identifier, 0, context.result, 0)) + syntax))
    items.append(_encode_user_information(user))
    body = b"\x00\x01\x00\x00" + request.fixed + b"".join(items)
    return struct.pack(">BxI", ASSOCIATE_AC, len(body)) + body


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """Build an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, result, source, reason)


def encode_abort(source: int, reason: int = 0) -> bytes:
    """Build an A-ABORT (PS3.8 Table 9-26)."""
    return struct.pack(">BxIxxBB", ABORT, 4, source, reason)


def _fixed_part(body: bytes) -> tuple[int, str, str]:
    if len(body) < 68:
        raise PduError("an association PDU is shorter than its fixed part")
    version, _, called, calling, _ = _FIXED.unpack_from(body)
    # titles that are not ASCII are for the policy to reject; those of an acceptance are not to be tested (Table 9-17)
    return version, called.decode("latin-1").strip(" \0"), calling.decode("latin-1").strip(" \0")


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    while start < end:
        if start + 4 > end:
            raise PduError("an item is cut")
        kind, length = _HEADER.unpack_from(data, start)
        start += 4
        if start + length > end:
            raise PduError("an item is longer than the item around it")
        yield kind, data[start : start + length]
        start += length


def _uid(value: bytes) -> str:
    try:
        return value.decode("ascii").rstrip("\0 ")
    except UnicodeDecodeError as error:
        raise PduError("a UID is not ASCII") from error


def _proposed_context(value: bytes) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise PduError("a presentation context ID is not odd")
    abstract, syntaxes = "", []
    for kind, item in _items(value, 4, len(value)):
        if kind == 0x30:
            abstract = _uid(item)
        elif kind == 0x40:
            syntaxes.append(_uid(item))
    return ProposedContext(value[0], abstract, tuple(syntaxes))


def _user_information(value: bytes) -> UserInformation:
    """Read what we use; unknown sub-items, user identity and 57H among them, are passed over (PS3.8 D.2)."""
    found: dict[str, object] = {}
    roles: dict[str, tuple[bool, bool]] = {}
    extended: dict[str, bytes] = {}
    try:
        for kind, item in _items(value, 0, len(value)):
            if kind == 0x51:
                found["max_length"] = _max_length(item)
            elif kind == 0x52:
                found["implementation_class"] = _uid(item)
            elif kind == 0x53:
                found["asynchronous"] = struct.unpack(">HH", item)
            elif kind == 0x54:
                uid, rest = _prefixed(item)
                roles[uid] = (bool(rest[0]), bool(rest[1]))
            elif kind == 0x55:
                found["implementation_version"] = item.decode("ascii", "replace").strip()
            elif kind == 0x56:
                uid, rest = _prefixed(item)
                extended[uid] = rest
    except (struct.error, IndexError) as error:
        raise PduError("a user information item is cut") from error
    return UserInformation(roles=roles, extended=extended, **found)  # type: ignore[arg-type]


def _max_length(item: bytes) -> int:
    (length,) = struct.unpack(">I", item)
    if 0 < length < _SHORTEST_PDU:
        raise PduError("the peer's maximum length has no room for a fragment")
    return int(length)


def _prefixed(item: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack_from(">H", item)
    if len(item) < 2 + length:
        raise PduError("a SOP class item is cut")
    return _uid(item[2 : 2 + length]), item[2 + length :]


def _encode_user_information(user: UserInformation) -> bytes:
    items = [
        _item(0x51, struct.pack(">I", user.max_length)),
        _item(0x52, user.implementation_class.encode()),
    ]
    if user.asynchronous is not None:
        items.append(_item(0x53, struct.pack(">HH", *user.asynchronous)))
    for uid, roles in user.roles.items():
        items.append(_item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes(roles)))
    items.append(_item(0x55, user.implementation_version.encode()))
    for uid, information in user.extended.items():
        items.append(_item(0x56, struct.pack(">H", len(uid)) + uid.encode() + information))
    return _item(0x50, b"".join(items))


def _item(kind: int, value: bytes) -> bytes:
    return _HEADER.pack(kind, len(value)) + value


def _title(title: str) -> bytes:
    return title.encode("ascii").ljust(16)
