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
        "PatientName=%22jo&fuzzymatching=true",
        "fuzzymatching=",
        "includefield=00080061,",
        "accept=application/json",
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
        ("StudyDescription=%20head%20", ["1.2.1"]),
        ("PatientName=Doe%5EJohn%5E", 204),
        ("StudyDescription=he&fuzzymatching=true", 204),
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


@pytest.mark.parametrize(
    ("path", "tag", "expected"),
    [
        ("/series?Modality=ct", "0020000E", ["1.2.1.2"]),
        ("/series?Modality=OT&PatientID=ID1", "0020000E", ["1.2.1.1"]),
        ("/series?ModalitiesInStudy=CT", "0020000E", ["1.2.1.2", "1.2.1.1"]),
        ("/series?SeriesInstanceUID=1.2.2.1", "0020000E", ["1.2.2.1"]),
        ("/instances?PatientID=*&Modality=OT", "00080018", ["1.2.2.1.1"]),
        ("/instances?SOPInstanceUID=1.2.1.1.2", "00080018", ["1.2.1.1.2"]),
        ("/instances?StudyDate=-20231231", "00080018", ["1.2.2.1.1"]),
        ("/studies/1.2.1/instances?Modality=CT", "00080018", ["1.2.1.2.1"]),
        ("/studies/1.2.1/instances?SeriesInstanceUID=1.2.1.1&limit=1", "00080018", ["1.2.1.1.2"]),
        ("/studies/1.2.1/instances?PatientID=ID1", "", 400),
        ("/studies/1.2.1/series/1.2.1.1/instances?Modality=OT", "", 400),
        ("/studies/1.2.1/series/1.2.2.1/instances", "", 204),
        ("/studies/1.2.1/series?SOPInstanceUID=1.2.1.1.2", "", 400),
    ],
)
def test_each_resource_is_searched_by_the_attributes_of_its_levels(archive, path, tag, expected):
    assert uids(archive.get(path), tag) == expected


def test_what_was_searched_by_is_returned(archive):
    [model] = archive.get("/instances?Modality=CT&PatientID=ID1").json()
    assert (values(model, "00080060"), values(model, "00100020")) == (["CT"], ["ID1"])
    [one] = archive.get("/studies?ModalitiesInStudy=CT").json()
    assert set(values(one, "00080061")) == {"OT", "CT"}


def test_modalities_vanish_from_series_with_a_field_that_the_index_has_not(archive):
    [first, *_] = archive.get("/series?includefield=ModalitiesInStudy,NumberOfSeriesRelatedInstances").json()
    assert (values(first, "00080061"), values(first, "00201209")) == (["OT"], [1])
    [first, *_] = archive.get(
        "/series?includefield=ModalitiesInStudy,NumberOfSeriesRelatedInstances,SeriesNumber"
    ).json()
    assert "00080061" not in first
    assert values(first, "00201209") == [1]


def test_version_1_returns_more_unasked(archive):
    url = archive.archive.url.removesuffix("v2") + "v1"
    answer = archive.http.get(url + "/studies?PatientID=*", headers={"Accept": "application/dicom+json"})
    [model] = answer.json()
    assert set(model) == {"00080005", "00080020", "00100010", "00100020", "0020000D"}
    assert answer.headers["api-supported-versions"] == "1, 2"


@pytest.mark.parametrize("root", ["", "/v3", "/v1.0", "/2"])
def test_the_version_is_compulsory(archive, root):
    url = archive.archive.url.removesuffix("/v2") + root
    assert archive.http.get(url + "/studies", headers={"Accept": "*/*"}).status_code == 404


def test_characters_beyond_ascii_arrive_as_escapes(archive):
    answer = archive.get("/studies?PatientID=*")
    assert answer.content.isascii()
    assert values(answer.json()[0], "00100010") == [{"Alphabetic": "Müller^Änne"}]


def test_the_index_has_the_latest_value_and_the_metadata_those_of_the_newest_instance(tmp_path):
    with running(tmp_path) as caller:
        caller.store(instance(StudyDescription="first", PatientID="ID1"))
        caller.store(instance(sop="1.2.9", PatientID=""))
        [held] = caller.get("/studies").json()
        assert (values(held, "00081030"), values(held, "00100020")) == (["first"], ["ID1"])
        [newest] = caller.get("/studies?includefield=PatientSex").json()
        assert "00081030" not in newest
        assert newest["00100020"] == {"vr": "LO"}
        caller.store(instance("1.2.2", sop="1.2.2.1", PatientID="", StudyDate=""))
        [empty, _] = caller.get("/studies").json()
        assert empty["00100020"] == {"vr": "LO"}
        assert "00080020" not in empty


def test_deleting_takes_nothing_else_along(tmp_path):
    with running(tmp_path) as caller:
        caller.store(
            *(instance(f"1.{study}", f"1.{study}.1", f"1.{study}.1.{n}") for study in (1, 2) for n in (1, 2))
        )
        assert caller.delete("/studies/1.1/series/1.1.1/instances/1.1.1.1").status_code == 204
        assert uids(caller.get("/instances"), "00080018") == ["1.2.1.2", "1.2.1.1", "1.1.1.2"]
        assert caller.delete("/studies/1.2/series/1.2.1").status_code == 204
        assert uids(caller.get("/studies")) == ["1.1"]
        assert caller.delete("/studies/1.1/series/1.1.1/instances/1.1.1.9").status_code == 404
        assert caller.delete("/studies/1.x").status_code == 400
