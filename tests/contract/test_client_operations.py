"""Every operation of the client as a script uses it, against the embedded archive and Orthanc."""

import json
from pathlib import Path

import pytest
from embedded_archive import image, instance
from orthanc import Orthanc
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scripted_server import Answer, scripted

from gateway import errors
from gateway.dicomweb import Client, State
from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults

STUDY, FIRST, SECOND = "1.2.1", "1.2.1.1", "1.2.1.2"
JSON = {"Content-Type": "application/dicom+json"}


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def running(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    with EmbeddedArchive(folder) if request.param == "embedded" else Orthanc(folder) as archive:
        yield archive, "azure" if request.param == "embedded" else "orthanc"


@pytest.fixture
def archive(running):
    """Give a client of an archive with one study: two instances in the first series, one in the second."""
    server, profile = running
    with Client(server.url, profile=profile) as client:
        for study in list(client.studies()):
            delete(server, client, study.StudyInstanceUID)
        told = list(client.upload([example(FIRST, 1), example(FIRST, 2), example(SECOND, 1)]))
        assert [one.state for one in told] == [State.STORED] * 3
        yield client


def delete(server, client, study):
    server.clear() if isinstance(server, Orthanc) else client.delete(study)


def example(series, number):
    return image([bytes([number] * 9), bytes([9] * 9)], series=series, sop=f"{series}.{number}")


def uids(datasets, keyword="SOPInstanceUID"):
    return sorted(str(dataset[keyword].value) for dataset in datasets)


# store


def test_paths_bytes_and_data_sets_are_stored(archive, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(example("1.2.1.3", 1))
    dataset = dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.1.3.3"
    del dataset.file_meta
    told = {one.sop_instance: one for one in archive.upload([path, example("1.2.1.3", 2), dataset], study=STUDY)}
    assert {one.state for one in told.values()} == {State.STORED}
    assert told["1.2.1.3.1"].source == path
    assert not hasattr(dataset, "file_meta")
    assert uids(archive.instances(STUDY, "1.2.1.3")) == ["1.2.1.3.1", "1.2.1.3.2", "1.2.1.3.3"]


def test_what_is_there_is_skipped_and_said_so(archive):
    files = [example(FIRST, 1), example(FIRST, 3)]
    told = {one.sop_instance: one.state for one in archive.upload(files)}
    assert told == {f"{FIRST}.1": State.PRESENT, f"{FIRST}.3": State.STORED}


def test_what_is_no_instance_is_told_and_the_rest_goes_on(archive, tmp_path):
    text, gone, cut = tmp_path / "notes.txt", tmp_path / "gone.dcm", tmp_path / "cut.dcm"
    text.write_text("not DICOM")
    cut.write_bytes(example(FIRST, 7)[:420])
    told = {str(one.source): one for one in archive.upload([text, gone, cut])}
    assert [told[str(path)].state for path in (text, gone, cut)] == [
        State.NOT_DICOM,
        State.UNREADABLE,
        State.NOT_DICOM,
    ]
    assert "Part 10" in told[str(text)].problem
    nameless = instance(StudyInstanceUID=None)
    (one, other) = archive.upload([nameless, example(FIRST, 8)])
    assert (one.state, one.problem) == (State.NOT_DICOM, "it is no instance: it has no Study Instance UID")
    assert other.ok


def test_progress_counts_the_bytes_that_are_sent(archive):
    sent, file = [], example(FIRST, 4)
    assert [one.state for one in archive.upload([file], progress=sent.append)] == [State.STORED]
    assert sum(sent) == len(file)


def test_an_instance_of_another_study_is_refused(tmp_path):
    with EmbeddedArchive(tmp_path) as server, Client(server.url, profile="azure") as archive:
        (told,) = archive.upload([example(FIRST, 5)], study="9.9")
    assert (told.state, told.reason) == (State.REFUSED, 43264)


def test_a_duplicate_that_the_archive_names_is_present(tmp_path):
    with EmbeddedArchive(tmp_path) as server, Client(server.url, profile="azure") as archive:
        for expected in (State.STORED, State.PRESENT):
            assert [one.state for one in archive.upload([example(FIRST, 1)], skip_present=False)] == [expected]


def test_an_upload_outlasts_an_archive_that_is_busy_for_a_moment(tmp_path):
    with EmbeddedArchive(tmp_path) as server, Client(server.url, profile="azure") as archive:
        server.switches.set(Faults(unavailable=1, unexpected=1))
        told = list(archive.upload([example(FIRST, 1), example(FIRST, 2)], skip_present=False))
    assert [one.state for one in told] == [State.STORED] * 2


def test_a_refused_sign_in_ends_the_upload_at_once():
    with scripted(Answer(401)) as server, Client(server.url) as archive, pytest.raises(errors.SignInRefused):
        list(archive.upload([example(FIRST, 1)], skip_present=False))


@pytest.mark.parametrize("status", [400, 406, 413, 415])
def test_a_request_refused_for_one_instance_is_repeated_one_by_one(status):
    def stored(uid):
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        return Answer(200, JSON, json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode())

    answers = [Answer(status), Answer(status), stored(f"{FIRST}.2")]
    with scripted(*answers) as server, Client(server.url) as archive:
        told = list(archive.upload([example(FIRST, 1), example(FIRST, 2)], skip_present=False))
    assert [one.state for one in told] == [State.REFUSED, State.STORED]
    assert str(status) in told[0].problem


# what a new user does


def test_one_source_may_stand_alone(archive, tmp_path):
    path = tmp_path / "one.dcm"
    path.write_bytes(example("1.2.1.4", 1))
    assert [one.source for one in archive.upload(str(path))] == [str(path)]
    assert [one.state for one in archive.upload(path)] == [State.PRESENT]
    dataset = dcmread(path)
    assert [one.state for one in archive.upload(dataset)] == [State.PRESENT]
    assert [one.state for one in archive.upload(example("1.2.1.4", 2))] == [State.STORED]


def test_a_study_saved_under_the_name_of_no_folder_makes_one_and_loses_no_instance(archive, tmp_path):
    saved = [one.save(tmp_path / "a" / "study") for one in archive.retrieve(STUDY)]
    assert sorted(path.name for path in saved) == [f"{FIRST}.1.dcm", f"{FIRST}.2.dcm", f"{SECOND}.1.dcm"]
    assert sorted((tmp_path / "a" / "study").iterdir()) == sorted(saved)
    (tmp_path / "IM1").write_text("an older one")
    assert next(iter(archive.retrieve(STUDY, SECOND))).save(tmp_path / "IM1") == tmp_path / "IM1"


def test_a_keyword_that_there_is_not_is_refused_before_anything_is_asked(archive):
    for wrong in ({"PatientNme": "x"}, {"fields": ["StudyDte"]}):
        with pytest.raises(errors.RequestRefused, match="is no attribute's keyword"):
            list(archive.studies(**wrong))
    assert len(list(archive.studies(**{"00100020": "ID1", "fuzzymatching": "false"}))) == 1


@pytest.mark.parametrize("url", ["ftp://x", "archive.example.org/dicom-web", "", "http://"])
def test_a_client_of_no_url_or_profile_is_not_made(url):
    with pytest.raises(errors.ConfigError, match="url: has to begin with http://"):
        Client(url)
    with pytest.raises(errors.ConfigError, match="profile: 'azur' is not one of: standard, azure"):
        Client("http://127.0.0.1", profile="azur")


def test_errors_name_the_host_where_nobody_gave_a_name():
    with scripted(Answer(404)) as server, Client(server.url) as archive, pytest.raises(errors.NotFound) as caught:
        archive.metadata(STUDY)
    assert str(caught.value).startswith(f"archive {server.url.split('/')[2]}: HTTP 404")


# what a profile asks for


IMPLICIT = {"syntax": ImplicitVRLittleEndian, "PatientID": None}
BOTH = ("empty Patient ID added", "converted to Explicit VR Little Endian")


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_azure_asks_for_is_done_to_what_is_sent_and_told(tmp_path, in_memory):
    content = image([b"1" * 9, b"2" * 9], series=FIRST, sop=f"{FIRST}.1", **IMPLICIT)
    right = image([b"3" * 9], series=FIRST, sop=f"{FIRST}.2")
    paths = [tmp_path / "implicit.dcm", tmp_path / "right.dcm"]
    for path, file in zip(paths, (content, right), strict=True):
        path.write_bytes(file)
    with EmbeddedArchive(tmp_path / "archive") as server, Client(server.url, profile="azure") as archive:
        told = list(archive.upload([content, right] if in_memory else paths, parallel=1))
        assert [(one.state, one.changes, one.size) for one in told] == [
            (State.STORED, BOTH, len(content)),
            (State.STORED, (), len(right)),
        ]
        stored = {str(one.SOPInstanceUID): one for one in (got.dataset() for got in archive.retrieve(STUDY))}
    changed = stored[f"{FIRST}.1"]
    assert changed.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert changed.PatientID == ""
    del changed.PatientID  # nothing else is changed, nor is the file
    assert {one.tag: one.value for one in changed} == {one.tag: one.value for one in dcmread(paths[0])}
    assert paths[0].read_bytes() == content


@pytest.mark.parametrize(("profile", "convert"), [("azure", False), ("embedded", True), ("standard", True)])
def test_nothing_is_changed_unless_the_profile_asks_for_it_and_the_caller_lets_it(tmp_path, profile, convert):
    content = image([b"1" * 9], series=FIRST, sop=f"{FIRST}.1", syntax=ImplicitVRLittleEndian)
    with EmbeddedArchive(tmp_path) as server, Client(server.url, profile=profile) as archive:
        (told,) = archive.upload([content], convert=convert)
        assert (told.state, told.changes) == (State.STORED, ())
        (got,) = (one.read() for one in archive.retrieve(STUDY))
        assert got == content


def nested(deep):
    """Make content items within content items: valid, and deeper than a conversion follows."""
    item = Dataset()
    for _ in range(deep):
        outer = Dataset()
        outer.ContentSequence = [item]
        item = outer
    return item.ContentSequence


def test_what_cannot_be_converted_is_the_archive_s_to_judge_as_it_is_and_no_file_is_left(tmp_path, monkeypatch):
    content = instance(syntax=ImplicitVRLittleEndian, ContentSequence=nested(70))
    path = tmp_path / "deep.dcm"
    path.write_bytes(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with EmbeddedArchive(tmp_path / "archive") as server, Client(server.url, profile="azure") as archive:
        (told,) = archive.upload([path])
        assert (told.state, told.changes, told.problem) == (State.STORED, (), "")
        assert list(scratch.iterdir()) == []  # one was begun: the fault is found half-way
        (got,) = (one.read() for one in archive.retrieve(STUDY))
        assert got == content


def test_what_there_is_no_room_to_convert_is_told_and_the_rest_goes_on(tmp_path, monkeypatch):
    convertible, right = tmp_path / "implicit.dcm", tmp_path / "right.dcm"
    convertible.write_bytes(image([b"1" * 9], series=FIRST, sop=f"{FIRST}.1", syntax=ImplicitVRLittleEndian))
    right.write_bytes(example(FIRST, 2))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with EmbeddedArchive(tmp_path / "archive") as server, Client(server.url, profile="azure") as archive:
        told = {one.source: one for one in archive.upload([convertible, right])}
    assert (told[convertible].state, told[right].state) == (State.UNREADABLE, State.STORED)
    assert "cannot be converted" in told[convertible].problem


# search


def test_each_of_the_six_resources_is_searched(archive):
    assert uids(archive.studies(PatientID="ID1"), "StudyInstanceUID") == [STUDY]
    assert uids(archive.series(), "SeriesInstanceUID") == [FIRST, SECOND]
    assert uids(archive.series(STUDY), "SeriesInstanceUID") == [FIRST, SECOND]
    assert uids(archive.instances()) == [f"{FIRST}.1", f"{FIRST}.2", f"{SECOND}.1"]
    assert uids(archive.instances(STUDY)) == [f"{FIRST}.1", f"{FIRST}.2", f"{SECOND}.1"]
    assert uids(archive.instances(STUDY, SECOND)) == [f"{SECOND}.1"]


def test_fields_are_asked_for(archive):
    (study,) = archive.studies(fields=["StudyDescription", "NumberOfStudyRelatedInstances"], StudyDate="20240102")
    assert study.NumberOfStudyRelatedInstances == 3


def test_no_match_is_an_empty_search(archive):
    assert list(archive.studies(PatientID="nobody")) == []


def test_matches_come_once_though_pages_overlap():
    def page(*numbers):
        entries = [{"0020000D": {"vr": "UI", "Value": [f"1.{number}"]}} for number in numbers]
        return Answer(200, JSON, json.dumps(entries).encode())

    with scripted(page(1, 2), page(2, 3), Answer(204)) as server, Client(server.url) as archive:
        assert uids(archive.studies(), "StudyInstanceUID") == ["1.1", "1.2", "1.3"]


# retrieve


@pytest.mark.parametrize(
    ("path", "expected"),
    [((STUDY,), 3), ((STUDY, FIRST), 2), ((STUDY, FIRST, f"{FIRST}.2"), 1)],
    ids=["study", "series", "instance"],
)
def test_a_retrieval_is_used_as_data_sets_and_saved_as_files(archive, tmp_path, path, expected):
    got = uids(one.dataset() for one in archive.retrieve(*path))
    assert len(got) == expected
    passed = []
    with archive.retrieve(*path) as instances:
        saved = [one.save(tmp_path, progress=passed.append) for one in instances]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{uid}.dcm" for uid in got]
    assert uids(dcmread(file) for file in saved) == got
    assert sum(passed) == sum(file.stat().st_size for file in saved)
    assert len(uids(archive.attributes(*path))) == expected
    assert len(archive.metadata(*path)) == expected


def test_bytes_come_back_as_they_went(archive):
    (content,) = (one.read() for one in archive.retrieve(STUDY, SECOND, f"{SECOND}.1"))
    assert content[128:] == example(SECOND, 1)[128:]


def test_an_instance_that_is_used_too_late_is_an_error_and_not_an_empty_one(archive):
    first, *_ = list(archive.retrieve(STUDY))
    with pytest.raises(ValueError, match="before the next"):
        first.read()
    with archive.retrieve(STUDY) as instances:
        first = next(instances)
        next(first.chunks)
        next(instances)
        with pytest.raises(ValueError, match="before the next"):
            list(first.chunks)


def test_large_pieces_are_read_at_once(archive):
    (told,) = archive.upload([image([bytes(9)], Rows=3000, Columns=3000, PixelData=bytes(9_000_000), sop="1.2.9")])
    assert told.ok
    sizes = [len(chunk) for one in archive.retrieve(STUDY, FIRST, "1.2.9") for chunk in one.chunks]
    assert max(sizes) > 65_536


def test_a_retrieval_may_be_left_early_and_the_client_goes_on(archive):
    with archive.retrieve(STUDY) as instances:
        next(instances)
    assert len(list(archive.series(STUDY))) == 2


def test_frames_come_in_the_order_asked(archive):
    assert archive.frames(STUDY, FIRST, f"{FIRST}.2", [2, 1]) == [bytes([9] * 9), bytes([2] * 9)]


def test_what_is_not_there_is_not_found(archive):
    for ask in (lambda: list(archive.retrieve("9.9")), lambda: archive.attributes("9.9")):
        with pytest.raises(errors.NotFound):
            ask()


@pytest.mark.parametrize("cut", [300, 10])
def test_a_file_that_was_cut_on_its_way_is_not_kept(cut, tmp_path):
    with EmbeddedArchive(tmp_path / "archive") as server, Client(server.url, profile="azure") as archive:
        list(archive.upload([example(FIRST, 1)]))
        server.switches.set(Faults(cut=1, cut_after=cut))
        with pytest.raises(errors.AnswerUnreadable):
            [one.save(tmp_path / "a.dcm") for one in archive.retrieve(STUDY)]
    assert not list(tmp_path.glob("*.dcm")) + list(tmp_path.glob(".*.part"))


def test_a_folder_takes_no_file_whose_name_would_leave_it(tmp_path):
    part = (
        b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        + instance(sop="6.6.66.6").replace(b"6.6.66.6", b"../../xy")
        + b"\r\n--b--\r\n"
    )
    answer = Answer(200, {"Content-Type": "multipart/related; boundary=b"}, part)
    with scripted(answer) as server, Client(server.url) as archive, pytest.raises(errors.DataSetError):
        [one.save(tmp_path) for one in archive.retrieve(STUDY)]
    assert list(tmp_path.iterdir()) == []


# delete


def test_an_instance_a_series_and_a_study_are_deleted(archive, running):
    if isinstance(running[0], Orthanc):
        with pytest.raises(errors.ArchiveError):  # its plug-in has no DELETE
            archive.delete(STUDY)
        return
    archive.delete(STUDY, FIRST, f"{FIRST}.1")
    assert len(list(archive.instances(STUDY))) == 2
    archive.delete(STUDY, FIRST)
    assert uids(archive.series(STUDY), "SeriesInstanceUID") == [SECOND]
    archive.delete(STUDY)
    assert list(archive.studies()) == []
    with pytest.raises(errors.NotFound):
        archive.delete(STUDY)


# how it is made


def test_a_profile_and_files_may_be_given_by_name(tmp_path):
    assert Client("http://127.0.0.1:9", profile="azure").profile.max_limit == 200
    with pytest.raises(errors.ConfigError, match=r"archives\.main\.ca"):
        Client("https://127.0.0.1:9", name="main", ca=Path("none.pem"))
