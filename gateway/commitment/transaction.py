"""What the register holds of a storage commitment, and what its report says (PS3.4 J.3.3, PS3.3 C.14)."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from gateway.commitment.request import Reference
from gateway.translate.attributes import Attribute
from gateway.translate.encode import Elements, encode_elements

COMMITTED = 0
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT = 0x0112
CLASS_CONFLICT = 0x0119
RESOURCE_LIMITATION = 0x0213

ALL_COMMITTED, SOME_FAILED = 1, 2  # event types

_RETRIEVE_AE_TITLE = 0x00080054
_SOP_CLASS, _SOP_INSTANCE = 0x00081150, 0x00081155
_TRANSACTION, _FAILURE_REASON = 0x00081195, 0x00081197
_FAILED, _REFERENCED = 0x00081198, 0x00081199


class State(StrEnum):
    """Say where a transaction stands."""

    WAITING = "waiting"  # for the outbox and the archive
    JUDGED = "judged"  # the report is to be delivered
    ENDED = "ended"


class Outcome(StrEnum):
    """Say how a transaction ended."""

    DELIVERED = "delivered"
    EXPIRED = "expired"  # nobody took the report


@dataclass(frozen=True, slots=True)
class Transaction:
    """Describe a storage commitment; times in seconds since 1970.

    `verdicts` are Failure Reasons in the order of the references, 0 for what is committed; empty until judged.
    `attempts` counts those of the present state.
    """

    id: int
    uid: str
    calling: str
    called: str
    archive: str
    received: float
    state: State
    attempts: int
    references: tuple[Reference, ...]
    verdicts: tuple[int, ...] = ()

    @property
    def event_type(self) -> int:
        """Give the Event Type ID of its report (PS3.4 Table J.3-3)."""
        return SOME_FAILED if any(self.verdicts) else ALL_COMMITTED

    @property
    def failed(self) -> int:
        """Count the references that are not committed."""
        return sum(map(bool, self.verdicts))


def encode_report(transaction: Transaction, transfer_syntax: str) -> bytes:
    """Encode the data set of the report: each reference is in one of its two sequences (PS3.4 Table J.3-3)."""
    judged = list(zip(transaction.references, transaction.verdicts, strict=True))
    failed = [
        [*_item(reference)[:2], (_FAILURE_REASON, Attribute("US", [verdict]))]
        for reference, verdict in judged
        if verdict
    ]
    committed = [_item(reference) for reference, verdict in judged if not verdict]
    elements: Elements = [(_TRANSACTION, _text("UI", transaction.uid))]
    if committed:
        elements.insert(0, (_RETRIEVE_AE_TITLE, _text("AE", transaction.called)))
    if failed:
        elements.append((_FAILED, Attribute("SQ", failed)))
    if committed:
        elements.append((_REFERENCED, Attribute("SQ", committed)))
    return encode_elements(elements, transfer_syntax)


def _item(reference: Reference) -> Elements:
    return [(_SOP_CLASS, _text("UI", reference.sop_class)), (_SOP_INSTANCE, _text("UI", reference.sop_instance))]


def _text(vr: str, *values: str) -> Attribute:
    return Attribute(vr, list(values))


def pause(attempts: int, chance: float, *, first: float, longest: float) -> float:
    """Give the seconds until the next attempt: doubled from `first` to `longest`, of which chance takes up to half.

    `attempts` counts from 1, `chance` is from 0 to 1: peers that went together do not have to come back together.
    """
    return min(longest, first * 2.0 ** min(attempts - 1, 32)) * (1 - chance / 2)


def verdict(classes: Collection[str] | None, reference: Reference) -> int:
    """Judge a reference by the SOP classes under which the archive has the instance; None for not at all."""
    if not classes:
        return NO_SUCH_OBJECT
    return COMMITTED if reference.sop_class in classes else CLASS_CONFLICT
