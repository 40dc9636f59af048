"""A storage commitment outlives archives, peers and processes, and what nobody could judge is never missing."""

import json
import threading
from contextlib import contextmanager

import command_line
import dcmtk
import psutil
import pytest
from embedded_archive import Caller, instance
from gateway_process import GatewayProcess
from modality import Modality, action, references
from processes import await_true, free_port
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage, generate_uid
from scripted_server import Answer, scripted
from spooled import arrival, content, put

from gateway.commitment import Judge, Reference, Register, Request, State
from gateway.dicomweb.client import Client
from gateway.embedded.server import EmbeddedArchive
from gateway.outbox import Outbox
from gateway.translate.profiles import PROFILES

SC = SecondaryCaptureImageStorage
ONE = (SC, "1.2.1.1.1")


@pytest.fixture
def archive(tmp_path):
    """Give an archive that can be stopped and started on the same port, with one instance."""
    with EmbeddedArchive(tmp_path / "archive", port=free_port()) as archive:
        store(archive, instance())
        yield archive


def store(archive, file):
    caller = Caller(archive)
    with caller.http:
        assert caller.store(file).status_code == 200


def delete(archive, path):
    caller = Caller(archive)
    with caller.http:
        assert caller.delete(path).status_code == 204


@pytest.fixture
def peer_port():
    return free_port()


@pytest.fixture
def start(tmp_path, archive, peer_port):
    """Start a gateway in front of the archive; the modality is a peer that can be called."""

    def start(**sections):
        return GatewayProcess(
            tmp_path / "gateway",
            archives={"remote": {"url": archive.url, "profile": "azure", "connect_timeout": 1}},
            peers={"CT01": {"host": "127.0.0.1", "port": peer_port}},
            log={"format": "json"},
            **{"ae_titles": {"GATEWAY": {"archive": "remote"}}, **sections},
        )

    return start


def lines(gateway, event):
    return [line for line in gateway.log.splitlines() if f'"{event}"' in line]


# -- the peer


def test_a_peer_that_is_away_gets_its_report_when_it_is_back(start, peer_port):
    with start() as gateway:
        modality = Modality(gateway.port)
        assert modality.ask(references(ONE)) == 0x0000
        await_true(lambda: lines(gateway, "N-EVENT-REPORT not delivered"))
        with modality.listening(peer_port):
            (report,) = modality.await_reports(1, 30)
    assert report.committed == [ONE]


def test_a_report_waits_for_the_end_of_an_association_that_breaks(start, peer_port):
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.listening(peer_port), modality.association() as association:
            assert action(association, references(ONE)) == 0x0000
            association.abort()
            (report,) = modality.await_reports(1)
    assert (report.way, report.committed) == ("new association", [ONE])


def test_a_request_that_crosses_the_report_is_answered(start):
    with start() as gateway:
        modality = Modality(gateway.port, seconds=1.0)
        with modality.association(echo=True) as association:
            assert action(association, references(ONE)) == 0x0000
            await_true(lambda: modality.called_with)
            assert association.send_c_echo().Status == 0x0000
            modality.await_reports(1)
        await_true(lambda: lines(gateway, "N-EVENT-REPORT"))


def test_a_peer_that_knows_no_roles_is_reported_to_nevertheless(start, peer_port):
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.listening(peer_port, roles=None):
            modality.ask(references(ONE))
            (report,) = modality.await_reports(1)
    assert report.committed == [ONE]


def test_a_peer_that_refuses_our_role_gets_no_report_until_it_grants_it(start, peer_port):
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.listening(peer_port, roles=(True, False)):
            modality.ask(references(ONE))
            await_true(lambda: lines(gateway, "N-EVENT-REPORT not delivered"))
            assert "its context or role is refused" in lines(gateway, "N-EVENT-REPORT not delivered")[0]
        with modality.listening(peer_port):
            (report,) = modality.await_reports(1, 30)
    assert report.committed == [ONE]


# -- the process


def test_a_report_survives_a_restart(start, peer_port):
    with start() as gateway:
        modality = Modality(gateway.port)
        request = references(ONE)
        assert modality.ask(request) == 0x0000
        await_true(lambda: lines(gateway, "N-EVENT-REPORT not delivered"))
        assert gateway.stop() == 0
    with modality.listening(peer_port), start():
        (report,) = modality.await_reports(1)
    assert (report.transaction, report.committed) == (request.TransactionUID, [ONE])


def test_a_transaction_that_is_not_judged_survives_a_kill(start, archive, peer_port):
    archive.stop()
    with start() as gateway:
        modality = Modality(gateway.port)
        assert modality.ask(references(ONE)) == 0x0000
        gateway.kill()
    archive.start()
    with modality.listening(peer_port), start():
        (report,) = modality.await_reports(1)
    assert report.committed == [ONE]


def test_a_report_survives_a_kill_while_its_association_waits_for_it(start, archive, peer_port):
    archive.stop()
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.association() as association:
            assert action(association, references(ONE)) == 0x0000
            gateway.kill()
    archive.start()
    with modality.listening(peer_port), start():
        (report,) = modality.await_reports(1, 40)
    assert report.committed == [ONE]


def test_a_stop_does_not_wait_for_reports(start):
    with start() as gateway:
        modality = Modality(gateway.port)
        modality.answers = [0x0110] * 50
        with modality.association() as association:
            assert action(association, references(ONE)) == 0x0000
            await_true(lambda: modality.refused)
            assert gateway.stop() == 0


# -- the archive


def test_while_the_archive_is_down_nothing_is_committed_and_nothing_is_missing(start, archive):
    archive.stop()
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.association() as association:
            assert action(association, references(ONE, (SC, "1.2.3"))) == 0x0000
            await_true(lambda: lines(gateway, "commitment waits"))
            assert modality.reports == []
            archive.start()
            (report,) = modality.await_reports(1, 40)
    assert (report.committed, report.failed) == ([ONE], {(SC, "1.2.3"): 0x0112})


def test_when_time_is_over_it_is_the_lack_of_time_that_is_reported(start, archive):
    archive.stop()
    with start(commitment={"patience": 2}) as gateway:
        modality = Modality(gateway.port)
        modality.ask(references(ONE, (SC, "1.2.3")), stay=40)
    (report,) = modality.reports
    assert (report.event_type, report.committed) == (2, [])
    assert report.failed == {ONE: 0x0213, (SC, "1.2.3"): 0x0213}


def test_what_is_deleted_is_not_committed_however_lately_it_was(start, archive):
    with start() as gateway:
        modality = Modality(gateway.port)
        modality.ask(references(ONE), stay=20)
        delete(archive, "/studies/1.2.1")
        modality.ask(references(ONE), stay=20)
    assert [(report.committed, report.failed) for report in modality.reports] == [([ONE], {}), ([], {ONE: 0x0112})]


def test_what_was_spooled_while_the_archive_was_down_is_committed_when_it_is_there(
    start, archive, peer_port, tmp_path
):
    file = tmp_path / "spooled.dcm"
    file.write_bytes(instance("1.9", "1.9.1", "1.9.1.1"))
    archive.stop()
    titles = {"GATEWAY": {"archive": "remote", "acknowledge": "spooled"}}
    with start(ae_titles=titles, listen={"workers": 2}) as gateway:
        assert dcmtk.storescu(gateway.port, file, calling="CT01").status == 0x0000
        modality = Modality(gateway.port)
        with modality.listening(peer_port):
            assert modality.ask(references((SC, "1.9.1.1"))) == 0x0000
            await_true(lambda: lines(gateway, "commitment waits"))
            assert modality.reports == []
            archive.start()
            (report,) = modality.await_reports(1, 60)
    assert (report.committed, report.failed) == ([(SC, "1.9.1.1")], {})


def test_the_process_that_judges_may_die_and_its_successor_goes_on(start, archive):
    archive.stop()
    with start() as gateway:
        modality = Modality(gateway.port)
        with modality.association() as association:
            assert action(association, references(ONE)) == 0x0000
            await_true(lambda: lines(gateway, "commitment waits"))
            children = psutil.Process(gateway.pid).children()
            for child in children[:1]:  # the one that was started first: it delivers, judges and reports
                child.kill()
            archive.start()
            (report,) = modality.await_reports(1, 60)
        (line,) = lines(gateway, "a process ended and is started again")
        assert '"delivery"' in line
    assert (report.way, report.committed) == ("same association", [ONE])


# -- the judge, with an outbox whose entries the test moves


@contextmanager
def judging(tmp_path, url, *, patience=3600.0, profile="azure"):
    """Give an outbox and a function that asks for references and gives a way to the verdicts, None until judged."""
    with (
        Outbox(tmp_path / "spool") as outbox,
        Register(tmp_path / "spool") as register,
        Client(url, name="main", profile=PROFILES[profile], connect_timeout=1) as client,
        Judge(register, outbox, {"main": client}, patience=patience),
    ):

        def ask(*pairs):
            request = Request(generate_uid(), tuple(Reference(*pair) for pair in pairs))
            register.add(request, calling="CT01", called="GATEWAY", archive="main", holder="a", hold=60)

            def verdicts():
                (found,) = [one for one in register.transactions() if one.uid == request.transaction]
                return found.verdicts if found.state is State.JUDGED else None

            return verdicts

        yield outbox, ask


CT = (CTImageStorage, "1.2.3")


def claim(outbox):
    (entry,) = outbox.claim("main", count=1, max_bytes=1 << 20, lease=60)
    return entry


def test_what_is_in_the_outbox_is_waited_for(tmp_path, archive):
    ct = instance("1.2", "1.2.1", "1.2.3", SOPClassUID=CTImageStorage)
    with judging(tmp_path, archive.url) as (outbox, ask):
        put(outbox, arrival("1.2.3"), content(1))
        verdicts = ask(CT, ONE)
        threading.Event().wait(1.0)
        assert verdicts() is None
        entry = claim(outbox)
        store(archive, ct)
        threading.Event().wait(0.5)
        assert verdicts() is None
        outbox.done([entry.id])
        await_true(verdicts)
        assert verdicts() == (0, 0)


def test_what_the_outbox_has_delivered_but_the_archive_does_not_list_yet_is_waited_for(tmp_path, archive):
    with judging(tmp_path, archive.url) as (outbox, ask):
        put(outbox, arrival("1.2.3"), content(1))
        outbox.done([claim(outbox).id])
        verdicts = ask(CT)
        threading.Event().wait(1.0)
        assert verdicts() is None
        store(archive, instance("1.2", "1.2.1", "1.2.3", SOPClassUID=CTImageStorage))
        await_true(verdicts)
        assert verdicts() == (0,)


def test_what_the_outbox_has_delivered_and_the_archive_has_lost_is_missing(tmp_path, archive):
    with judging(tmp_path, archive.url) as (outbox, ask):
        put(outbox, arrival("1.2.3"), content(1))
        outbox.done([claim(outbox).id])
        verdicts = ask(CT)
        await_true(verdicts, 40)
        assert verdicts() == (0x0112,)


def test_what_is_set_aside_fails_at_once_even_if_the_archive_has_something_under_its_uid(tmp_path, archive):
    store(archive, instance("1.2", "1.2.1", "1.2.3", SOPClassUID=CTImageStorage))
    with judging(tmp_path, archive.url) as (outbox, ask):
        put(outbox, arrival("1.2.3"), content(1))
        outbox.set_aside(claim(outbox).id, "the archive refused it")
        verdicts = ask(CT, ONE)
        await_true(verdicts)
        assert verdicts() == (0x0110, 0)


def test_what_is_held_is_waited_for_until_time_is_over(tmp_path, archive):
    with judging(tmp_path, archive.url, patience=2) as (outbox, ask):
        put(outbox, arrival("1.2.3"), content(1))
        assert outbox.hold("1.2") == 1
        verdicts = ask(CT, ONE)
        await_true(verdicts)
        assert verdicts() == (0x0213, 0)


def test_what_fails_for_good_at_the_archive_ends_as_a_processing_failure(tmp_path):
    with scripted(Answer(400)) as script, judging(tmp_path, script.url, patience=1) as (_, ask):
        verdicts = ask(CT)
        await_true(verdicts)
        assert verdicts() == (0x0110,)


def test_a_transaction_for_an_archive_that_is_gone_from_the_configuration_fails(tmp_path):
    request = Request("1.2.9", (Reference(*CT),))
    with Outbox(tmp_path) as outbox, Register(tmp_path) as register:
        register.add(request, calling="CT01", called="GATEWAY", archive="former", holder="a", hold=0)
        with Judge(register, outbox, {}, patience=3600):
            (found,) = register.transactions()
    assert found.verdicts == (0x0110,)


def test_the_operator_can_list_the_commitments_that_are_open(start):
    with start() as gateway:
        config = ("--config", gateway.folder / "config.yaml")
        shown = command_line.run("queue", "commitments", *config)
        assert (shown.returncode, shown.stdout.strip()) == (0, "No storage commitment is open.")
        request = references(ONE)
        assert Modality(gateway.port).ask(request) == 0x0000
        await_true(lambda: lines(gateway, "N-EVENT-REPORT not delivered"))
        shown = command_line.run("queue", "commitments", "--json", *config)
        (row,) = map(json.loads, shown.stdout.splitlines())
        assert (row["transaction"], row["state"]) == (request.TransactionUID, "to be reported")
        assert (row["calling"], row["instances"], row["failed"]) == ("CT01", 1, 0)
        assert request.TransactionUID in command_line.run("queue", "commitments", *config).stdout
