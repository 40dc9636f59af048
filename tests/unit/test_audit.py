"""Audit messages are what PS3.15 A.5 says, whatever stands in them."""

import base64
import re
from datetime import UTC, datetime
from functools import partial

import pytest
from audit_trail import SCHEMA, check, parts
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import messages, syslog
from gateway.audit.messages import Activity, Alert, Event, Node, Outcome, Patient, Query, Source, Study, Transfer

SOURCE = Source("dicom-gateway", "North", ("GATEWAY", "OTHER"), 4711, "gateway.example.org")
EVENT = Event(SOURCE, datetime(2026, 5, 4, 3, 2, 1, 987_654, UTC))
PEER = Node("CT01", ("CT01",), "10.0.0.21")
HERE = Node("GATEWAY", ("GATEWAY",))
STUDY = Study("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 3, "1.2.840.10008.5.1.4.1.1.4": 1})
LISTED = Study("1.2.3", {"": 2}, ("1.2.3.4", "1.2.3.5"))
PATIENT = Patient("4711-X", "Müller^Jörg")
TRANSFER = Transfer("C", PEER, HERE, PEER, (STUDY,), PATIENT)

EVERY = {
    "start": (partial(messages.activity, what=Activity.START), "110100", "110120"),
    "stop": (partial(messages.activity, what=Activity.STOP), "110100", "110121"),
    "received": (partial(messages.transferred, transfer=TRANSFER), "110104", None),
    "moved": (
        partial(messages.transferred, transfer=Transfer("R", HERE, Node("VIEWER"), PEER, (STUDY,) * 2, Patient())),
        "110104",
        None,
    ),
    "accessed": (partial(messages.accessed, action="D", user=HERE, study=STUDY, patient=PATIENT), "110103", None),
    "rejected": (
        partial(messages.accessed, action="U", user=PEER, study=LISTED, patient=PATIENT, process=HERE),
        "110103",
        None,
    ),
    "study deleted": (
        partial(messages.study_deleted, user=PEER, study=LISTED, patient=PATIENT, process=HERE),
        "110105",
        None,
    ),
    "queried": (
        partial(messages.queried, query=Query(PEER, "1.2.840.10008", b"\x08\0\x52\0", "1.2.3")),
        "110112",
        None,
    ),
    "query withheld": (partial(messages.queried, query=Query(PEER, "1.2.840.10008", None, "1.2.3")), "110112", None),
    "refused": (partial(messages.alerted, kind=Alert.NODE, culprit=PEER, words="no"), "110113", "110126"),
    "reload": (partial(messages.alerted, kind=Alert.CONFIGURATION, culprit=HERE, words="new"), "110113", "110129"),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_message_is_by_the_schema_with_its_codes(name):
    write, code, kind = EVERY[name]
    root = check(write(EVENT))
    event = root.find("EventIdentification")
    assert event.find("EventID").get("csd-code") == code
    assert [part.get("csd-code") for part in event.findall("EventTypeCode")] == ([kind] if kind else [])
    assert event.get("EventDateTime") == "2026-05-04T03:02:01.987+00:00"
    requestors = [part for part in root.findall("ActiveParticipant") if part.get("UserIsRequestor") == "true"]
    assert len(requestors) <= 1
    assert root.find("AuditSourceIdentification").get("AuditSourceID") == "dicom-gateway"


def test_the_schema_refuses_what_is_not_by_it():
    text = EVERY["received"][0](EVENT)
    for wrong, right in (
        (b"EventActionCode", b"EventAction"),
        (b'"110104"', b'""'),
        (b"UserIsRequestor", b"Requestor"),
    ):
        assert wrong in text
        broken = text.replace(wrong, right) if right != b'""' else text.replace(b'csd-code="110104" ', b"")
        with pytest.raises(AssertionError):
            check(broken)
    assert SCHEMA.exists()


def test_a_transfer_says_who_sent_to_whom_which_study_of_which_patient():
    root = check(EVERY["received"][0](EVENT))
    found = parts(root)
    assert found.roles == {"CT01": "110153", "GATEWAY": "110152"}
    assert found.studies == {"1.2.3": {"1.2.840.10008.5.1.4.1.1.2": 3, "1.2.840.10008.5.1.4.1.1.4": 1}}
    assert found.patient == ("4711-X", "Müller^Jörg")
    (asked,) = [part for part in root.findall("ActiveParticipant") if part.get("UserIsRequestor") == "true"]
    assert (asked.get("NetworkAccessPointID"), asked.get("NetworkAccessPointTypeCode")) == ("10.0.0.21", "2")
    assert asked.get("AlternativeUserID") == "AETITLES=CT01"


def test_a_query_has_its_identifier_as_it_came():
    (part,) = check(EVERY["queried"][0](EVENT)).findall("ParticipantObjectIdentification")
    assert base64.b64decode(part.findtext("ParticipantObjectQuery")) == b"\x08\0\x52\0"
    assert base64.b64decode(part.find("ParticipantObjectDetail").get("value")) == b"1.2.3"


@given(st.text(), st.text(), st.text())
def test_no_text_from_outside_breaks_a_message_or_its_line(title, person, words):
    node = Node(title, (title,), words)
    for text in (
        messages.transferred(
            EVENT, Transfer("C", node, HERE, node, (Study(title, {words: 1}),), Patient(words, person))
        ),
        messages.alerted(EVENT, Alert.NODE, node, words),
    ):
        check(text)
        assert b"\n" not in text


def test_a_syslog_message_has_the_header_that_ps3_15_asks_for():
    line = syslog.message(Event(SOURCE, EVENT.at, Outcome.MINOR), b"<x/>")
    header = r"<85>1 2026-05-04T03:02:01\.987654Z gateway\.example\.org dicom-gateway 4711 DICOM\+RFC3881 - "
    assert re.fullmatch(header.encode() + b"\xef\xbb\xbf<x/>", line)
