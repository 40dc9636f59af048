"""Storage commitment with pynetdicom's SCU and SCP, in front of the embedded archive and of Orthanc."""

from contextlib import ExitStack

import dcmtk
import processes
import pytest
from gateway_process import GatewayProcess
from modality import PUSH_MODEL, WELL_KNOWN, Modality, action, references
from orthanc import Orthanc
from pydicom.uid import MRImageStorage, generate_uid
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from gateway.translate.generate import ct_series

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
WAIT = 20


@pytest.fixture(scope="module")
def ports():
    """Give the port of each peer that listens now and then."""
    return {title: processes.free_port() for title in ("CT01", "CT02_SC", "TEST")}


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def gateway(request, ports, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    peers = {title: {"host": "127.0.0.1", "port": port} for title, port in ports.items()}
    peers |= {"CT02": {"report_to": "CT02_SC"}, "DEAF": {}, "STORES": {"allow": ["store"]}, "DCMTK": {}}
    with ExitStack() as stack:
        sections = {}
        if request.param == "orthanc":
            orthanc = stack.enter_context(Orthanc(folder))
            sections = {
                "archives": {"orthanc": {"url": orthanc.url, "profile": "orthanc"}},
                "ae_titles": {"GATEWAY": {"archive": "orthanc"}},
            }
        running = stack.enter_context(GatewayProcess(folder, peers=peers, log={"format": "json"}, **sections))
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def stored(gateway, tmp_path_factory):
    """Store two series of one study and give their references."""
    folder = tmp_path_factory.mktemp("study")
    made = [
        image
        for number in (1, 2)
        for image in ct_series(folder, "commitment", count=5, rows=8, columns=8, number=number)
    ]
    assert set(dcmtk.storescu(gateway.port, *(image.path for image in made)).statuses) == {0}
    return [(image.sop_class, image.sop_instance) for image in made]


@pytest.fixture
def modality(gateway):
    return Modality(gateway.port)


def test_all_that_is_stored_is_committed_on_the_same_association(modality, stored):
    request = references(*stored)
    assert modality.ask(request, stay=WAIT) == 0x0000
    (report,) = modality.reports
    assert (report.event_type, report.way) == (1, "same association")
    assert report.transaction == request.TransactionUID
    assert report.committed == stored
    assert report.failed == {}
    assert report.retrieve_ae_title == "GATEWAY"


def test_what_is_not_there_and_what_has_another_class_fails_with_its_reason(modality, stored):
    gone, other = (stored[0][0], generate_uid()), (MRImageStorage, stored[1][1])
    modality.ask(references(gone, *stored[2:], other), stay=WAIT)
    (report,) = modality.reports
    assert report.event_type == 2
    assert report.committed == stored[2:]
    assert report.failed == {gone: 0x0112, other: 0x0119}


def test_who_releases_at_once_is_called_in_the_role_of_its_scp(modality, stored, ports):
    with modality.listening(ports["CT01"]):
        assert modality.ask(references(*stored)) == 0x0000
        (report,) = modality.await_reports(1)
    assert (report.way, report.event_type, report.committed) == ("new association", 1, stored)
    assert report.roles == (False, True)
    assert (report.calling, report.called) == ("GATEWAY", "CT01")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_a_report_comes_in_the_transfer_syntax_that_the_peer_takes(modality, stored, ports, syntax):
    with modality.listening(ports["CT01"], syntaxes=[syntax]):
        modality.ask(references(*stored), syntaxes=[syntax])
        (report,) = modality.await_reports(1)
    assert (report.syntax, report.committed) == (syntax, stored)


def test_an_implicit_only_peer_is_reported_to_on_its_own_association(modality, stored):
    modality.ask(references(*stored), stay=WAIT, syntaxes=[IMPLICIT])
    assert [(report.syntax, report.committed) for report in modality.reports] == [(IMPLICIT, stored)]


def test_a_peer_may_take_its_reports_under_another_title(gateway, stored, ports):
    modality = Modality(gateway.port, title="CT02")
    with modality.listening(ports["CT02_SC"], title="CT02_SC"):
        modality.ask(references(*stored))
        (report,) = modality.await_reports(1)
    assert report.called == "CT02_SC"


def test_a_report_that_the_peer_refuses_is_sent_again(modality, stored, ports):
    modality.answers = [0x0110]
    with modality.listening(ports["CT01"]):
        modality.ask(references(*stored))
        modality.await_reports(1, 30)
    assert modality.refused == 1


def test_a_report_that_was_refused_on_the_same_association_comes_on_a_new_one(modality, stored, ports):
    modality.answers = [0x0110]
    with modality.listening(ports["CT01"]):
        modality.ask(references(*stored), stay=30)
    assert [report.way for report in modality.reports] == ["new association"]


def test_several_transactions_on_one_association_each_get_their_report(modality, stored):
    requests = [references(pair) for pair in stored[:4]]
    with modality.association() as association:
        assert [action(association, request) for request in requests] == [0] * 4
        modality.await_reports(4)
    assert sorted(report.transaction for report in modality.reports) == sorted(r.TransactionUID for r in requests)


def test_a_transaction_uid_that_is_in_use_is_refused(gateway, stored):
    modality = Modality(gateway.port, title="DEAF")
    request = references(*stored)
    modality.answers = [0x0110]
    with modality.association() as association:
        assert action(association, request) == 0x0000
        assert action(association, request) == 0x0131
        processes.await_true(lambda: modality.refused == 1)
        assert action(association, request) == 0x0131


def test_who_cannot_be_called_is_named_in_the_log_with_what_to_do(gateway, stored):
    modality = Modality(gateway.port, title="DEAF")
    request = references(*stored)
    assert modality.ask(request) == 0x0000
    processes.await_true(
        lambda: any(
            request.TransactionUID in line and "set host and port of peers.DEAF" in line
            for line in gateway.log.splitlines()
        )
    )


BAD = {
    "no data set": (None, {}, {0x0120}),
    "no transaction": (references(("1.2", "1.3"), transaction=None), {}, {0x0120}),
    "no references": (references(), {}, {0x0121}),
    "other action": (references(("1.2", "1.3")), {"action_type": 2}, {0x0123}),
    "other instance": (references(("1.2", "1.3")), {"instance_uid": "1.2.3"}, {0x0112}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_and_the_next_one_on_the_association_works(modality, stored, name):
    request, named, statuses = BAD[name]
    with modality.association() as association:
        assert action(association, request, **named) in statuses
        assert action(association, references(*stored)) == 0x0000
        modality.await_reports(1)
    assert modality.reports[0].committed == stored


def test_it_is_offered_only_to_whom_it_is_allowed(gateway):
    entity = AE(ae_title="STORES")
    entity.add_requested_context(PUSH_MODEL)
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY")
    assert association.is_established
    assert [context.abstract_syntax for context in association.rejected_contexts] == [PUSH_MODEL]
    association.release()


def test_a_role_is_granted_as_proposed_and_never_more(gateway):
    for proposed, granted in (((True, False), (True, False)), ((True, True), (True, False))):
        entity = AE(ae_title="CT01")
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=proposed[0], scp_role=proposed[1])
        association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY", ext_neg=[role])
        assert association.is_established
        answered = association.acceptor.role_selection[PUSH_MODEL]
        assert (bool(answered.scu_role), bool(answered.scp_role)) == granted
        association.release()


def test_an_action_in_another_context_is_refused(gateway):
    entity = AE(ae_title="CT01")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY")
    status, _ = association.send_n_action(
        references(("1.2", "1.3")), 1, PUSH_MODEL, WELL_KNOWN, meta_uid=Verification
    )
    assert status.Status == 0x0211
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_hundreds_of_references_are_all_in_the_report(modality, stored, tmp_path):
    many = [(stored[0][0], generate_uid()) for _ in range(300)]
    modality.ask(references(*many, *stored), stay=60)
    (report,) = modality.reports
    assert report.committed == stored
    assert report.failed == dict.fromkeys(many, 0x0112)
