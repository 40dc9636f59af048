"""What was acknowledged and still waits in the outbox is retrieved with what the archive has."""

from collections.abc import Iterator
from pathlib import Path

import embedded_archive
import pytest
import retrieving
from bench import wire
from held import SECONDARY_CAPTURE, Site, data_set, held

PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
STUDY, FIRST, SECOND = "1.2.3", "1.2.3.1", "1.2.3.2"
ARCHIVED = [f"{FIRST}.{number}" for number in range(1, 5)]
WAITING = [f"{FIRST}.9", f"{SECOND}.1", f"{SECOND}.2", f"{SECOND}.3"]


def instance(uid: str) -> bytes:
    return embedded_archive.instance(STUDY, uid.rpartition(".")[0], uid)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Run an archive with four instances, and a gateway with four more in its outbox."""
    with held(tmp_path) as site:
        assert site.archive.store(*map(instance, ARCHIVED)).status_code == 200
        site.store(*map(instance, WAITING))
        yield site


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"QueryRetrieveLevel": "STUDY"}, [*ARCHIVED, *WAITING]),
        ({"QueryRetrieveLevel": "STUDY", "PatientID": "ID1"}, [*ARCHIVED, *WAITING]),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": FIRST}, [*ARCHIVED, WAITING[0]]),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": SECOND}, WAITING[1:]),
        (
            {"QueryRetrieveLevel": "IMAGE", "SeriesInstanceUID": FIRST, "SOPInstanceUID": [WAITING[0], ARCHIVED[0]]},
            [WAITING[0], ARCHIVED[0]],
        ),
    ],
)
def test_a_move_brings_what_waits_in_the_outbox_too(site: Site, keys: dict[str, object], expected: list[str]) -> None:
    model = {"sop_class": PATIENT_ROOT_MOVE} if "PatientID" in keys else {}
    *_, final = retrieving.move(site.port, "DEST", StudyInstanceUID=STUDY, **model, **keys).all()
    assert (final.status, final.counters["completed"]) == (0x0000, len(expected))
    assert {one.sop_instance: one.data for one in site.where.received} == {
        uid: data_set(instance(uid)) for uid in expected
    }


def test_a_patient_s_move_brings_what_waits_of_that_patient_alone(site: Site) -> None:
    new = embedded_archive.instance("1.2.4", "1.2.4.1", "1.2.4.1.1")
    site.store(new, embedded_archive.instance("1.2.5", "1.2.5.1", "1.2.5.1.1", PatientID="ID2"))
    keys = {"QueryRetrieveLevel": "PATIENT", "PatientID": "ID1"}
    *_, final = retrieving.move(site.port, "DEST", sop_class=PATIENT_ROOT_MOVE, **keys).all()
    assert final.status == 0x0000
    assert {one.sop_instance for one in site.where.received} == {*ARCHIVED, *WAITING, "1.2.4.1.1"}


def test_a_study_is_not_brought_under_another_patient_s_id(site: Site) -> None:
    keys = {"QueryRetrieveLevel": "STUDY", "PatientID": "ID2", "StudyInstanceUID": STUDY}
    *_, final = retrieving.move(site.port, "DEST", sop_class=PATIENT_ROOT_MOVE, **keys).all()
    assert (final.status, site.where.received) == (0x0000, [])


def test_a_get_by_uid_alone_brings_what_waits(site: Site) -> None:
    retrieval = retrieving.get(
        site.port,
        [(SECONDARY_CAPTURE, wire.EXPLICIT_LE)],
        sop_class="1.2.840.10008.5.1.4.1.2.4.3",
        QueryRetrieveLevel="IMAGE",
        SOPInstanceUID=WAITING[1],
    )
    assert retrieval.all()[-1].status == 0x0000
    assert [one.sop_instance for one in retrieval.got] == [WAITING[1]]
