"""How each error ends for a DIMSE peer: one table, error x service -> status (PS3.4 B.2.3 and C.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway import errors
from gateway.errors import GatewayError

SUCCESS = 0x0000
CANCEL = 0xFE00
PENDING = 0xFF00
PENDING_WITH_UNSUPPORTED_KEYS = 0xFF01
SUB_OPERATIONS_FAILED = 0xB000
ALL_SUB_OPERATIONS_FAILED = 0xA702
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
INVALID_SOP_INSTANCE = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
DUPLICATE_TRANSACTION = 0x0131
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213

_COMMENT = 64  # Error Comment (0000,0902) is an LO


class Service(Enum):
    """Name the services that have statuses of their own."""

    STORE = "C-STORE"
    FIND = "C-FIND"
    MOVE = "C-MOVE"
    GET = "C-GET"
    COMMIT = "N-ACTION"


_STORE, _FIND, _MOVE, _GET, _COMMIT = Service

# From the particular to the general: the first class in an error's own line of ancestors decides.
TABLE: Mapping[type[GatewayError], Mapping[Service, int]] = {
    errors.ArchiveUnreachable: {_STORE: 0xA700, _FIND: 0xA700, _MOVE: 0xA701, _GET: 0xA701},
    errors.ArchiveBusy: {_STORE: 0xA700, _FIND: 0xA700, _MOVE: 0xA701, _GET: 0xA701},
    errors.ArchiveBroken: {_STORE: 0xA700, _FIND: 0xA700, _MOVE: 0xA701, _GET: 0xA701},
    errors.SignInRefused: {_STORE: NOT_AUTHORIZED, _FIND: 0xC002, _MOVE: 0xA701, _GET: 0xA701},
    errors.NotFound: {_STORE: 0xA700, _FIND: 0xC003, _MOVE: 0xA701, _GET: 0xA701},
    errors.TooLarge: {_STORE: 0xA700, _FIND: 0xA700, _MOVE: 0xA701, _GET: 0xA701},
    errors.RequestRefused: {_STORE: 0xC000, _FIND: 0xC001, _MOVE: 0xA701, _GET: 0xA701},
    errors.AnswerUnreadable: {_STORE: 0x0110, _FIND: 0xC004, _MOVE: 0xA701, _GET: 0xA701},
    errors.ArchiveError: {_STORE: 0x0110, _FIND: 0xC000, _MOVE: 0xA701, _GET: 0xA701},
    errors.IdentityMismatch: {_STORE: 0xA900},
    errors.DataSetError: {_STORE: 0xC000},
    errors.IdentifierUnreadable: {_FIND: 0xC005},
    errors.IdentifierError: {_FIND: 0xA900, _MOVE: 0xA900, _GET: 0xA900},
    errors.ScanLimitReached: {_FIND: 0xA700, _MOVE: 0xA701, _GET: 0xA701},
    errors.StoreNotAllowed: {_STORE: NOT_AUTHORIZED},
    errors.RejectionPending: {_STORE: 0xA700},
    errors.InstanceRejected: {_STORE: 0xC770},  # C as what stays refused; 770 as archives of dcm4chee say it
    errors.SpoolFull: {_STORE: 0xA700, _MOVE: 0xA702, _GET: 0xA702, _COMMIT: RESOURCE_LIMITATION},
    errors.SpoolBroken: {_STORE: 0xA700, _MOVE: 0xA702, _GET: 0xA702, _COMMIT: PROCESSING_FAILURE},
    errors.FramesNotFound: {_MOVE: 0xAA00, _GET: 0xAA00},
    errors.InstanceHasNoFrames: {_MOVE: 0xAA01, _GET: 0xAA01},
    errors.FramesNotExtractable: {_MOVE: 0xAA02, _GET: 0xAA02},
    errors.InstanceHasNoTimes: {_MOVE: 0xAA03, _GET: 0xAA03},
    errors.FramesRequestInvalid: {_MOVE: 0xAA04, _GET: 0xAA04},
    errors.FramesError: {_MOVE: 0xAA02, _GET: 0xAA02},
    errors.DestinationUnknown: {_MOVE: 0xA801},
    errors.DestinationUnreachable: {_MOVE: 0xA702},
    errors.Cancelled: {_FIND: CANCEL, _MOVE: CANCEL, _GET: CANCEL},
    errors.GatewayError: {_STORE: 0x0110, _FIND: 0xC000, _MOVE: 0xC000, _GET: 0xC000, _COMMIT: PROCESSING_FAILURE},
}

# What the peer can do about it, in the 64 characters it may show; never what the archive or a data set said.
_COMMENTS: Mapping[type[GatewayError], str] = {
    errors.ArchiveUnreachable: "archive {archive} cannot be reached; send again later",
    errors.ArchiveBusy: "archive {archive} is busy; send again later",
    errors.ArchiveBroken: "archive {archive} has failed; send again later",
    errors.SignInRefused: "archive {archive} refuses the gateway's sign-in",
    errors.NotFound: "archive {archive} has no such resource",
    errors.TooLarge: "too large for archive {archive}",
    errors.RequestRefused: "archive {archive} refuses the gateway's request",
    errors.AnswerUnreadable: "archive {archive} gave an unreadable answer",
    errors.IdentityMismatch: "UIDs of data set and command differ",
    errors.DataSetError: "data set cannot be read or has no UIDs",
    errors.IdentifierUnreadable: "identifier is cut, or not in its transfer syntax",
    errors.IdentifierError: "{keyword}: {problem}",
    errors.ScanLimitReached: "query too broad; narrow it by date, ID or name",
    errors.StoreNotAllowed: "this AE title may not store here",
    errors.RejectionPending: "rejected before; send again once its deletion is done",
    errors.InstanceRejected: "a rejection note has rejected this instance; it is not stored",
    errors.SpoolFull: "the gateway's disk is full; send again later",
    errors.SpoolBroken: "the gateway's disk has failed; send again later",
    errors.FramesNotFound: "the instance has none of these frames",
    errors.InstanceHasNoFrames: "no frames can be taken from this SOP class",
    errors.FramesNotExtractable: "the frames cannot be taken out of this instance",
    errors.InstanceHasNoTimes: "the frames of this instance have no times",
    errors.FramesRequestInvalid: "give one of the Frame Range keys for one instance",
    errors.FramesError: "the frames cannot be taken out of this instance",
    errors.DestinationUnknown: "move destination is not configured",
    errors.DestinationUnreachable: "move destination gives no association",
    errors.Cancelled: "cancelled",
}

# Error Comments of an N-ACTION that is refused; the log line says more.
_REFUSALS: Mapping[int, str] = {
    NO_SUCH_SOP_INSTANCE: "not the instance of the Push Model",
    INVALID_ARGUMENT: "a value of the request is not valid",
    INVALID_SOP_INSTANCE: "Requested SOP Instance UID is not valid",
    NO_SUCH_SOP_CLASS: "not the SOP class of the Push Model",
    MISSING_ATTRIBUTE: "an attribute of the request is missing",
    MISSING_ATTRIBUTE_VALUE: "an attribute of the request is empty",
    NO_SUCH_ACTION: "action type is not 1",
    DUPLICATE_TRANSACTION: "Transaction UID is in use",
    UNRECOGNIZED_OPERATION: "operation is not offered in this context",
    RESOURCE_LIMITATION: "too many open transactions; ask again later",
}


@dataclass(frozen=True, slots=True)
class Status:
    """Hold a status code and its Error Comment, 1 to 64 ASCII characters."""

    code: int
    comment: str


def comment(text: str) -> str:
    """Cut and clean a text for Error Comment: printable ASCII without backslash, at most 64 characters."""
    clean = "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text)
    return clean[:_COMMENT].strip()


def status_of(error: GatewayError, service: Service) -> Status:
    """Find the status that tells a peer of `error`; total: every error has one for every service."""
    if service is Service.COMMIT:
        if isinstance(error, errors.CommitmentRefused):
            return Status(error.status, _REFUSALS.get(error.status, "refused"))
    elif isinstance(error, errors.InstanceRefused):
        return _refused(error)
    text = next((_COMMENTS[kind] for kind in type(error).__mro__ if kind in _COMMENTS), "the gateway has failed")
    for kind in type(error).__mro__:
        code = TABLE.get(kind, {}).get(service)
        if code is not None:
            return Status(code, comment(text.format_map(vars(error))))
    raise AssertionError(f"no status for {type(error).__name__} in {service.value}")


def _refused(error: errors.InstanceRefused) -> Status:
    """Pass a Failure Reason on where it is a C-STORE failure too (PS3.4 B.2.3), else say 0110H."""
    code = error.reason
    storage_failure = 0xA700 <= code <= 0xA7FF or 0xA900 <= code <= 0xA9FF or 0xC000 <= code <= 0xCFFF
    if not storage_failure and code not in (0x0110, 0x0111, 0x0117, 0x0122, 0x0124, 0x0210, 0x0212):
        code = 0x0110
    return Status(code, comment(f"archive {error.archive} refused it, reason {error.reason:04X}H"))
