"""Decide whether an instance may be stored, and word the answer about it (PS3.18 10.5.3, Annex I)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydicom.uid import ImplicitVRLittleEndian

from gateway.embedded.query import TAGS, is_uid
from gateway.embedded.reading import UID_TAGS, Read
from gateway.embedded.validation import findings

INVALID: Final = 43264
DUPLICATE: Final = 45070
_IMPLICIT: Final = 45063
_ATTRIBUTES: Final = 1
_PATIENT_ID: Final = TAGS["PatientID"]
_INDEXED: Final = frozenset(TAGS.values()) - {TAGS["ModalitiesInStudy"]}


@dataclass(frozen=True, slots=True)
class Terms:
    """Hold what a STOW-RS request says of all its instances.

    `base` is the URL of the service's root; `study` is the one in the request's URL; `strict` are version 1's
    rules; `managed` those of the managed service; `replace` asks for instances to take the place of others.
    """

    base: str
    study: str = ""
    strict: bool = False
    managed: bool = False
    replace: bool = False


@dataclass(slots=True)
class Judged:
    """Hold what became of one received file: a Failure Reason, or 0 and what is to be stored."""

    read: Read
    model: Mapping[str, Any] = field(default_factory=dict)
    reason: int = 0
    warning: int = 0
    comments: Sequence[str] = ()


def judge(read: Read, terms: Terms) -> Judged:
    """Decide whether an instance may be stored.

    Version 2 stores an instance with invalid attributes, but leaves them out of its metadata.
    """
    complaint = _complaint(read, terms)
    if complaint:
        return Judged(read, reason=INVALID, comments=[complaint])
    # The service's own rule for UIDs is the milder one: they may have leading zeros.
    found = [one for one in findings(read.model) if one[0] not in UID_TAGS]
    if terms.strict:
        wrong = [text for tag, text in found if tag in _INDEXED]
        if wrong:
            return Judged(read, reason=INVALID, comments=wrong)
        found = []
    # A bad value inside a sequence takes the same tag of the data set itself away: the service's own quirk.
    bad = {tag for tag, _ in found}
    comments = [text for _, text in found]
    if not read.model[_PATIENT_ID].get("Value"):
        comments.append("DICOM100: (0010,0020) - the attribute has no value")
    judged = Judged(read, {tag: value for tag, value in read.model.items() if tag not in bad}, comments=comments)
    if read.transfer_syntax == ImplicitVRLittleEndian:
        judged.warning = _IMPLICIT
    elif comments:
        judged.warning = _ATTRIBUTES
    return judged


def _complaint(read: Read, terms: Terms) -> str:
    """Return why the instance cannot be stored, as the service words it; empty when it can."""
    for tag, uid in zip(UID_TAGS, (read.study, read.series, read.instance, read.sop_class), strict=True):
        if not is_uid(uid):
            return f"DICOM100: ({tag[:4].lower()},{tag[4:].lower()}) - a UID is missing or malformed"
    patient_id = read.model.get(_PATIENT_ID)
    if patient_id is None or (terms.strict and not patient_id.get("Value")):
        return "DICOM100: (0010,0020) - the required attribute is missing"
    if terms.study and terms.study != read.study:
        return "DICOM110: (0020,000d) - the study differs from the study of the request"
    if terms.managed and read.transfer_syntax == ImplicitVRLittleEndian:
        return "DICOM110: (0002,0010) - Implicit VR is not accepted"
    return ""


def answer(judged: Sequence[Judged], terms: Terms) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the Store Instances Response Module for all instances of a request."""
    failed = [_failed(one) for one in judged if one.reason]
    stored = [_stored(one, terms) for one in judged if not one.reason]
    model: dict[str, Any] = {}
    if terms.study and stored:
        model["00081190"] = {"vr": "UR", "Value": [f"{terms.base}/studies/{terms.study}"]}
    if failed:
        model["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        model["00081199"] = {"vr": "SQ", "Value": stored}
    if not stored:
        return 409, model
    warned = not terms.strict and any(one.warning for one in judged)
    return 202 if failed or warned else 200, model


def several_values(judged: Sequence[Judged]) -> bool:
    """Say whether an instance has several values where the index holds the first one only."""
    return any(
        len(one.model.get(tag, {}).get("Value", ())) > 1 for one in judged if not one.reason for tag in _INDEXED
    )


def _stored(one: Judged, terms: Terms) -> dict[str, Any]:
    item = _reference(one.read)
    url = f"{terms.base}/studies/{one.read.study}/series/{one.read.series}/instances/{one.read.instance}"
    item["00081190"] = {"vr": "UR", "Value": [url]}
    if one.warning:
        item["00081196"] = {"vr": "US", "Value": [one.warning]}
    if not terms.strict:
        item["00741048"] = _comments(one.comments)
    return item


def _failed(one: Judged) -> dict[str, Any]:
    item = _reference(one.read) | {"00081197": {"vr": "US", "Value": [one.reason]}}
    if one.comments:
        item["00741048"] = _comments(one.comments)
    return item


def _reference(read: Read) -> dict[str, Any]:
    uids = (("00081150", read.sop_class), ("00081155", read.instance))
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids if uid}


def _comments(comments: Sequence[str]) -> dict[str, Any]:
    items = [{"00000902": {"vr": "LO", "Value": [comment]}} for comment in comments]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
