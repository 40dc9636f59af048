"""What was acknowledged and still waits in the outbox is found as if the archive had it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import dcmtk
import pytest
from embedded_archive import instance
from held import Site, held
from meddling_proxy import Rule
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from queries import identifier_of

COUNTS = {
    "PATIENT": ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"),
    "STUDY": (
        "NumberOfPatientRelatedStudies",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "ModalitiesInStudy",
        "SOPClassesInStudy",
    ),
    "SERIES": ("NumberOfSeriesRelatedInstances", "NumberOfStudyRelatedInstances", "ModalitiesInStudy"),
    "IMAGE": (),
}
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
OTHER = {"PatientID": "ID2", "PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100"}
ARCHIVED = [
    instance("1.2.1", "1.2.1.1", "1.2.1.1.1", Modality="CT", AccessionNumber="A1", InstanceNumber=1),
    instance("1.2.1", "1.2.1.1", "1.2.1.1.2", Modality="CT", AccessionNumber="A1", InstanceNumber=2),
]
IN_BOTH = instance("1.2.1", "1.2.1.1", "1.2.1.1.3", Modality="CT", AccessionNumber="A1", InstanceNumber=3)
WAITING = [
    IN_BOTH,
    instance("1.2.1", "1.2.1.1", "1.2.1.1.4", Modality="CT", AccessionNumber="A1", InstanceNumber=4),
    instance("1.2.1", "1.2.1.2", "1.2.1.2.1", Modality="SR", AccessionNumber="A1", InstanceNumber=1),
    instance("1.2.2", "1.2.2.1", "1.2.2.1.1", Modality="MR", AccessionNumber="A2", StudyDate="20240203"),
    instance("1.2.2", "1.2.2.1", "1.2.2.1.2", Modality="MR", AccessionNumber="A2", StudyDate="20240203"),
    instance("1.2.3", "1.2.3.1", "1.2.3.1.1", Modality="US", AccessionNumber="A3", **OTHER),
]
ALL = ("1.2.1", "1.2.2", "1.2.3")
QUERIES = [
    ("S", "STUDY", {}, ALL),
    ("S", "STUDY", {"PatientName": "doe^*"}, ("1.2.1", "1.2.2")),
    ("S", "STUDY", {"StudyDate": "20240103-20240401"}, ("1.2.2",)),
    ("S", "STUDY", {"AccessionNumber": "A3"}, ("1.2.3",)),
    ("S", "STUDY", {"AccessionNumber": "A4"}, ()),
    ("S", "STUDY", {"StudyInstanceUID": "1.2.3\\1.2.1\\1.2.9"}, ("1.2.1", "1.2.3")),
    ("S", "STUDY", {"ModalitiesInStudy": "MR"}, ("1.2.2",)),
    ("O", "STUDY", {"PatientID": "ID1", "StudyInstanceUID": ""}, ("1.2.1", "1.2.2")),
    ("O", "PATIENT", {"PatientName": "Doe^John"}, ("ID1",)),
    ("P", "PATIENT", {}, ("ID1", "ID2")),
    ("P", "PATIENT", {"PatientID": "ID2"}, ("ID2",)),
    ("P", "SERIES", {"PatientID": "ID1", "StudyInstanceUID": "1.2.1"}, ("1.2.1.1", "1.2.1.2")),
    ("P", "SERIES", {"PatientID": "ID2", "StudyInstanceUID": "1.2.1"}, ()),
    ("S", "SERIES", {"StudyInstanceUID": "1.2.1", "Modality": "SR"}, ("1.2.1.2",)),
    ("S", "SERIES", {"StudyInstanceUID": "1.2.3"}, ("1.2.3.1",)),
    ("S", "SERIES", {"StudyInstanceUID": "1.2.9"}, ()),
    (
        "S",
        "IMAGE",
        {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "InstanceNumber": ""},
        tuple(f"1.2.1.1.{number}" for number in range(1, 5)),
    ),
    (
        "P",
        "IMAGE",
        {"PatientID": "ID1", "StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "InstanceNumber": "4"},
        ("1.2.1.1.4",),
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hold what is to be delivered; one instance was delivered without the outbox knowing yet."""
    with held(tmp_path_factory.mktemp("site")) as site:
        assert site.archive.store(*ARCHIVED, IN_BOTH).status_code == 200
        site.store(*WAITING)
        yield site


def query(site: Site, model: str, level: str, keys: Mapping[str, str]) -> dcmtk.Result:
    """Ask for the keys, and for the computed attributes of the level."""
    asked = dict.fromkeys(("PatientName", "AccessionNumber", UNIQUE[level], *COUNTS[level]), "") | keys
    return dcmtk.findscu(
        site.port, f"QueryRetrieveLevel={level}", *(f"{key}={value}" for key, value in asked.items()), model=model
    )


def answers(found: dcmtk.Result, level: str) -> list[tuple[str, ...]]:
    """Give the answers in order of their UIDs, as text."""
    lines = [(str(one[UNIQUE[level]].value), *map(str, one)) for one in found.responses]
    return sorted(tuple(line) for line in lines)


def test_every_query_has_the_answer_before_the_delivery_that_it_has_after_it(site: Site) -> None:
    before = []
    for model, level, keys, expected in QUERIES:
        found = query(site, model, level, keys)
        assert found.status == 0x0000, found.output[-2000:]
        assert tuple(one[0] for one in answers(found, level)) == expected, (level, keys)
        assert all(one.InstanceAvailability == "ONLINE" for one in found.responses)
        before.append(answers(found, level))
    site.deliver()
    for (model, level, keys, _), known in zip(QUERIES, before, strict=True):
        assert answers(query(site, model, level, keys), level) == known, (level, keys)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Site]:
    with held(tmp_path, max_scanned=2) as site:
        yield site


def ask(site: Site, **keys: object) -> tuple[list[Dataset], int, str]:
    """Ask as pynetdicom does; give the identifiers, the final status and its comment."""
    ae = AE("BENCH")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    association = ae.associate("127.0.0.1", site.port, ae_title="GATEWAY")
    assert association.is_established
    identifier = identifier_of("STUDY", **{"StudyInstanceUID": "", "NumberOfStudyRelatedInstances": "", **keys})
    responses = list(association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind))
    association.release()
    final = responses[-1][0]
    return [one for _, one in responses if one is not None], final.Status, final.get("ErrorComment", "")


def test_an_archive_that_fails_is_a_failure_after_what_waits(plain: Site) -> None:
    plain.store(*WAITING[:3])
    plain.proxy.rule = lambda _: Rule(status=403)
    found, status, _ = ask(plain)
    assert [(one.StudyInstanceUID, one.NumberOfStudyRelatedInstances) for one in found] == [("1.2.1", 3)]
    assert status == 0xC002


def test_an_archive_that_fails_while_it_is_asked_for_counts_is_a_failure(plain: Site) -> None:
    assert plain.archive.store(*ARCHIVED).status_code == 200
    plain.store(*WAITING[:4])
    plain.proxy.rule = lambda path: Rule(status=403 if "/instances" in path else None)
    found, status, _ = ask(plain)
    assert {one.StudyInstanceUID for one in found} <= {"1.2.1", "1.2.2"}
    assert status == 0xC002


def test_more_waiting_studies_than_may_be_read_are_a700_with_what_to_do(plain: Site) -> None:
    plain.store(*WAITING)
    _, status, comment = ask(plain)
    assert (status, comment) == (0xA700, "query too broad; narrow it by date, ID or name")
    found, status, _ = ask(plain, StudyInstanceUID="1.2.3")
    assert ([one.StudyInstanceUID for one in found], status) == (["1.2.3"], 0x0000)


def test_an_archive_is_asked_for_nothing_more_when_nothing_waits_for_it(plain: Site) -> None:
    assert plain.archive.store(*ARCHIVED).status_code == 200
    found, status, _ = ask(plain)
    assert ([one.NumberOfStudyRelatedInstances for one in found], status) == ([2], 0x0000)
    assert not [path for path in plain.proxy.paths if "/instances" in path]
