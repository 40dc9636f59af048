"""QIDO-RS of the embedded archive."""

import pytest
from embedded_archive import instance, running, values


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with running(tmp_path_factory.mktemp("archive")) as caller:
        answer = caller.store(
            instance("1.2.1", "1.2.1.1", "1.2.1.1.1", StudyDescription="Head", SeriesDescription="first"),
            instance("1.2.1", "1.2.1.1", "1.2.1.1.2"),
            instance("1.2.1", "1.2.1.2", "1.2.1.2.1", Modality="CT", SeriesDescription="second"),
            instance(
                "1.2.2",
                "1.2.2.1",
                "1.2.2.1.1",
                PatientName="Müller^Änne",
                PatientID="*",
                StudyDate="20230101",
                SpecificCharacterSet="ISO_IR 192",
            ),
        )
        assert answer.status_code == 200
        yield caller


def uids(answer, tag="0020000D"):
    return [values(model, tag)[0] for model in answer.json()] if answer.status_code == 200 else answer.status_code


def test_no_accept_is_406(archive):
    assert archive.get("/studies", {}).status_code == 406


def test_the_newest_comes_first(archive):
    assert uids(archive.get("/studies")) == ["1.2.2", "1.2.1"]


@pytest.mark.parametrize(
    ("path", "tag", "expected"),
    [
        ("/series", "0020000E", ["1.2.2.1", "1.2.1.2", "1.2.1.1"]),
        ("/instances", "00080018", ["1.2.2.1.1", "1.2.1.2.1", "1.2.1.1.2", "1.2.1.1.1"]),
        ("/studies/1.2.1/series", "0020000E", ["1.2.1.2", "1.2.1.1"]),
        ("/studies/1.2.1/instances", "00080018", ["1.2.1.2.1", "1.2.1.1.2", "1.2.1.1.1"]),
        ("/studies/1.2.1/series/1.2.1.1/instances", "00080018", ["1.2.1.1.2", "1.2.1.1.1"]),
    ],
)
def test_every_resource_has_its_own_matches(archive, path, tag, expected):
    assert uids(archive.get(path), tag) == expected


@pytest.mark.parametrize(
    "query",
    [
        "PatientID=",
        "Nonsense=1",
        "patientid=ID1",
        "PatientID=ID1&00100020=ID1",
        "PatientID=ID1&PatientID=ID1",
        "Modality=CT",
        "SOPInstanceUID=1.2",
        "StudyTime=10",
        "0020,000D=1.2",
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=5&LIMIT=6",
        "offset=-1",
        "fuzzymatching=maybe",
        "StudyDate=2024",
        "StudyDate=20240231",
        "StudyDate=-",
        "StudyDate=20240102-20240101",
        "includefield=all,PatientSex",
        "includefield=all&includefield=PatientSex",
        "includefield=Nonsense",
        "includefield=",
        "PatientName=%3C",
        "orderby=PatientID",
    ],
)
def test_what_the_service_does_not_know_is_400(archive, query):
    assert archive.get("/studies?" + query).status_code == 400


def test_a_malformed_uid_in_the_path_is_400_and_one_given_twice_too(archive):
    assert archive.get("/studies/abc/series").status_code == 400
    assert archive.get("/studies/1.2.1/series?StudyInstanceUID=1.2.1").status_code == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("PatientID=id1", ["1.2.1"]),
        ("00100020=ID1", ["1.2.1"]),
        ("PatientID=%2A", ["1.2.2"]),
        ("PatientID=ID%2A", 204),
        ("PatientID=ID%3F", 204),
        ("StudyInstanceUID=1.2.1,1.2.2", 204),
        ("StudyInstanceUID=1.2.1%5C1.2.2", 204),
        ("PatientName=doe%5Ejohn", ["1.2.1"]),
        ("PatientName=Doe", 204),
        ("PatientName=MULLER%5Eanne", ["1.2.2"]),
        ("StudyDescription=H%C3%A9ad", 204),
        ("PatientName=jo&fuzzymatching=true", ["1.2.1"]),
        ("PatientName=do%20jo&fuzzymatching=TRUE", ["1.2.1"]),
        ("PatientName=john%20doe&fuzzymatching=true", 204),
        ("ModalitiesInStudy=ct", ["1.2.1"]),
        ("ModalitiesInStudy=CT%5COT", 204),
        ("StudyDate=20240102", ["1.2.1"]),
        ("StudyDate=20230101-20240102", ["1.2.2", "1.2.1"]),
        ("StudyDate=-20231231", ["1.2.2"]),
        ("StudyDate=20230102-", ["1.2.1"]),
        ("StudyDate=20250101-", 204),
        ("limit=1", ["1.2.2"]),
        ("limit=1&offset=1", ["1.2.1"]),
        ("offset=2", 204),
    ],
)
def test_matching_is_equality_without_regard_to_case_and_ranges_of_dates(archive, query, expected):
    assert uids(archive.get("/studies?" + query)) == expected


def test_an_unknown_study_is_204_without_a_body(archive):
    answer = archive.get("/studies/1.9/series")
    assert (answer.status_code, answer.content) == (204, b"")


def test_version_2_returns_little_unasked(archive):
    [model] = archive.get("/studies?PatientID=ID1").json()
    assert set(model) == {"00080020", "00081030", "00100010", "00100020", "0020000D"}
    [_, first] = archive.get("/studies/1.2.1/series").json()
    assert set(first) == {"00080060", "0020000D", "0020000E"}
    [*_, last] = archive.get("/studies/1.2.1/series/1.2.1.1/instances").json()
    assert set(last) == {"00080018", "0020000D", "0020000E"}


@pytest.mark.parametrize(
    "fields",
    [
        "includefield=SeriesDescription,00200011,SOPClassUID",
        "includefield=0008103E&includefield=SeriesNumber&includefield=00080016",
    ],
)
def test_includefield_takes_keywords_and_tags_in_lists_and_repeated(archive, fields):
    [model, _] = archive.get("/studies/1.2.1/series?" + fields).json()
    assert values(model, "0008103E") == ["second"]
    assert "00080016" in model
    assert "00200011" not in model


def test_includefield_all_returns_more_but_nothing_computed(archive):
    [model] = archive.get("/studies?PatientID=ID1&includefield=all").json()
    assert "00080061" not in model
    assert "00201208" not in model
    [first] = archive.get("/series?Modality=CT&includefield=ALL").json()
    assert values(first, "0008103E") == ["second"]


def test_counts_and_modalities_come_when_asked_for(archive):
    fields = "includefield=ModalitiesInStudy,NumberOfStudyRelatedInstances"
    [model] = archive.get("/studies?PatientID=ID1&" + fields).json()
    assert set(values(model, "00080061")) == {"OT", "CT"}
    assert values(model, "00201208") == [3]
    counts = archive.get("/studies/1.2.1/series?includefield=00201209").json()
    assert [values(one, "00201209") for one in counts] == [[1], [2]]


def test_an_absent_value_does_not_erase_a_known_one(archive):
    [model] = archive.get("/studies?PatientID=ID1").json()
    assert values(model, "00081030") == ["Head"]


def test_paging_gives_everything_once(tmp_path):
    with running(tmp_path) as caller:
        caller.store(*(instance(sop=f"1.2.1.1.{number}") for number in range(1, 206)))
        assert len(caller.get("/instances").json()) == 100
        found = uids(caller.get("/instances?limit=200"), "00080018")
        found += uids(caller.get("/instances?limit=200&offset=200"), "00080018")
        assert sorted(found) == sorted(f"1.2.1.1.{number}" for number in range(1, 206))
