"""Write audit messages by the schema of PS3.15 A.5.1, with the contents of A.5.3. Pure."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum
from xml.etree.ElementTree import Element, SubElement, tostring

_MEANINGS: Mapping[str, str] = {
    "110100": "Application Activity",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110112": "Query",
    "110113": "Security Alert",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110126": "Node Authentication",
    "110129": "Security Configuration",
    "110150": "Application",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "110180": "Study Instance UID",
    "110181": "SOP Class UID",
    "110182": "Node ID",
}
"""Codes of PS3.16 Annex D that are used here."""

WITHHELD = "withheld"
"""What stands where the configuration keeps patient data out."""


class Outcome(IntEnum):
    """Say how an event ended, in the schema's numbers."""

    SUCCESS = 0
    MINOR = 4
    SERIOUS = 8


class Activity(Enum):
    """Name the two application activities."""

    START = "110120"
    STOP = "110121"


class Alert(Enum):
    """Name the kinds of security alert that are raised here."""

    NODE = "110126"
    CONFIGURATION = "110129"


@dataclass(frozen=True, slots=True)
class Source:
    """Say who reports: its name, its site, its AE titles, its process and its host."""

    name: str
    site: str
    titles: tuple[str, ...]
    process: int
    host: str

    @property
    def node(self) -> "Node":
        """Give it as a participant."""
        return Node(str(self.process), self.titles, self.host)


@dataclass(frozen=True, slots=True)
class Node:
    """Name a participant: its user ID, AE titles, and host name or IP address."""

    user: str
    titles: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """Hold what identifies a patient, empty where it is not known."""

    identifier: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """Count instances of a study, by SOP class; a class that is not known is empty.

    `listed` names them, where that is wanted and they are of one class.
    """

    uid: str
    instances: Mapping[str, int]
    listed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hold what was transferred: from whom, to whom, at whose request."""

    action: str
    sender: Node
    receiver: Node
    requestor: Node
    studies: tuple[Study, ...]
    patient: Patient


@dataclass(frozen=True, slots=True)
class Query:
    """Hold a query: its SOP class, its identifier as it came, and in which transfer syntax."""

    asker: Node
    sop_class: str
    identifier: bytes | None
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Event:
    """Hold what is common to all messages."""

    source: Source
    at: datetime
    outcome: Outcome = Outcome.SUCCESS


def activity(event: Event, what: Activity) -> bytes:
    """Write an Application Activity message (A.5.3.1)."""
    root = _begin(event, "110100", "E", what.value)
    _participant(root, event.source.node, requestor=False, role="110150")
    return _end(root, event)


def transferred(event: Event, transfer: Transfer) -> bytes:
    """Write a DICOM Instances Transferred message (A.5.3.7); all studies are of one patient."""
    root = _begin(event, "110104", transfer.action)
    parties = {transfer.sender: "110153", transfer.receiver: "110152", transfer.requestor: ""}
    for node in dict.fromkeys((transfer.sender, transfer.receiver, transfer.requestor)):
        _participant(root, node, requestor=node == transfer.requestor, role=parties[node] or _role(node, transfer))
    _source(root, event)
    for study in transfer.studies:
        _study(root, study)
    _patient(root, transfer.patient)
    return _text(root)


def accessed(
    event: Event, action: str, user: Node, study: Study, patient: Patient, process: Node | None = None
) -> bytes:
    """Write a DICOM Instances Accessed message (A.5.3.6); `action` is C, R, U or D; `process` did it for `user`."""
    root = _begin(event, "110103", action)
    return _of_study(root, event, user, process, study, patient)


def study_deleted(event: Event, user: Node, study: Study, patient: Patient, process: Node | None = None) -> bytes:
    """Write a DICOM Study Deleted message (A.5.3.8), in place of the one above when nothing is left of the study."""
    root = _begin(event, "110105", "D")
    return _of_study(root, event, user, process, study, patient)


def queried(event: Event, query: Query) -> bytes:
    """Write a Query message (A.5.3.10)."""
    root = _begin(event, "110112", "E")
    _participant(root, query.asker, requestor=True, role="110153")
    _participant(root, event.source.node, requestor=False, role="110152")
    _source(root, event)
    part = _object(root, "110181", query.sop_class, kind="2", role="3")
    if query.identifier is None:
        SubElement(part, "ParticipantObjectName").text = WITHHELD
    else:
        SubElement(part, "ParticipantObjectQuery").text = _base64(query.identifier)
    _detail(part, "TransferSyntax", query.transfer_syntax)
    return _text(root)


def alerted(event: Event, kind: Alert, culprit: Node, words: str) -> bytes:
    """Write a Security Alert message (A.5.3.11)."""
    root = _begin(event, "110113", "E", kind.value)
    _participant(root, event.source.node, requestor=False)
    _participant(root, culprit, requestor=True)
    _source(root, event)
    part = _object(root, "110182", culprit.address or culprit.user, kind="2", role="13")
    SubElement(part, "ParticipantObjectName").text = _legal(culprit.user)
    _detail(part, "Alert Description", words)
    return _text(root)


def _of_study(root: Element, event: Event, user: Node, process: Node | None, study: Study, patient: Patient) -> bytes:
    _participant(root, user, requestor=True)
    if process is not None:
        _participant(root, process, requestor=False)
    _source(root, event)
    _study(root, study)
    _patient(root, patient)
    return _text(root)


def _role(node: Node, transfer: Transfer) -> str:
    """Give the role of a node that is the requestor and one of the two ends as well."""
    return "110153" if node == transfer.sender else "110152" if node == transfer.receiver else ""


def _begin(event: Event, code: str, action: str, kind: str = "") -> Element:
    root = Element("AuditMessage")
    part = SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=event.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(event.outcome)),
    )
    _coded(part, "EventID", code)
    if kind:
        _coded(part, "EventTypeCode", kind)
    return root


def _participant(root: Element, node: Node, *, requestor: bool, role: str = "") -> None:
    part = SubElement(root, "ActiveParticipant", UserID=_legal(node.user), UserIsRequestor=str(requestor).lower())
    if node.titles:
        part.set("AlternativeUserID", _legal(f"AETITLES={';'.join(node.titles)}"))
    if node.address:
        part.set("NetworkAccessPointID", _legal(node.address))
        part.set("NetworkAccessPointTypeCode", "2" if _is_address(node.address) else "1")
    if role:
        _coded(part, "RoleIDCode", role)


def _source(root: Element, event: Event) -> None:
    part = SubElement(root, "AuditSourceIdentification", AuditSourceID=_legal(event.source.name))
    if event.source.site:
        part.set("AuditEnterpriseSiteID", _legal(event.source.site))
    SubElement(part, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server


def _study(root: Element, study: Study) -> None:
    part = _object(root, "110180", study.uid, kind="2", role="3")
    SubElement(part, "ParticipantObjectName")  # the schema insists on a name or a query
    description = SubElement(part, "ParticipantObjectDescription")
    for sop_class, number in study.instances.items():
        counted = SubElement(description, "SOPClass", NumberOfInstances=str(number))
        if sop_class:
            counted.set("UID", _legal(sop_class))
        for uid in study.listed:
            SubElement(counted, "Instance", UID=_legal(uid))


def _patient(root: Element, patient: Patient) -> None:
    part = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_legal(patient.identifier),
        ParticipantObjectTypeCode="1",
        ParticipantObjectTypeCodeRole="1",
    )
    _coded(part, "ParticipantObjectIDTypeCode", "2", "RFC-3881", "Patient Number")
    SubElement(part, "ParticipantObjectName").text = _legal(patient.name)


def _object(root: Element, code: str, identifier: str, *, kind: str, role: str) -> Element:
    part = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_legal(identifier),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(part, "ParticipantObjectIDTypeCode", code)
    return part


def _detail(part: Element, kind: str, value: str) -> None:
    SubElement(part, "ParticipantObjectDetail", type=kind, value=_base64(value.encode("utf-8", "replace")))


def _coded(parent: Element, tag: str, code: str, system: str = "DCM", meaning: str = "") -> None:
    text = meaning or _MEANINGS[code]
    SubElement(parent, tag, {"csd-code": code, "codeSystemName": system, "displayName": text, "originalText": text})


def _end(root: Element, event: Event) -> bytes:
    _source(root, event)
    return _text(root)


def _text(root: Element) -> bytes:
    text: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return text.replace(b"\n", b"")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _legal(text: str) -> str:
    """Replace what XML has no way to say, and what would break the line."""
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "\ufffd" for c in text)


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()
