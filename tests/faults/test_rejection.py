"""A rejection note hides or deletes what it names, nothing else, whatever comes first, fails or dies (IHE IOCM)."""

import json
import sqlite3
import time
from contextlib import closing

import audit_trail
import dcmtk
import pytest
from admin_page import AdminPage, admin
from command_line import run
from embedded_archive import Caller, instance
from gateway_process import GatewayProcess
from meddling_proxy import Rule, meddling
from modality import Modality, references
from processes import await_true, free_port
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from rejection_notes import note

from gateway.embedded.server import EmbeddedArchive

DELETE_ALL = dict.fromkeys(("quality", "safety", "worklist", "retention"), "delete")
HIDE_ALL = dict.fromkeys(DELETE_ALL, "hide")
REJECTED, PENDING = 0xC770, 0xA700
A1, A2, B1 = ("1.2.1", "1.2.1.1", "1.2.1.1.1"), ("1.2.1", "1.2.1.1", "1.2.1.1.2"), ("1.2.1", "1.2.1.2", "1.2.1.2.1")
ALL = (A1, A2, B1)


class Site:
    """A gateway in front of an archive of its own, and what its peers do."""

    def __init__(self, folder):
        self.folder = folder
        self.archive = EmbeddedArchive(folder / "archive", port=free_port())
        self.receiver_port = free_port()
        self.gateway = None

    def start(self, rejection=DELETE_ALL, *, acknowledge="archived", profile="embedded", url="", **sections):
        peers = {
            "QC": {"allow": ["echo", "store", "find", "move", "get", "commit", "reject"]},
            "CT01": {},
            "STORESCP": {"host": "127.0.0.1", "port": self.receiver_port},
        }
        titles = {
            "GATEWAY": {"archive": "far", "acknowledge": acknowledge, "rejection": rejection},
            "SEES_ALL": {"archive": "far"},
        }
        delivery = {"connections": 2, "retry_first": 0.2, "retry_longest": 0.5}
        far = {"url": url or self.archive.url, "profile": profile, "connect_timeout": 1, "delivery": delivery}
        self.gateway = GatewayProcess(
            self.folder / "gateway",
            **{"archives": {"far": far}, "ae_titles": titles, "peers": peers, "log": {"format": "json"}, **sections},
        )
        return self.gateway

    def store(self, *files, calling="CT01", called="GATEWAY"):
        """Store Part 10 files and give the statuses."""
        paths = []
        for number, file in enumerate(files):
            path = self.folder / f"{number}.dcm"
            path.write_bytes(file)
            paths.append(path)
        return dcmtk.storescu(self.gateway.port, *paths, calling=calling, called=called).statuses

    def reject(self, *instances, calling="QC", **values):
        return self.store(note(*instances, **values), calling=calling)

    def found(self, level, *keys, called="GATEWAY"):
        keys = (f"QueryRetrieveLevel={level}", *keys)
        result = dcmtk.findscu(self.gateway.port, *keys, calling="CT01", called=called)
        assert result.status == 0x0000, result.output[-2000:]
        return result.responses

    def instances(self, study="1.2.1", *, called="GATEWAY"):
        """Give what an IMAGE query under each series finds, without the notes."""
        keys = (f"StudyInstanceUID={study}", "SeriesInstanceUID", "Modality=OT")
        series = [str(one.SeriesInstanceUID) for one in self.found("SERIES", *keys, called=called)]
        return {
            str(one.SOPInstanceUID)
            for uid in series
            for one in self.found(
                "IMAGE", f"StudyInstanceUID={study}", f"SeriesInstanceUID={uid}", "SOPInstanceUID", called=called
            )
        }

    def archived(self, study="1.2.1"):
        """Give what the archive has of a study, without the notes."""
        caller = Caller(self.archive)
        with caller.http:
            answer = caller.get(f"/studies/{study}/instances?limit=200")
        rows = answer.json() if answer.status_code == 200 else []
        return {row["00080018"]["Value"][0] for row in rows} & {one[2] for one in ALL}

    def lines(self, event):
        parsed = (json.loads(line) for line in self.gateway.log.splitlines() if line.startswith("{"))
        return [line for line in parsed if line.get("event") == event]

    def await_line(self, event, count=1, seconds=20):
        await_true(lambda: len(self.lines(event)) >= count, seconds, event)
        return self.lines(event)

    def deletions(self):
        return [line.split()[1] for line in self.archive.switches.requests() if line.startswith("DELETE")]

    def hurry(self):
        """Let what waits be due now, as if the time had passed."""
        self.change("UPDATE rejections SET due = 0 WHERE due IS NOT NULL")

    def change(self, statement):
        with closing(sqlite3.connect(self.table, timeout=10)) as connection, connection:
            return connection.execute(statement).fetchall()

    def rows(self, condition):
        return self.change(f"SELECT sop_instance FROM rejections WHERE {condition}")

    @property
    def table(self):
        return self.folder / "gateway" / "spool" / "rejections.db"


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    with site.archive:
        yield site


def put(*names, **values):
    return [instance(*name, **values) for name in names]


# -- deletion


@pytest.mark.parametrize(
    ("title", "acknowledge"),
    [("113001", "archived"), ("113037", "spooled"), ("113038", "archived"), ("113039", "spooled")],
)
def test_what_a_note_names_is_deleted_and_the_rest_and_the_note_stay(site, title, acknowledge):
    with site.start(acknowledge=acknowledge):
        assert site.store(*put(*ALL)) == [0, 0, 0]
        await_true(lambda: len(site.archived()) == 3)
        assert site.reject(A1, title=title, sop="1.2.99") == [0]
        (line,) = site.await_line("rejected instance deleted")
        assert site.archived() == {A2[2], B1[2]}
        assert site.instances() == {A2[2], B1[2]}
        named = {"instance": A1[2], "title": title, "note": "1.2.99", "calling": "QC", "archive": "far"}
        assert named.items() <= line.items()
        assert "Doe" not in site.gateway.log
        assert "ID1" not in site.gateway.log
        assert len(site.found("SERIES", "StudyInstanceUID=1.2.1", "Modality=KO", "SeriesInstanceUID")) == 1
        assert site.deletions() == ["/v2/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"]


def test_the_largest_unit_that_takes_nothing_else_is_deleted(site):
    with site.start():
        site.store(*put(*ALL))
        site.reject(A1, A2)  # a whole series; the note lies in the study
        site.await_line("rejected instance deleted", 2)
        assert site.archived() == {B1[2]}
        site.reject(B1, study="1.5")  # what is left of the study, but for the first note
        site.await_line("rejected instance deleted", 3)
        site.store(*put(("1.7", "1.7.1", "1.7.1.1"), ("1.7", "1.7.2", "1.7.2.1")))
        site.reject(("1.7", "1.7.1", "1.7.1.1"), ("1.7", "1.7.2", "1.7.2.1"), study="1.5")
        site.await_line("rejected instance deleted", 5)
        assert site.deletions() == [
            "/v2/studies/1.2.1/series/1.2.1.1",
            "/v2/studies/1.2.1/series/1.2.1.2",
            "/v2/studies/1.7",
        ]


def test_what_is_held_in_the_outbox_keeps_its_study_from_being_deleted_whole(site):
    with site.start(acknowledge="spooled") as gateway:
        site.store(*put(A1))
        await_true(site.archived)
        outbox = gateway.folder / "spool" / "outbox" / "outbox.db"
        with sqlite3.connect(outbox, timeout=10) as table:
            table.execute("INSERT INTO holds VALUES ('1.2.1', '')")
        table.close()
        site.store(*put(A2))
        site.reject(A1, study="1.5")
        site.await_line("rejected instance deleted")
        assert site.deletions() == ["/v2/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"]


# -- hiding


def test_what_is_hidden_is_found_by_nobody_here_but_stays_in_the_archive(site, tmp_path):
    with dcmtk.storescp(tmp_path / "received", port=site.receiver_port) as receiver, site.start(HIDE_ALL) as gateway:
        site.store(*put(*ALL))
        site.reject(A1, B1, study="1.5")
        site.await_line("rejected instance hidden", 2)
        assert site.archived() == {one[2] for one in ALL}
        assert site.instances() == {A2[2]}
        (study,) = site.found(
            "STUDY", "StudyInstanceUID=1.2.1", "NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries"
        )
        assert (study.NumberOfStudyRelatedInstances, study.NumberOfStudyRelatedSeries) == (1, 1)
        (series,) = site.found(
            "SERIES", "StudyInstanceUID=1.2.1", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances"
        )
        assert (series.SeriesInstanceUID, series.NumberOfSeriesRelatedInstances) == (A1[1], 1)
        whole = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.1")
        moved = dcmtk.movescu(gateway.port, receiver.title, *whole, model="S", calling="CT01")
        assert (moved.status, len(receiver.files)) == (0x0000, 1)
        got = dcmtk.getscu(gateway.port, tmp_path / "got", *whole, model="S", calling="CT01")
        assert (got.status, len(list((tmp_path / "got").iterdir()))) == (0x0000, 1)
        assert site.instances(called="SEES_ALL") == {one[2] for one in ALL}
        modality = Modality(gateway.port)
        sc = SecondaryCaptureImageStorage
        modality.ask(references((sc, A1[2]), (sc, A2[2])), stay=20)
        (report,) = modality.reports
        assert (report.committed, report.failed) == ([(sc, A2[2])], {(sc, A1[2]): 0x0112})


def test_modalities_and_classes_of_a_study_are_those_of_what_can_be_seen(site):
    names = ("1.9", "1.9.1", "1.9.1.1"), ("1.9", "1.9.2", "1.9.2.1"), ("1.9", "1.9.2", "1.9.2.2")
    keys = ("StudyInstanceUID=1.9", "SOPClassesInStudy", "NumberOfStudyRelatedInstances")
    with site.start(HIDE_ALL):
        site.store(instance(*names[0], Modality="MR"), *put(*names[1:], Modality="CT"))
        (before,) = site.found("STUDY", *keys, "ModalitiesInStudy")
        assert sorted(before.ModalitiesInStudy) == ["CT", "MR"]
        site.reject(names[0], names[1], study="1.5")
        site.await_line("rejected instance hidden", 2)
        (after,) = site.found("STUDY", *keys, "ModalitiesInStudy")
        assert (after.ModalitiesInStudy, after.NumberOfStudyRelatedInstances) == ("CT", 1)
        assert after.SOPClassesInStudy == SecondaryCaptureImageStorage
        assert len(site.found("STUDY", *keys, "ModalitiesInStudy=CT")) == 1
        assert site.found("STUDY", *keys, "ModalitiesInStudy=MR") == []
        (series,) = site.found(
            "SERIES", "StudyInstanceUID=1.9", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances"
        )
        assert (series.SeriesInstanceUID, series.NumberOfSeriesRelatedInstances) == ("1.9.2", 1)
        (all_of_it,) = site.found("STUDY", *keys, "ModalitiesInStudy=MR", called="SEES_ALL")
        assert all_of_it.NumberOfStudyRelatedInstances == 3


def test_what_is_hidden_in_a_series_that_is_fetched_whole_is_not_sent(site, tmp_path):
    names = [("1.6", "1.6.1", f"1.6.1.{number}") for number in range(6)]
    with dcmtk.storescp(tmp_path / "received", port=site.receiver_port) as receiver, site.start(HIDE_ALL) as gateway:
        site.store(*put(*names))
        site.reject(names[2], study="1.5")
        site.await_line("rejected instance hidden")
        keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.6")
        moved = dcmtk.movescu(gateway.port, receiver.title, *keys, model="S", calling="CT01")
        assert moved.status == 0x0000
        sent = {str(dcmread(path).SOPInstanceUID) for path in receiver.files}
        assert sent == {one[2] for one in names} - {names[2][2]}
        assert any(
            line.startswith("GET /v2/studies/1.6/series/1.6.1") and "instances" not in line
            for line in site.archive.switches.requests()
        )


def test_a_study_of_which_nothing_is_left_is_not_found_at_any_level(site):
    with site.start(HIDE_ALL) as gateway:
        site.store(*put(A1, A2))
        site.store(*put(("1.8", "1.8.1", "1.8.1.1")))
        site.reject(A1, A2, study="1.5")
        site.await_line("rejected instance hidden", 2)
        assert [str(one.StudyInstanceUID) for one in site.found("STUDY", "StudyInstanceUID", "Modality")] == [
            "1.5",
            "1.8",
        ]
        assert site.found("SERIES", "StudyInstanceUID=1.2.1", "SeriesInstanceUID") == []
        patients = dcmtk.findscu(
            gateway.port,
            *("QueryRetrieveLevel=PATIENT", "PatientID=ID1", "NumberOfPatientRelatedStudies"),
            *("NumberOfPatientRelatedInstances",),
            model="P",
            calling="CT01",
        )
        (patient,) = patients.responses
        assert (patient.NumberOfPatientRelatedStudies, patient.NumberOfPatientRelatedInstances) == (2, 2)


def test_an_archive_that_does_not_delete_has_it_hidden(site):
    with site.start(profile="standard"):
        site.store(*put(*ALL))
        site.reject(A1)
        (line,) = site.await_line("rejected instance hidden, for it cannot be deleted")
        assert line["reason"]
        assert (site.archived(), site.instances()) == ({one[2] for one in ALL}, {A2[2], B1[2]})


# -- the audit trail


def trail(site):
    """Give what a stopped gateway's trail says of rejections: action, outcome, study, instances, patient."""
    said = []
    for root in audit_trail.in_folder(site.gateway.folder / "spool" / "audit"):
        event = root.find("EventIdentification")
        kind = event.find("EventID").get("csd-code")
        if kind not in ("110103", "110105"):
            continue
        action = "study" if kind == "110105" else event.get("EventActionCode")
        people = [(part.get("UserID"), part.get("UserIsRequestor")) for part in root.findall("ActiveParticipant")]
        assert people == [("QC", "true"), ("GATEWAY", "false")]
        parts = audit_trail.parts(root)
        ((study, counted),) = parts.studies.items()
        listed = [one.get("UID") for one in root.iter("Instance")]
        said.append((action, event.get("EventOutcomeIndicator"), study, counted[""], listed, parts.patient[0]))
    return said


@pytest.mark.parametrize("patients", [True, False])
def test_the_audit_trail_tells_of_every_instance_and_of_what_was_refused(site, patients):
    with site.start({"quality": "hide", "safety": "delete"}, audit={"patients": patients}):
        site.store(*put(*ALL, ("1.7", "1.7.1", "1.7.1.1"), ("1.7", "1.7.2", "1.7.2.1")))
        site.reject(A1, A2, title="113001", study="1.5")
        site.await_line("rejected instance hidden", 2)
        site.reject(B1, patient="ID2", study="1.5")
        site.await_line("rejection not acted upon")
        site.reject(B1, study="1.5")
        site.await_line("rejected instance deleted")
        site.reject(("1.7", "1.7.1", "1.7.1.1"), ("1.7", "1.7.2", "1.7.2.1"), study="1.5")
        site.await_line("rejected instance deleted", 3)
    patient = "ID1" if patients else "withheld"
    assert trail(site) == [
        ("U", "0", "1.2.1", 2, [A1[2], A2[2]], patient),
        ("D", "4", "1.2.1", 1, [B1[2]], patient),
        ("D", "0", "1.2.1", 1, [B1[2]], patient),
        ("study", "0", "1.7", 2, [], patient),
    ]


def test_the_audit_trail_tells_of_what_was_taken_out_of_the_outbox(site):
    with site.start(acknowledge="spooled"):
        site.archive.stop()
        site.store(*put(A1, A2))
        site.reject(A1)
        site.await_line("rejection waits")
        site.archive.start()
        await_true(lambda: site.rows("looks > 0"), 40)
    assert trail(site) == [("D", "0", "1.2.1", 1, [A1[2]], "ID1")]


# -- the operator


def command(site, name, *arguments, answer="", code=0):
    done = run("rejections", name, "--config", site.folder / "gateway" / "config.yaml", *arguments, answer=answer)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def listed(site, *arguments):
    found = (json.loads(line) for line in command(site, "list", "--json", *arguments).stdout.splitlines())
    return {(one["instance"], one["state"]) for one in found}


def test_the_operator_sees_what_is_rejected_and_takes_it_back_after_being_asked(site):
    with site.start({"quality": "hide", "safety": "delete"}, admin=admin()) as gateway:
        assert "No such instance" in command(site, "list").stdout
        site.store(*put(*ALL))
        site.reject(A1, A2, title="113001", study="1.5", sop="1.2.98")
        site.reject(B1, study="1.5", sop="1.2.99")
        site.await_line("rejected instance hidden", 2)
        site.await_line("rejected instance deleted")
        assert listed(site) == {(A1[2], "hidden"), (A2[2], "hidden"), (B1[2], "gone")}
        assert listed(site, "--note", "1.2.98", "--state", "hidden") == {(A1[2], "hidden"), (A2[2], "hidden")}
        assert listed(site, B1[2]) == {(B1[2], "gone")}
        table = command(site, "list", "--limit", "1").stdout
        assert "There are more" in table
        assert "113001, from QC to GATEWAY for far" in table
        counted = AdminPage(gateway).metrics("dicom_gateway_rejected_instances")
        assert {labels: number for labels, number in counted.items() if number} == {
            ("far", "hidden"): 2,
            ("far", "gone"): 1,
        }
        refused = command(site, "lift", A1[2], B1[2], answer="n\n", code=1).stderr
        assert "1 hidden, will be seen again" in refused
        assert "1 deleted or never there, may be stored again" in refused
        assert site.instances() == set()
        command(site, "lift", A1[2], B1[2], answer="y\n")
        assert site.instances() == {A1[2]}
        assert site.store(*put(A2, B1)) == [REJECTED, 0]
        assert listed(site) == {(A2[2], "hidden")}
        command(site, "lift", A1[2], "--yes", code=1)
        command(site, "lift", code=2)
        command(site, "lift", "--archive", "far", code=2)
        assert "Doe" not in table
    lifted = audit_trail.of_kind(audit_trail.in_folder(gateway.folder / "spool" / "audit"), "110103")[-2:]
    assert [part.find("EventIdentification").get("EventActionCode") for part in lifted] == ["D", "U"]


def test_a_deletion_that_waits_is_shown_counted_and_can_be_called_off(site):
    with meddling(site.archive.url) as proxy, site.start(url=proxy.url, admin=admin()) as gateway:
        proxy.rule = lambda path: Rule(status=503 if path.startswith("DELETE") else None)
        site.store(*put(*ALL))
        site.reject(A1, study="1.5", sop="1.2.99")
        site.await_line("rejection waits")
        assert listed(site, "--state", "deleting") == {(A1[2], "deleting")}
        await_true(lambda: "failed" in command(site, "list").stdout)
        assert AdminPage(gateway).metrics("dicom_gateway_rejected_instances")["far", "deleting"] == 1
        told = command(site, "lift", "--note", "1.2.99", answer="y\n").stderr
        assert "1 to be deleted, will stay" in told
        assert site.instances() == {one[2] for one in ALL}
        assert site.store(*put(A1)) == [0]
        assert site.archived() == {one[2] for one in ALL}


# -- who may, and what is off


def test_by_default_a_note_is_an_instance_like_any_other(site):
    with site.start({}):
        site.store(*put(*ALL))
        assert site.reject(A1) == [0]
        assert site.store(*put(A1)) == [0]
        assert site.instances() == {one[2] for one in ALL}
        assert not site.table.exists()


def test_only_a_peer_that_may_reject_is_heeded(site):
    with site.start():
        site.store(*put(*ALL))
        assert site.reject(A1, calling="CT01") == [0]
        (line,) = site.await_line("rejection note not heeded")
        assert "reject" in line["reason"]
        assert site.store(*put(A1)) == [0]
        assert site.archived() == {one[2] for one in ALL}


def test_each_title_has_its_policy_and_other_titles_none(site):
    with site.start({"quality": "hide", "safety": "delete"}):
        site.store(*put(*ALL))
        site.reject(A1, title="113001")
        site.reject(A2, title="113037")
        site.reject(B1, title="113038")
        site.reject(B1, title="113000")  # of interest
        site.reject(B1, title="113037", scheme="99HERE")
        site.await_line("rejected instance deleted")
        site.await_line("rejected instance hidden")
        assert (site.archived(), site.instances()) == ({A1[2], B1[2]}, {B1[2]})


# -- later copies


@pytest.mark.parametrize(("policy", "acknowledge"), [(DELETE_ALL, "spooled"), (HIDE_ALL, "archived")])
def test_a_later_copy_of_what_is_wrong_is_refused(site, policy, acknowledge):
    with site.start(policy, acknowledge=acknowledge):
        site.store(*put(*ALL))
        await_true(lambda: len(site.archived()) == 3)
        for title, name in (("113001", A1), ("113037", A2), ("113038", B1)):
            site.reject(name, title=title, study="1.5")
        await_true(lambda: site.instances() == set())
        assert site.store(*put(*ALL)) == [REJECTED] * 3
        assert (
            "a rejection note has rejected this instance"
            in dcmtk.storescu(site.gateway.port, site.folder / "0.dcm", calling="CT01").output
        )
        assert site.instances() == set()


@pytest.mark.parametrize("policy", [DELETE_ALL, HIDE_ALL])
@pytest.mark.parametrize("acknowledge", ["archived", "spooled"])
def test_a_later_copy_of_what_expired_is_taken_and_seen_again(site, policy, acknowledge):
    with site.start(policy, acknowledge=acknowledge):
        site.store(*put(*ALL))
        await_true(lambda: len(site.archived()) == 3)
        site.reject(A1, title="113039", study="1.5")
        await_true(lambda: site.instances() == {A2[2], B1[2]})
        site.await_line("rejected instance " + ("deleted" if policy is DELETE_ALL else "hidden"))
        assert site.store(*put(A1)) == [0]
        site.await_line("rejected instance taken again")
        await_true(lambda: site.instances() == {one[2] for one in ALL})
        assert A1[2] in site.archived()


def test_what_may_not_come_back_does_not_for_a_note_that_would_let_it(site):
    with site.start():
        site.store(*put(*ALL))
        site.reject(A1, title="113037")
        site.await_line("rejected instance deleted")
        site.reject(A1, title="113039")
        assert site.store(*put(A1)) == [REJECTED]


# -- order, repeats, patients


def test_a_note_before_its_object_keeps_it_out(site):
    with site.start():
        assert site.reject(A1) == [0]
        assert site.store(*put(A1, A2)) == [REJECTED, 0]
        assert site.archived() == {A2[2]}


def test_what_was_under_way_beside_its_note_is_found_when_it_is_looked_for_again(site):
    with site.start():
        site.reject(A1, study="1.5")
        await_true(lambda: any("GET /v2/studies/1.2.1/" in line for line in site.archive.switches.requests()))
        site.store(*put(A1), called="SEES_ALL")
        time.sleep(0.5)
        site.hurry()
        site.await_line("rejected instance deleted")
        assert site.archived() == set()


def test_what_is_never_there_is_looked_for_a_few_times_and_stays_refused(site):
    with site.start():
        site.reject(A1)
        for _ in range(40):
            if site.lines("rejected instance is not there"):
                break
            time.sleep(0.25)
            site.hurry()
        assert len(site.lines("rejected instance is not there")) == 1
        assert site.store(*put(A1)) == [REJECTED]


def test_the_same_note_again_changes_nothing(site):
    with site.start():
        site.store(*put(*ALL))
        again = note(A1)
        assert site.store(again, calling="QC") == [0]
        site.await_line("rejected instance deleted")
        assert site.store(again, calling="QC") == [0]
        (_, second) = site.await_line("rejection note taken", 2)
        assert second["new"] == 0
        time.sleep(0.5)
        assert len(site.deletions()) == 1


def test_a_note_of_another_patient_is_not_acted_upon(site):
    with site.start():
        site.store(*put(*ALL))
        assert site.reject(A1, patient="ID2", study="1.5") == [0]
        (line,) = site.await_line("rejection not acted upon")
        assert line["instance"] == A1[2]
        assert (site.archived(), site.deletions()) == ({one[2] for one in ALL}, [])
        assert site.store(*put(A1)) == [0]
        assert "ID2" not in site.gateway.log
        site.reject(A1, study="1.5")  # the right one, later
        site.await_line("rejected instance deleted")


def test_a_copy_of_another_patient_than_the_note_s_is_stored(site):
    with site.start():
        site.reject(A1)
        assert site.store(*put(A1, PatientID="ID2")) == [0]
        assert site.archived() == {A1[2]}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_note_is_read_in_every_encoding(site, syntax):
    with site.start():
        site.store(*put(*ALL))
        path = site.folder / "note.dcm"
        path.write_bytes(note(A1, B1, syntax=syntax))
        option = "-xi" if syntax == ImplicitVRLittleEndian else "-xb"
        assert dcmtk.storescu(site.gateway.port, path, calling="QC", options=[option]).status == 0
        site.await_line("rejected instance deleted", 2)
        assert site.archived() == {A2[2]}


# -- the outbox


def test_what_waits_in_the_outbox_is_never_delivered_even_if_it_came_before_the_note(site):
    with site.start(acknowledge="spooled"):
        site.archive.stop()
        site.store(*put(A1, A2))
        site.reject(A1)
        site.await_line("rejection waits")
        site.archive.start()
        await_true(lambda: site.archived() == {A2[2]})
        await_true(lambda: site.rows("looks > 0"), 40)
        assert (site.archived(), site.deletions()) == ({A2[2]}, [])
        assert site.store(*put(A1)) == [REJECTED]


def test_what_waits_in_the_outbox_and_is_hidden_is_found_by_nobody_here(site):
    with site.start(HIDE_ALL, acknowledge="spooled") as gateway:
        with sqlite3.connect(gateway.folder / "spool" / "outbox" / "outbox.db", timeout=10) as table:
            table.execute("INSERT INTO holds VALUES ('1.2.1', '')")
        table.close()
        site.store(*put(*ALL))
        assert site.instances() == {one[2] for one in ALL}
        site.reject(A1, B1, study="1.5")
        site.await_line("rejected instance hidden", count=2)
        assert (site.instances(), site.archived()) == ({A2[2]}, set())
        keys = ("StudyInstanceUID=1.2.1", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
        (study,) = site.found("STUDY", *keys)
        assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (1, 1)
        assert site.instances(called="SEES_ALL") == {one[2] for one in ALL}


def test_what_waits_in_the_outbox_for_another_patient_is_delivered(site):
    with site.start(acknowledge="spooled"):
        site.archive.stop()
        site.store(*put(A1))
        site.reject(A1, patient="ID2")
        site.await_line("rejection not acted upon")
        site.archive.start()
        await_true(lambda: site.archived() == {A1[2]})


def test_nothing_is_deleted_before_the_note_is_delivered(site):
    with site.start(acknowledge="spooled") as gateway:
        site.store(*put(*ALL))
        await_true(lambda: len(site.archived()) == 3)
        with sqlite3.connect(gateway.folder / "spool" / "outbox" / "outbox.db", timeout=10) as table:
            table.execute("INSERT INTO holds VALUES ('1.5', '')")
        assert site.reject(A1, study="1.5") == [0]
        (line,) = site.await_line("rejection waits")
        assert line["reason"] == "the note itself is not delivered yet"
        assert len(site.archived()) == 3
        with table:
            table.execute("DELETE FROM holds")
            table.execute("UPDATE entries SET state = 'todo', due = 0 WHERE state = 'held'")
        table.close()
        site.await_line("rejected instance deleted")


# -- failures


def test_a_failed_deletion_is_repeated_until_it_is_done_and_what_it_is_for_is_hidden_meanwhile(site):
    with meddling(site.archive.url) as proxy, site.start(url=proxy.url):
        proxy.rule = lambda path: Rule(status=503 if path.startswith("DELETE") else None)
        site.store(*put(*ALL))
        site.reject(A1, title="113039")
        (line,) = site.await_line("rejection waits")
        assert "503" in line["reason"]
        assert site.archived() == {one[2] for one in ALL}
        assert site.instances() == {A2[2], B1[2]}
        assert site.store(*put(A1)) == [PENDING]
        await_true(lambda: sum(path.startswith("DELETE") for path in proxy.paths) >= 3)
        proxy.rule = lambda _: Rule()
        site.await_line("rejected instance deleted")
        assert site.archived() == {A2[2], B1[2]}
        assert site.store(*put(A1)) == [0]


@pytest.mark.parametrize("status", [405, 409])
def test_an_archive_that_refuses_to_delete_has_it_hidden(site, status):
    with meddling(site.archive.url) as proxy, site.start(url=proxy.url):
        proxy.rule = lambda path: Rule(status=status if path.startswith("DELETE") else None)
        site.store(*put(*ALL))
        site.reject(A1)
        (line,) = site.await_line("rejected instance hidden, for it cannot be deleted")
        assert str(status) in line["reason"]
        assert (site.archived(), site.instances()) == ({one[2] for one in ALL}, {A2[2], B1[2]})


def test_an_instance_that_somebody_else_has_deleted_is_done(site):
    with meddling(site.archive.url) as proxy, site.start(url=proxy.url):
        proxy.rule = lambda path: Rule(status=404 if path.startswith("DELETE") else None)
        site.store(*put(*ALL))
        site.reject(A1)
        site.await_line("rejected instance deleted")


def test_a_restart_goes_on_at_once_where_a_kill_stopped_it(site):
    with meddling(site.archive.url) as proxy:
        proxy.rule = lambda path: Rule(status=503 if path.startswith("DELETE") else None)
        with site.start(acknowledge="spooled", url=proxy.url) as gateway:
            site.store(*put(*ALL))
            await_true(lambda: len(site.archived()) == 3)
            site.reject(A1)
            site.await_line("rejection waits")
            await_true(lambda: site.rows("attempts > 0 AND state = 'hidden'"))
            gateway.kill()
        proxy.rule = lambda _: Rule()
        site.change("UPDATE rejections SET due = due + 1000 WHERE due IS NOT NULL")
        with site.start(acknowledge="spooled", url=proxy.url):
            await_true(lambda: site.archived() == {A2[2], B1[2]})
            assert site.store(*put(A1)) == [REJECTED]
