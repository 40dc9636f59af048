"""What the log says of an operation: its id goes along to the archive, the patient's data nowhere."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dcmtk
import pytest
from admin_page import AdminPage, admin
from embedded_archive import instance
from gateway_process import GatewayProcess
from listening_relay import Relay, relaying
from modality import Modality, references
from processes import await_true, free_port
from scripted_server import Answer, scripted

from gateway.embedded.server import EmbeddedArchive

STUDY, SERIES, SOP = "1.2.1", "1.2.1.1", "1.2.1.1.1"
KEYS = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
SC = "1.2.840.10008.5.1.4.1.1.7"

MARKS = {
    "PatientName": "Zqxmarkone^Wvkgiven",
    "PatientID": "ZQXMARKTWO",
    "PatientBirthDate": "19371113",
    "AccessionNumber": "ZQXMARKTHREE",
    "StudyDescription": "zqxmarkfour words",
    "StudyDate": "20380117",
    "ReferringPhysicianName": "Zqxmarkfive^Doc",
    "StudyID": "ZQXMARKSIX",
    "PatientComments": "zqxmarkseven",
}
TRACES = re.compile(r"zqxmark|wvkgiven|19371113|20380117", re.IGNORECASE)
# as an archive quotes what it does not like
REFUSAL = {
    "00081198": {
        "vr": "SQ",
        "Value": [
            {
                "00081155": {"vr": "UI", "Value": [SOP]},
                "00081197": {"vr": "US", "Value": [0xA900]},
                "00741048": {
                    "vr": "SQ",
                    "Value": [{"00000902": {"vr": "LO", "Value": ['DICOM100: (0010,0020) - "ZQXMARKTWO" is wrong']}}],
                },
            }
        ],
    }
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "marked.dcm"
    path.write_bytes(instance(STUDY, SERIES, SOP, **MARKS))
    return path


@contextmanager
def gateway_before(url: str, folder: Path, **sections: object) -> Iterator[GatewayProcess]:
    archive = {"url": url, "profile": "embedded", "delivery": {"retry_first": 0.2, "retry_longest": 0.5}}
    gateway = GatewayProcess(
        folder / "gateway",
        **{
            "archives": {"far": archive},
            "ae_titles": {
                "GATEWAY": {"archive": "far"},
                "SPOOLED": {"archive": "far", "acknowledge": "spooled"},
            },
            "log": {"format": "json", "level": "debug"},
            "admin": admin(probe=60),
            **sections,
        },
    )
    with gateway:
        await_true(lambda: "listening" in gateway.log, what="every process")
        yield gateway


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[Relay, str]]:
    port = free_port()
    with EmbeddedArchive(tmp_path / "far", port=port), relaying(port) as relay:
        yield relay, f"http://127.0.0.1:{relay.port}/v2"


def lines(gateway: GatewayProcess, event: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def line(gateway: GatewayProcess, event: str) -> dict[str, object]:
    await_true(lambda: lines(gateway, event), what=f"the line of {event}")
    return lines(gateway, event)[-1]


def test_every_request_of_an_operation_carries_the_id_of_its_line(
    tmp_path: Path, file: Path, heard: tuple[Relay, str]
) -> None:
    relay, url = heard
    with dcmtk.storescp(tmp_path / "scp", title="RECEIVER", classes=[SC]) as scp:
        peers = {"DCMTK": {}, "RECEIVER": {"host": "127.0.0.1", "port": scp.port}}
        with gateway_before(url, tmp_path, peers=peers) as gateway:
            work = {
                "C-STORE": lambda: dcmtk.storescu(gateway.port, file),
                "C-FIND": lambda: dcmtk.findscu(gateway.port, *KEYS, "NumberOfStudyRelatedInstances"),
                "C-MOVE": lambda: dcmtk.movescu(gateway.port, "RECEIVER", *KEYS, model="S"),
            }
            seen: set[object] = set()
            for service, operate in work.items():
                relay.heard.clear()
                assert operate().status == 0x0000, service
                name = line(gateway, service)["request"]
                assert re.fullmatch(r"[0-9a-f]{8}\.\d+", str(name))
                assert relay.heard, service
                assert {headers.get("x-request-id") for _, _, headers in relay.heard} == {name}, service
                seen.add(name)
            assert len(seen) == 3
            assert len(scp.files) == 1


def test_the_operations_of_an_association_have_its_id_and_their_own(tmp_path: Path, heard: tuple[Relay, str]) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(instance(STUDY, SERIES, f"{SOP}.{number}"))
    with gateway_before(heard[1], tmp_path, unknown_peers="accept") as gateway:
        assert dcmtk.storescu(gateway.port, *files).statuses == [0x0000] * 3
        await_true(lambda: len(lines(gateway, "C-STORE")) == 3)
        names = [str(one["request"]) for one in lines(gateway, "C-STORE")]
    assert len(set(names)) == 3
    assert len({name.partition(".")[0] for name in names}) == 1


def test_a_spooled_instance_can_be_followed_from_its_line_to_the_archive(
    tmp_path: Path, file: Path, heard: tuple[Relay, str]
) -> None:
    relay, url = heard
    with gateway_before(url, tmp_path, unknown_peers="accept") as gateway:
        assert dcmtk.storescu(gateway.port, file, called="SPOOLED").status == 0x0000
        sent = line(gateway, "sent")
        entry = line(gateway, "C-STORE")["entry"]
    assert sent["request"] == entry
    assert sent["entries"] == entry
    assert sent["stored"] == 1
    assert [headers["x-request-id"] for headers in relay.requests("POST")] == [entry]


def test_what_a_storage_commitment_asks_the_archive_carries_the_transaction_uid_that_its_line_names(
    tmp_path: Path, file: Path, heard: tuple[Relay, str]
) -> None:
    relay, url = heard
    with gateway_before(url, tmp_path, unknown_peers="accept") as gateway:
        assert dcmtk.storescu(gateway.port, file).status == 0x0000
        relay.heard.clear()
        request = references((SC, SOP))
        assert Modality(gateway.port).ask(request) == 0x0000
        line(gateway, "commitment judged")
        transaction = line(gateway, "N-ACTION")["transaction"]
    assert transaction == request.TransactionUID
    asked = relay.requests("GET")
    assert asked
    assert {headers.get("x-request-id") for headers in asked} == {transaction}


def _shown(gateway: GatewayProcess) -> str:
    """Give all that a gateway tells: log, page, metrics, health, and what it remembers for the page."""
    page = AdminPage(gateway)
    told = gateway.log + "".join(page.get(path).text for path in ("/", "/live", "/metrics", "/health/ready"))
    memory = sqlite3.connect(Path(gateway.config["spool"]["folder"]) / "recent.db")
    for table in ("contacts", "refusals", "studies", "minutes"):
        told += repr(memory.execute(f"SELECT * FROM {table}").fetchall())
    memory.close()
    return told


def test_nothing_that_the_gateway_tells_names_a_patient(tmp_path: Path, file: Path, heard: tuple[Relay, str]) -> None:
    other = tmp_path / "other.dcm"  # other content under the same UIDs
    other.write_bytes(instance(STUDY, SERIES, SOP, **{**MARKS, "StudyDescription": "zqxmarkfour again"}))
    queries = [f"{keyword}={value}" for keyword, value in MARKS.items() if keyword != "PatientComments"]
    with dcmtk.storescp(tmp_path / "scp", title="RECEIVER", classes=[SC]) as scp:
        peers = {
            "DCMTK": {},
            "RECEIVER": {"host": "127.0.0.1", "port": scp.port},
            "ABSENT": {"host": "127.0.0.1", "port": free_port()},
        }
        with gateway_before(heard[1], tmp_path, peers=peers) as gateway:
            port = gateway.port
            assert dcmtk.storescu(port, file).status == 0x0000
            assert dcmtk.storescu(port, other).status == 0x0111
            assert dcmtk.storescu(port, other, called="SPOOLED").status == 0x0000  # and is set aside later
            found = dcmtk.findscu(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", *queries)
            assert [str(one.PatientName) for one in found.responses] == [MARKS["PatientName"]]
            # without its unique key, with a wrong level, with what no date is
            dcmtk.findscu(port, "QueryRetrieveLevel=ZQXMARK", *queries)
            dcmtk.findscu(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyDate=zqxmark")
            dcmtk.findscu(port, "QueryRetrieveLevel=SERIES", "PatientName=Zqxmarkone*")
            dcmtk.movescu(port, "RECEIVER", "QueryRetrieveLevel=PATIENT", "PatientID=ZQXMARKTWO")
            dcmtk.movescu(port, "ABSENT", "QueryRetrieveLevel=PATIENT", "PatientID=ZQXMARKTWO")
            dcmtk.movescu(port, "RECEIVER", "QueryRetrieveLevel=STUDY", "PatientID=ZQXMARKTWO")
            dcmtk.getscu(port, tmp_path / "got", "QueryRetrieveLevel=PATIENT", "PatientID=ZQXMARKTWO")
            assert len(scp.files) == 1
            line(gateway, "set aside")
            told = _shown(gateway)
    assert "C-GET" in told
    assert len(lines(gateway, "C-FIND")) == 4
    assert TRACES.findall(told) == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {"Content-Type": "text/plain"}, b"Zqxmarkone^Wvkgiven is not welcome"),
        Answer(200, {"Content-Type": "application/dicom+json"}, b'[{"00100010": {"Value": "Zqxmarkone"}'),
        Answer(400, {"Content-Type": "application/json"}, b'{"error": "PatientID ZQXMARKTWO"}'),
        Answer(409, {"Content-Type": "application/dicom+json"}, json.dumps(REFUSAL).encode()),
        Answer(200, {"Content-Type": "application/dicom+json"}, b'[{"00100010":{"vr":"DA","Value":[["zqxmark"]]}}]'),
    ],
    ids=["broken", "unreadable", "refused", "named", "malformed"],
)
def test_nothing_that_an_archive_says_of_a_patient_is_told(tmp_path: Path, file: Path, answer: Answer) -> None:
    with scripted(answer) as server, gateway_before(server.url, tmp_path, unknown_peers="accept") as gateway:
        dcmtk.storescu(gateway.port, file)
        dcmtk.storescu(gateway.port, file, called="SPOOLED")
        dcmtk.findscu(gateway.port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=Zqxmarkone*")
        dcmtk.getscu(gateway.port, tmp_path / "got", *KEYS, model="S")
        line(gateway, "sent")
        told = _shown(gateway)
    assert len(lines(gateway, "C-FIND")) == 1
    assert TRACES.findall(told) == []
