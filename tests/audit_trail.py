"""Read audit messages as their receiver does: by the schema, out of a file or off the wire."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

SCHEMA = Path(__file__).parent / "schemas" / "audit-message.rng"
_CHECKER = etree.RelaxNG(etree.parse(SCHEMA))
_LINE = re.compile(rb"<85>1 \S+ \S+ \S+ \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<\?xml.*)", re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """What a DICOM Instances Transferred message says."""

    roles: dict[str, str]
    studies: dict[str, dict[str, int]]
    patient: tuple[str, str]


def check(text: bytes) -> Any:
    """Validate a message by the schema of PS3.15 A.5.1 and give its root element."""
    root = etree.fromstring(text)
    assert _CHECKER.validate(root), _CHECKER.error_log
    return root


def of_line(line: bytes) -> Any:
    """Give the root element of a syslog message."""
    match = _LINE.fullmatch(line)
    assert match, line[:200]
    return check(match[1])


def in_folder(folder: Path) -> list[Any]:
    """Give every message of a trail's files, in order."""
    return [of_line(line) for path in sorted(folder.glob("*.log")) for line in path.read_bytes().splitlines()]


def of_kind(roots: list[Any], code: str) -> list[Any]:
    """Choose the messages with an event ID."""
    return [root for root in roots if root.find("EventIdentification/EventID").get("csd-code") == code]


def outcome(root: Any) -> str:
    return str(root.find("EventIdentification").get("EventOutcomeIndicator"))


def parts(root: Any) -> Parts:
    studies, patient = {}, ("", "")
    for part in root.findall("ParticipantObjectIdentification"):
        code = part.find("ParticipantObjectIDTypeCode").get("csd-code")
        if code == "110180":
            classes = part.findall("ParticipantObjectDescription/SOPClass")
            counted = {each.get("UID") or "": int(each.get("NumberOfInstances")) for each in classes}
            studies[part.get("ParticipantObjectID")] = counted
        elif code == "2":
            patient = (part.get("ParticipantObjectID"), part.findtext("ParticipantObjectName") or "")
    roles = {
        part.get("UserID"): role.get("csd-code")
        for part in root.findall("ActiveParticipant")
        if (role := part.find("RoleIDCode")) is not None
    }
    return Parts(roles, studies, patient)
