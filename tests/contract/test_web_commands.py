"""`dicom-gateway web`: every command as a process against a real archive, and what scripts can rely on."""

import json
import os
import pty
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from command_line import command, environment, run
from embedded_archive import image, instance
from orthanc import Orthanc
from processes import free_port
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from scripted_server import Answer, scripted
from token_server import CLIENT, SECRET, Keeper, keeping

from gateway.dicomweb import Client
from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults, Switches
from gateway.translate.encoding import EXPLICIT, PIXEL_DATA, header
from gateway.translate.part10 import file_header

STUDY, FIRST, SECOND = "1.2.1", "1.2.1.1", "1.2.1.2"


@pytest.fixture
def server(tmp_path):
    with EmbeddedArchive(tmp_path / "archive") as archive:
        yield archive


@pytest.fixture
def at(server):
    return "--url", server.url, "--profile", "azure"


@pytest.fixture
def folder(tmp_path):
    """Give a folder with three instances, one of them deeper, and something hidden."""
    made = tmp_path / "files"
    (made / "deeper").mkdir(parents=True)
    (made / "a.dcm").write_bytes(image([b"1" * 9, b"2" * 9], series=FIRST, sop=f"{FIRST}.1"))
    (made / "b.dcm").write_bytes(image([b"3" * 9], series=FIRST, sop=f"{FIRST}.2", PatientID="../ID/2"))
    (made / "deeper" / "c").write_bytes(image([b"4" * 9], series=SECOND, sop=f"{SECOND}.1"))
    (made / ".DS_Store").write_text("not DICOM")
    return made


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def held(server):
    with Client(server.url, profile="azure") as client:
        return sorted(str(found.SOPInstanceUID) for found in client.instances())


# store


def test_folders_files_and_patterns_are_stored(server, at, folder):
    done = run("web", "store", str(folder / "**" / "[bc]*"), folder / "a.dcm", "--json", *at)
    assert done.returncode == 0, done.stderr
    assert sorted((Path(one["file"]).name, one["state"]) for one in lines(done)) == [
        ("a.dcm", "stored"),
        ("b.dcm", "stored"),
        ("c", "stored"),
    ]
    done = run("web", "store", folder, *at)
    assert done.returncode == 0
    assert "3" in done.stdout
    assert "skipped: the archive has it already" in done.stdout
    assert held(server) == [f"{FIRST}.1", f"{FIRST}.2", f"{SECOND}.1"]


def test_what_is_not_dicom_is_named_and_the_rest_goes_on(server, at, folder):
    (folder / "notes.txt").write_text("not DICOM")
    done = run("web", "store", folder, *at)
    assert done.returncode == 1
    assert "notes.txt: not DICOM: the file does not begin like a Part 10 file" in done.stderr
    assert len(held(server)) == 3


def test_what_the_profile_asks_for_is_done_and_said_unless_it_is_forbidden(at, tmp_path):
    files = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(files):
        syntax = ExplicitVRLittleEndian if number == 2 else ImplicitVRLittleEndian
        path.write_bytes(instance(series=FIRST, sop=f"{FIRST}.{number + 1}", syntax=syntax))
    done = run("web", "store", files[0], "--json", "--unchanged", *at)
    assert [(one["state"], one["changes"]) for one in lines(done)] == [("stored", [])]
    done = run("web", "store", *files, "--all", *at)
    assert "2 of them: converted to Explicit VR Little Endian, as profile azure asks for" in done.stdout
    (told,) = lines(run("web", "store", files[1], "--json", "--all", *at))
    assert told["changes"] == ["converted to Explicit VR Little Endian"]


@pytest.mark.parametrize("words", [("store", "."), ("retrieve", STUDY, "-o", "out")], ids=["store", "retrieve"])
def test_progress_is_shown_on_a_terminal_and_nowhere_else(at, folder, words):
    if words[0] == "retrieve":
        run("web", "store", folder, *at)
    terminal, end = pty.openpty()
    try:
        with subprocess.Popen(
            command("web", *words, *at),
            env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=end,
            text=True,
        ) as begun:
            os.close(end)
            shown, _ = read_all(terminal), begun.stdout.read()
    finally:
        os.close(terminal)
    assert begun.returncode == 0
    assert ("storing" if words[0] == "store" else "retrieving") in shown
    assert ("MB" if words[0] == "store" else "3/3") in shown or "kB" in shown
    assert run("web", *words, *at, folder=folder).stderr == ""


def read_all(terminal):
    """Read what a program wrote to a terminal until it has ended."""
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody has it open any more
        while piece := os.read(terminal, 65_536):
            shown += piece
    return shown.decode(errors="replace")


def test_an_argument_that_means_no_file_is_named(server, at, folder):
    done = run("web", "store", folder, folder / "none.dcm", str(folder / "*.xyz"), *at)
    assert done.returncode == 2
    assert done.stderr.count("there is no such file, folder or match") == 2
    assert len(held(server)) == 3


def test_another_study_is_refused_by_instance(at, folder):
    done = run("web", "store", folder / "a.dcm", "--study", "9.9", "--json", *at)
    assert done.returncode == 1
    assert [(one["state"], one["reason"]) for one in lines(done)] == [("refused", 43264)]


def test_a_folder_of_5000_files_that_was_interrupted_goes_on_where_it_ended(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    template = instance(sop=f"{FIRST}.10000")
    for number in range(5000):
        (files / f"{number}.dcm").write_bytes(template.replace(b"1.10000", f"1.1{number:04}".encode()))
    switches = Switches()
    with EmbeddedArchive(tmp_path / "archive", switches=switches) as server:
        at = ("--url", server.url, "--profile", "azure", "--parallel", "2")
        with subprocess.Popen(
            # what is started in the background of a shell ignores the signal, and so would this
            ["env", "--default-signal=INT", *map(str, command("web", "store", files, "--json", *at))],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as begun:
            first = [json.loads(begun.stdout.readline())["state"] for _ in range(2500)]
            switches.set(
                Faults(delay=1)
            )  # two minutes for the rest: the interruption is in time on a busy machine too
            begun.send_signal(signal.SIGINT)
            _, told = begun.communicate(timeout=60)
        assert first == ["stored"] * 2500
        assert begun.returncode == 130
        assert "goes on where this one ends" in told
        switches.set(Faults())
        there = len(held(server))
        assert 2500 <= there < 5000
        states = [one["state"] for one in lines(run("web", "store", files, "--json", *at))]
        # a request that was under way may have arrived since
        assert there <= states.count("present") < 5000
        assert states.count("present") + states.count("stored") == len(states) == 5000
        assert len(held(server)) == 5000


def test_3_gb_are_streamed_in_little_memory(tmp_path):
    path, size = tmp_path / "large.dcm", 3_000_000_000
    head = instance(series=FIRST, sop=f"{FIRST}.1")
    meta = file_header(SecondaryCaptureImageStorage, f"{FIRST}.1", "1.2.840.10008.1.2.1")
    dataset = head[head.index(b"\x08\x00\x16\x00UI") :]
    with path.open("wb") as file:
        file.write(meta + dataset + header(EXPLICIT, PIXEL_DATA, "OW", size))
        file.truncate(file.tell() + size)
    stored = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [f"{FIRST}.1"]}}]}}
    answer = Answer(200, {"Content-Type": "application/dicom+json"}, json.dumps(stored).encode())
    with scripted(answer, keep=0) as sink:
        with subprocess.Popen(
            command("web", "store", path, "--all", "--json", "--url", sink.url),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as begun:
            most, process = 0, psutil.Process(begun.pid)
            while begun.poll() is None:
                most = max(most, process.memory_info().rss)
                time.sleep(0.02)
            (told,) = [json.loads(line) for line in begun.stdout]
        assert told["state"] == "stored"
        assert int(sink.requests[0].headers["content-length"]) > size
    assert most < 200_000_000


# retrieve


def test_a_study_is_saved_by_its_uids(at, folder, tmp_path):
    run("web", "store", folder, *at)
    done = run("web", "retrieve", STUDY, "--json", *at, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(one["file"] for one in lines(done)) == [
        f"{STUDY}/{FIRST}/{FIRST}.1.dcm",
        f"{STUDY}/{FIRST}/{FIRST}.2.dcm",
        f"{STUDY}/{SECOND}/{SECOND}.1.dcm",
    ]
    for one in lines(done):
        assert dcmread(tmp_path / one["file"]).SOPInstanceUID == one["instance"]


def test_a_template_names_files_by_their_attributes_and_none_leaves_the_folder(at, folder, tmp_path):
    run("web", "store", folder, *at)
    out = tmp_path / "out"
    done = run("web", "retrieve", STUDY, FIRST, "-o", f"{out}/{{PatientID}}/{{Modality}}-{{SOPInstanceUID}}.dcm", *at)
    assert done.returncode == 0, done.stderr
    assert "2 instances" in done.stdout
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.dcm")) == [
        f"ID1/OT-{FIRST}.1.dcm",
        f"_ID_2/OT-{FIRST}.2.dcm",
    ]
    assert not list(out.glob(".*"))


def test_one_instance_is_saved_under_the_name_given(at, folder, tmp_path):
    run("web", "store", folder, *at)
    done = run("web", "retrieve", STUDY, SECOND, f"{SECOND}.1", "-o", tmp_path / "one.dcm", *at)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.dcm").read_bytes()[128:] == (folder / "deeper" / "c").read_bytes()[128:]


@pytest.mark.parametrize("template", ["{NoSuchKeyword}.dcm", "{PatientID.dcm", "{Modality}.dcm"])
def test_a_template_that_cannot_be_right_is_a_wrong_call(at, folder, tmp_path, template):
    run("web", "store", folder, *at)
    assert run("web", "retrieve", STUDY, "-o", template, *at, folder=tmp_path).returncode == 2


# metadata, frames, search


def test_metadata_are_shown_as_a_table_or_as_the_archive_s_own_json(at, folder):
    run("web", "store", folder, *at)
    table = run("web", "metadata", STUDY, SECOND, f"{SECOND}.1", *at).stdout
    assert "(0010,0020)" in table
    assert "Doe^John" in table
    assert f"{FIRST}.2" in run("web", "metadata", STUDY, *at).stdout
    models = json.loads(run("web", "metadata", STUDY, FIRST, "--json", *at).stdout)
    assert [len(model) > 5 for model in models] == [True, True]


def test_frames_are_saved_as_their_bytes(at, folder, tmp_path):
    run("web", "store", folder, *at)
    done = run("web", "frames", STUDY, FIRST, f"{FIRST}.1", "1-2", "--json", *at, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / one["file"]).read_bytes() for one in lines(done)] == [b"1" * 9, b"2" * 9]
    for wrong in (("0",), ("1-x",), ("1", "-o", "same.bin")):
        assert run("web", "frames", STUDY, FIRST, f"{FIRST}.1", *wrong, *at).returncode == 2


def test_searches_print_tables_or_json(at, folder):
    run("web", "store", folder, *at)
    done = run("web", "search", "studies", "StudyDate=20240101-20240131", "--field", "ModalitiesInStudy", *at)
    assert done.returncode == 0, done.stderr
    assert STUDY in done.stdout
    assert "ModalitiesInStudy" in done.stdout
    found = json.loads(run("web", "search", "instances", "--study", STUDY, "--json", *at).stdout)
    assert len(found) == 3
    inside = ("--study", STUDY, "--series", FIRST)
    assert len(json.loads(run("web", "search", "instances", *inside, "--limit", "1", "--json", *at).stdout)) == 1
    nothing = run("web", "search", "studies", "PatientID=nobody", "--json", *at)
    assert (nothing.returncode, nothing.stdout) == (0, "[]\n")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["studies", "PatientNme=Doe"], 6, "PatientNme is no attribute's keyword"),
        (["studies", "--field", "StudyDte"], 6, "StudyDte is no attribute's keyword"),
        (["studies", "Doe"], 2, "is not KEYWORD=VALUE"),
        (["studies", "--study", "1.2"], 2, "studies are searched without --study"),
        (["series", "--study", "1.2", "--series", "1.3"], 2, "series are searched without --series"),
        (["instances", "--series", "1.3"], 2, "--series needs the --study"),
    ],
)
def test_a_search_that_can_only_be_a_mistake_is_told_before_the_archive_is_asked(words, code, told):
    with scripted(Answer(204)) as server:
        done = run("web", "search", *words, "--url", server.url)
    assert (done.returncode, server.requests) == (code, [])
    assert told in " ".join(done.stderr.split())


def test_a_404_to_all_studies_says_that_the_url_is_another_one_s(server, folder):
    wrong = server.url.removesuffix("/v2")
    for words in (("search", "studies"), ("store", folder, "--all")):
        done = run("web", *words, "--url", wrong)
        assert done.returncode == 3
        assert "HTTP 404 Not Found: its URL has to be what comes before /studies" in done.stderr
    assert "its URL" not in run("web", "metadata", "1.2.3", "--url", server.url).stderr


def test_control_characters_of_an_archive_do_not_reach_the_terminal():
    model = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "\x1b]0;x\x07[bold]Doe"}]}}
    answer = Answer(200, {"Content-Type": "application/dicom+json"}, json.dumps([model]).encode())
    with scripted(answer) as server:
        shown = run("web", "metadata", "1.2", "1.3", "1.4", "--url", server.url).stdout
    assert "[bold]Doe" in shown
    assert "\x1b" not in shown


# delete


def test_deleting_asks_first(server, at, folder):
    run("web", "store", folder, *at)
    for answer in ("", "n\n"):
        done = run("web", "delete", STUDY, *at, answer=answer)
        assert done.returncode == 1
        assert f"study {STUDY} with 3 instances" in done.stderr
    assert len(held(server)) == 3
    assert run("web", "delete", STUDY, FIRST, f"{FIRST}.1", *at, answer="y\n").returncode == 0
    assert run("web", "delete", STUDY, FIRST, "--yes", *at).returncode == 0
    assert held(server) == [f"{SECOND}.1"]
    assert run("web", "delete", STUDY, "--yes", *at).returncode == 0
    assert run("web", "delete", STUDY, "--yes", *at).returncode == 3


# which archive, and how it ends


def test_the_archive_comes_from_the_configuration(server, folder, tmp_path):
    config = tmp_path / "config.yaml"
    archives = {"main": {"url": server.url, "profile": "azure"}}
    config.write_text(yaml.safe_dump({"archives": archives, "ae_titles": {"GATEWAY": {"archive": "main"}}}))
    assert run("web", "store", folder, "--config", config).returncode == 0
    assert run("web", "search", "studies", "--archive", "main", folder=tmp_path).returncode == 0
    other = run("web", "search", "studies", "--archive", "other", "--config", config)
    assert other.returncode == 2
    assert "other is not one of: embedded, main" in other.stderr
    both = run("web", "search", "studies", "--archive", "main", "--url", server.url, "--config", config)
    assert both.returncode == 2


@pytest.mark.parametrize(
    "kind", ["bearer", "bearer in a file", "oauth2", "token file", "token file in the environment"]
)
def test_signing_in_works_from_the_shell(tmp_path, kind):
    token = tmp_path / "token"
    with keeping(Keeper()) as keeper:
        auth = {
            "bearer": {"kind": "bearer", "token": "${GATEWAY_TEST_TOKEN}"},
            "bearer in a file": {"kind": "bearer", "token_file": str(token)},
            "oauth2": {
                "kind": "oauth2",
                "token_url": f"{keeper.url}/token",
                "client_id": CLIENT,
                "client_secret": "${GATEWAY_TEST_SECRET}",
            },
        }.get(kind)
        config = tmp_path / "config.yaml"
        archives = {"main": {"url": f"{keeper.url}/v2", **({"auth": auth} if auth else {})}}
        config.write_text(yaml.safe_dump({"archives": archives, "ae_titles": {"GATEWAY": {"archive": "main"}}}))
        more = {"GATEWAY_TEST_TOKEN": "good", "GATEWAY_TEST_SECRET": SECRET}
        words = ["--config", config] if auth else ["--url", f"{keeper.url}/v2"]
        if kind == "token file":
            words += ["--token-file", token]
        elif kind == "token file in the environment":
            more["DICOMWEB_TOKEN_FILE"] = str(token)
        for content, code in (("wrong", 5), ("good", 0)):
            token.write_text(f"{content}\n")
            keeper.good = {"good"} if content == "good" else set()
            keeper.status = 200 if content == "good" else 403
            done = run("web", "search", "studies", "--json", *words, more=more)
            assert (done.returncode, done.stdout) == (code, "[]\n" if code == 0 else ""), done.stderr
            assert SECRET not in done.stderr


def test_the_embedded_archive_is_found_by_its_fixed_port(tmp_path):
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"embedded": {"port": port}}))
    with EmbeddedArchive(tmp_path / "archive", port=port):
        assert run("web", "search", "studies", folder=tmp_path).returncode == 0
    config.unlink()
    done = run("web", "search", "studies", folder=tmp_path)
    assert done.returncode == 2
    assert "embedded.port" in done.stderr


@pytest.mark.parametrize(
    ("status", "code"),
    [(204, 4), (401, 5), (403, 5), (404, 3), (405, 6), (406, 6), (409, 6), (413, 6), (415, 6), (500, 4)],
)
def test_each_kind_of_failure_has_its_exit_code(status, code):
    with scripted(Answer(status, {}, b"" if status == 204 else b"<html>")) as server:
        done = run("web", "metadata", "1.2", "--url", server.url)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("status", [429, 503])
def test_an_archive_that_stays_busy_is_in_trouble(status):
    with scripted(Answer(status, {"Retry-After": "60"})) as server:
        done = run("web", "metadata", "1.2", "--url", server.url)
    assert (done.returncode, f"HTTP {status}" in done.stderr) == (4, True)


def test_an_archive_that_is_away_and_a_folder_that_cannot_be_written_have_theirs(at, folder, tmp_path):
    assert run("web", "metadata", "1.2", "--url", f"http://127.0.0.1:{free_port()}").returncode == 4
    assert run("web", "metadata", "1.2", "--url", "no url").returncode == 2
    run("web", "store", folder, *at)
    assert run("web", "retrieve", STUDY, "-o", "/proc/nowhere", *at, folder=tmp_path).returncode == 7


def test_the_commands_work_on_orthanc(folder, tmp_path):
    (folder / "b.dcm").write_bytes(image([b"3" * 9], series=FIRST, sop=f"{FIRST}.2"))  # or it is another patient's
    with Orthanc(tmp_path) as server:
        at = ("--url", server.url, "--profile", "orthanc")
        assert run("web", "store", folder, *at).returncode == 0
        assert "skipped" in run("web", "store", folder, *at).stdout
        assert STUDY in run("web", "search", "studies", *at).stdout
        assert run("web", "retrieve", STUDY, *at, folder=tmp_path).returncode == 0
        assert len(list(tmp_path.glob(f"{STUDY}/*/*.dcm"))) == 3
        assert len(json.loads(run("web", "metadata", STUDY, "--json", *at).stdout)) == 3
        assert run("web", "frames", STUDY, FIRST, f"{FIRST}.1", "2", *at, folder=tmp_path).returncode == 0


def test_samples_have_the_uids_of_the_tutorial_s_files(tmp_path):
    assert run("web", "samples", tmp_path).returncode == 0
    found = {path.stem: dcmread(path) for path in tmp_path.iterdir()}
    assert sorted(found) == ["blue-circle", "green-square", "red-triangle"]
    assert len({dataset.StudyInstanceUID for dataset in found.values()}) == 1
    assert found["red-triangle"].SeriesInstanceUID == found["green-square"].SeriesInstanceUID
    for dataset in found.values():
        assert dataset.pixel_array.shape == (979, 985, 3)
