"""What an answer to STOW-RS means for an instance: reason or failure -> what becomes of it, and the C-STORE status.

The statuses are those of PS3.4 B.2.3; reasons outside its ranges never reach a peer, least of all those that look
like a warning of C-STORE (45070 is B00EH).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gateway import errors
from gateway.errors import GatewayError, InstanceRefused
from gateway.status import SUCCESS, Service, comment, status_of


class Disposition(StrEnum):
    """Say what becomes of an instance that was sent."""

    DONE = "done"
    RETRY = "retry"
    SET_ASIDE = "set aside"
    DUPLICATE = "duplicate"  # the archive has an object under these UIDs; the policy decides


class Row(NamedTuple):
    """Map Failure Reasons `low` to `high`; `status` None passes the reason on."""

    low: int
    high: int
    disposition: Disposition
    status: int | None


REASONS: tuple[Row, ...] = (
    Row(0x0110, 0x0110, Disposition.RETRY, None),  # Azure's for all that is unexpected, its own stores' troubles too
    Row(0x0111, 0x0111, Disposition.DUPLICATE, None),
    Row(0x0117, 0x0117, Disposition.SET_ASIDE, None),
    Row(0x0122, 0x0122, Disposition.SET_ASIDE, None),
    Row(0x0124, 0x0124, Disposition.RETRY, None),
    Row(0x0213, 0x0213, Disposition.RETRY, 0xA700),
    Row(0xA770, 0xA77F, Disposition.SET_ASIDE, None),  # dcm4chee's own: rejected before, Patient ID conflicts
    Row(0xA700, 0xA7FF, Disposition.RETRY, None),
    Row(0xA900, 0xA9FF, Disposition.SET_ASIDE, None),
    Row(0xB00E, 0xB00E, Disposition.DUPLICATE, 0x0111),  # Azure: study, series and instance are stored already
    Row(0xB00F, 0xB00F, Disposition.RETRY, 0xA700),  # Azure: just being stored, or that did not finish
    Row(0xC000, 0xCFFF, Disposition.SET_ASIDE, None),
)
"""Failure Reason (0008,1197); the first row that fits. None fits: set aside, 0110H."""

WARNINGS = frozenset((0xB000, 0xB006, 0xB007))
"""Warning Reasons (0008,1196) that are C-STORE statuses as well; the instance is stored whatever the reason."""

NOT_TOLD = "the answer does not tell of this instance"

_TAG = re.compile(r"\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)")

FAULTS: Mapping[type[GatewayError], Disposition] = {
    errors.TooLarge: Disposition.SET_ASIDE,
    errors.RequestRefused: Disposition.SET_ASIDE,
    errors.DataSetError: Disposition.SET_ASIDE,
    errors.TranscodingError: Disposition.SET_ASIDE,
    # The base URL is wrong: no fault of the instance, and mended by mending the configuration.
    errors.NotFound: Disposition.RETRY,
    errors.GatewayError: Disposition.RETRY,
}
"""Failures of a whole request; the nearest class of the error's ancestors decides."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say what becomes of an instance, the C-STORE status and Error Comment for it, and why it was not stored."""

    disposition: Disposition
    status: int
    comment: str = ""
    cause: GatewayError | None = None


def stored(warning: int | None, harmless: frozenset[int] = frozenset()) -> Verdict:
    """Judge an item of Referenced SOP Sequence; a warning that is `harmless` or no status is no peer's business."""
    if warning is None:
        return Verdict(Disposition.DONE, SUCCESS)
    code = warning if warning in WARNINGS - harmless else SUCCESS
    return Verdict(Disposition.DONE, code, f"archive warns: {warning:04X}H")


def refused(archive: str, reason: int | None, text: str, *, named: bool = True) -> Verdict:
    """Judge an item of Failed SOP Sequence; not `named` when it has no UIDs, as for a file that cannot be read.

    The archive's words are for the peer alone, since they may quote the data set; the cause, which is logged, has
    only the attributes that they name.
    """
    known = text if text == NOT_TOLD else ", ".join(dict.fromkeys(_TAG.findall(text)))
    cause = InstanceRefused(archive, 0x0110 if reason is None else reason, known)
    row = next((row for row in REASONS if row.low <= cause.reason <= row.high), None)
    if row is None:
        return Verdict(Disposition.SET_ASIDE, 0x0110, comment(text or str(cause)), cause)
    code = cause.reason if row.status is None else row.status
    if not named and 0xA900 <= code <= 0xA9FF:
        code = 0xC000  # cannot understand
    return Verdict(row.disposition, code, comment(text or str(cause)), cause)


def failed(error: GatewayError) -> Verdict:
    """Judge the failure of a whole request."""
    status = status_of(error, Service.STORE)
    code = status.code
    if isinstance(error, errors.RequestRefused) and error.http_status == 409:
        code = 0x0110  # nothing was stored, and no body says why
    disposition = next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    return Verdict(disposition, code, status.comment, error)
