"""Read what an N-ACTION asks for, or say with which status it is refused (PS3.4 J.3.2, PS3.7 10.1.4.1.10)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.dataset import Dataset

from gateway import status
from gateway.errors import CommitmentRefused, IdentifierError
from gateway.translate.identifier import decode_identifier

SOP_CLASS = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its one instance, which is well known (PS3.4 J.3.5)."""

_REQUEST_STORAGE_COMMITMENT = 1
_UID = re.compile(r"[0-9][0-9.]{0,63}")


class Reference(NamedTuple):
    """Name one instance that is to be committed."""

    sop_class: str
    sop_instance: str


@dataclass(frozen=True, slots=True)
class Request:
    """Hold the transaction that a peer asks for; each reference once, in its order."""

    transaction: str
    references: tuple[Reference, ...]


def read_request(
    *, sop_class: str, sop_instance: str, action_type: int, data: bytes, transfer_syntax: str
) -> Request:
    """Read an N-ACTION request for storage commitment; `data` is its data set.

    Raises CommitmentRefused with the status of the response.
    """
    if sop_class != SOP_CLASS:
        raise CommitmentRefused(status.NO_SUCH_SOP_CLASS, "the SOP class is not Storage Commitment Push Model")
    if not _UID.fullmatch(sop_instance):
        raise CommitmentRefused(status.INVALID_SOP_INSTANCE, "Requested SOP Instance UID is missing or no UID")
    if sop_instance != SOP_INSTANCE:
        raise CommitmentRefused(status.NO_SUCH_SOP_INSTANCE, f"the SOP instance is not {SOP_INSTANCE}")
    if action_type != _REQUEST_STORAGE_COMMITMENT:
        raise CommitmentRefused(status.NO_SUCH_ACTION, f"action type {action_type} is not 1")
    try:
        dataset = decode_identifier(data, transfer_syntax)
    except IdentifierError as error:
        raise CommitmentRefused(status.INVALID_ARGUMENT, f"the data set {error.problem}") from error
    items = _present(dataset, "ReferencedSOPSequence")
    transaction = _uid(dataset, "TransactionUID")
    references = (
        Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")) for item in items
    )
    return Request(transaction, tuple(dict.fromkeys(references)))


def _present(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Give the values of an attribute that is of type 1."""
    if keyword not in dataset:
        raise CommitmentRefused(status.MISSING_ATTRIBUTE, f"{keyword} is missing")
    value = dataset[keyword].value
    if not value:
        raise CommitmentRefused(status.MISSING_ATTRIBUTE_VALUE, f"{keyword} is empty")
    return value  # type: ignore[no-any-return]


def _uid(dataset: Dataset, keyword: str) -> str:
    value = str(_present(dataset, keyword))
    if not _UID.fullmatch(value):
        raise CommitmentRefused(status.INVALID_ARGUMENT, f"{keyword} is not a UID")
    return value
