"""Every error the gateway raises; how each ends for a DIMSE peer is in `gateway.status`.

GatewayError
├── ConfigError                 the configuration has faults (all of them listed)
├── ArchiveError                the archive (a DICOMweb service) did not do what was asked
│   ├── ArchiveUnreachable      no connection: DNS, refused, reset, TLS, time-out        (retry)
│   ├── ArchiveBusy             408, 424, 429, 502-504, 507; may say when to come back   (retry)
│   ├── ArchiveBroken           500 and every other 5xx                                  (retry)
│   ├── SignInRefused           401 after a fresh token, 403                             (retry, alarm)
│   ├── NotFound                404, 410                                                 (do not retry)
│   ├── TooLarge                413: the instance or the result                          (do not retry)
│   ├── RequestRefused          400, 405, 406, 409, 411, 415, 422: our request is wrong  (do not retry)
│   └── AnswerUnreadable        not JSON, cut multipart, wrong boundary, HTML            (retry)
├── InstanceRefused             the archive named this instance in Failed SOP Sequence   (by its reason)
├── DataSetError                the object that a peer sent cannot be an instance
│   └── IdentityMismatch        its UIDs differ from the command's or the context's
├── MultipartError              a multipart body is cut or its framing broken
├── IdentifierError             the identifier of a query or retrieve is wrong; names the key
│   └── IdentifierUnreadable    it is no data set: cut, or of another transfer syntax
├── ScanLimitReached            a query would have to read more of the archive than allowed
├── CommitmentRefused           a request for storage commitment is refused; has the status
├── StoreNotAllowed             the peer may get instances, which takes storage contexts, but not store any
├── InstanceRejected            a rejection note names the instance (IHE IOCM); its title allows no later copy
│   └── RejectionPending        it may come back, but what was rejected is still to be deleted
├── SpoolFull                   no room (or quota) left to take responsibility for an instance
├── SpoolBroken                 the spool's disk or database fails otherwise
├── DestinationError            a C-MOVE destination
│   ├── DestinationUnknown      not in the configuration
│   └── DestinationUnreachable  no association with it
├── FramesError                 frames that were asked for (PS3.4 Annex Y)
│   ├── FramesNotFound          none of them exists
│   ├── InstanceHasNoFrames     no new instance can be made of this SOP class
│   ├── FramesNotExtractable    they cannot be taken out of the instance
│   ├── InstanceHasNoTimes      a time range, but the frames have no times
│   └── FramesRequestInvalid    the request names no frames, or in two ways
├── TranscodingError            an instance cannot be converted to a transfer syntax the peer accepts
├── PeerError                   the peer broke the protocol or went away; ends its association only
└── Cancelled                   the peer sent C-CANCEL
"""

from dataclasses import dataclass


class GatewayError(Exception):
    """Be the root of all errors; the message is for the person who reads it and never holds patient data."""


@dataclass(frozen=True)
class Fault:
    """Name one fault of a configuration: where it is, what is wrong and what would be right."""

    path: str
    problem: str


class ConfigError(GatewayError):
    """Report every fault of a configuration at once."""

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        self.source = source
        self.faults = faults
        lines = "\n".join(f"  {fault.path}: {fault.problem}" for fault in faults)
        super().__init__(f"{source} has {len(faults)} fault{'s' if len(faults) != 1 else ''}:\n{lines}")

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, tuple[Fault, ...]]]:
        """Let it be handed from one process to another."""
        return type(self), (self.source, self.faults)


class ArchiveError(GatewayError):
    """Report that `archive` did not do what was asked; `retry` says whether asking again can help."""

    retry = True

    def __init__(self, archive: str, problem: str, *, http_status: int | None = None) -> None:
        self.archive = archive
        self.problem = problem
        self.http_status = http_status
        super().__init__(f"archive {archive}: {problem}")


class ArchiveUnreachable(ArchiveError):
    """Report that no answer came: name resolution, connection, TLS or a time-out."""


class ArchiveBusy(ArchiveError):
    """Report that the archive asks for patience; `retry_after` in seconds when it said for how long."""

    def __init__(
        self, archive: str, problem: str, *, http_status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(archive, problem, http_status=http_status)
        self.retry_after = retry_after


class ArchiveBroken(ArchiveError):
    """Report a failure inside the archive."""


class SignInRefused(ArchiveError):
    """Report that the archive refused our credentials (401) or our rights (403)."""


class NotFound(ArchiveError):
    """Report that the archive has no such resource."""

    retry = False


class TooLarge(ArchiveError):
    """Report that the archive refuses the size of a request or of its own answer."""

    retry = False


class RequestRefused(ArchiveError):
    """Report that the archive calls our request wrong: a fault in the profile or the program."""

    retry = False


class AnswerUnreadable(ArchiveError):
    """Report an answer that cannot be what was asked for: cut, mis-framed or of another type."""


class InstanceRefused(GatewayError):
    """Report an item of Failed SOP Sequence: `reason` is its Failure Reason (0008,1197)."""

    def __init__(self, archive: str, reason: int, comment: str = "") -> None:
        self.archive = archive
        self.reason = reason
        self.comment = comment
        text = f": {comment}" if comment else ""
        super().__init__(f"archive {archive} refused the instance, reason {reason:04X}H{text}")


class DataSetError(GatewayError):
    """Report that a received object cannot be an instance: empty, cut or without its UIDs."""


class IdentityMismatch(DataSetError):
    """Report that the data set's UIDs are not those of the command set (PS3.4 B.2.3, A900)."""


class MultipartError(GatewayError):
    """Report that a multipart body is cut or its framing broken."""


class IdentifierError(GatewayError):
    """Report what is wrong in an identifier; `keyword` is the offending key."""

    def __init__(self, keyword: str, problem: str) -> None:
        self.keyword = keyword
        self.problem = problem
        super().__init__(f"{keyword}: {problem}")


class IdentifierUnreadable(IdentifierError):
    """Report an identifier that is no data set in its transfer syntax."""

    def __init__(self, problem: str) -> None:
        super().__init__("identifier", problem)


class ScanLimitReached(GatewayError):
    """Report that a query was stopped before it read more of the archive than it may."""


class CommitmentRefused(GatewayError):
    """Report why a request for storage commitment is refused; `status` is that of the N-ACTION response."""

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


class StoreNotAllowed(GatewayError):
    """Report that the peer, whose storage contexts are there for its C-GETs, may not store (peers.*.allow)."""


class InstanceRejected(GatewayError):
    """Report that an instance may not be stored, for a note with `title` (113001, ...) has rejected it."""

    def __init__(self, title: str) -> None:
        self.title = title
        super().__init__(f"the instance was rejected by a note titled {title}")


class RejectionPending(InstanceRejected):
    """Report that an instance may come back as soon as the one that was rejected is deleted."""


class SpoolFull(GatewayError):
    """Report that the spool (or the peer's share of it) has no room."""


class SpoolBroken(GatewayError):
    """Report that the spool's disk or database failed: input/output error, locked too long, corrupt."""


class DestinationError(GatewayError):
    """Report trouble with a C-MOVE destination."""

    def __init__(self, destination: str, problem: str) -> None:
        self.destination = destination
        self.problem = problem
        super().__init__(f"destination {destination}: {problem}")


class DestinationUnknown(DestinationError):
    """Report a Move Destination that the configuration does not have."""


class DestinationUnreachable(DestinationError):
    """Report that the destination gave no association."""


class FramesError(GatewayError):
    """Report that a new instance of some frames cannot be made (PS3.4 Y.4.1.3)."""


class FramesNotFound(FramesError):
    """Report that none of the frames exists."""


class InstanceHasNoFrames(FramesError):
    """Report an instance of a SOP class of which no new one can be made."""


class FramesNotExtractable(FramesError):
    """Report that the frames do not lie apart in the instance."""


class InstanceHasNoTimes(FramesError):
    """Report a time range for an instance whose frames have no times."""


class FramesRequestInvalid(FramesError):
    """Report Frame Range keys that are missing, too many or malformed."""


class TranscodingError(GatewayError):
    """Report that an instance cannot be converted; names both transfer syntaxes."""


class PeerError(GatewayError):
    """Report that a peer broke the protocol or went away."""


class Cancelled(GatewayError):
    """Report that the peer cancelled the operation."""
