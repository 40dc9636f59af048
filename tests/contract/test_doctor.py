"""`dicom-gateway doctor` finds what is wrong, says what to do, and leaves nothing behind."""

import datetime as dt
import json
from pathlib import Path

import pytest
import trustme
import yaml
from command_line import run
from dcmtk import storescp
from gateway_process import GatewayProcess
from orthanc import Orthanc
from processes import free_port
from scripted_server import Answer, scripted
from token_server import Keeper, keeping

from gateway.dicomweb import Client
from gateway.doctor.machine import own_certificate
from gateway.embedded.server import EmbeddedArchive


def doctor(tmp_path: Path, *options: str, **sections):
    """Run it on a configuration and give its exit code and findings."""
    config = tmp_path / "doctor.yaml"
    spool = {"folder": str(tmp_path / "spool"), "high_water": 1.0}
    listen = {"host": "127.0.0.1", "port": free_port()}
    config.write_text(yaml.safe_dump({"spool": spool, "listen": listen} | sections))
    done = run("doctor", "--config", config, "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def told(findings, about, *words):
    return [one for one in findings if one["about"] == about and all(word in one["text"] for word in words)]


def archives(url, **more):
    return {"archives": {"main": {"url": url, **more}}, "ae_titles": {"GATEWAY": {"archive": "main"}}}


@pytest.mark.parametrize("kind", ["embedded", "orthanc"])
def test_the_profile_that_fits_is_proposed(tmp_path, kind):
    server = EmbeddedArchive(tmp_path / "archive") if kind == "embedded" else Orthanc(tmp_path)
    expected, fitting = ("azure", "azure") if kind == "embedded" else ("orthanc", "orthanc")
    with server:
        code, findings = doctor(tmp_path, "--test-object", **archives(server.url, profile="aws"))
        (proposal,) = told(findings, "archive main", "fits better")
        assert (code, proposal["mark"], proposal["advice"]) == (0, "note", f"set archives.*.profile to {expected}")
        assert told(findings, "archive main", "come back as they went")
        code, findings = doctor(tmp_path, "--test-object", **archives(server.url, profile=fitting))
        assert told(findings, "archive main", f"the profile {fitting} fits")
        with Client(server.url, profile=fitting) as client:
            left = [str(study.PatientID) for study in client.studies(fields=["PatientID"])]
        assert left == ([] if kind == "embedded" else ["DICOM-GATEWAY-TEST"])
        assert bool(told(findings, "archive main", "stays")) == (kind == "orthanc")


def test_the_embedded_archive_is_examined_where_its_port_is_known(tmp_path):
    port = free_port()
    _, findings = doctor(tmp_path)
    assert told(findings, "archive embedded", "was not examined")[0]["advice"].startswith("set embedded.port")
    _, findings = doctor(tmp_path, embedded={"port": port})
    (found,) = told(findings, "archive embedded", f"does not listen on port {port}")
    assert (found["mark"], found["advice"]) == ("note", "start the gateway: dicom-gateway serve")
    with GatewayProcess(tmp_path / "gateway", embedded={"port": port}):
        code, findings = doctor(tmp_path, "--test-object", embedded={"port": port})
        assert code == 0
        assert told(findings, "archive embedded", "come back as they went")
        assert told(findings, "archive embedded", "the profile embedded fits")
        with Client(f"http://127.0.0.1:{port}/v2", profile="embedded") as client:
            assert list(client.studies()) == []


def test_an_address_is_not_looked_up_as_a_name_is(tmp_path):
    with EmbeddedArchive(tmp_path / "archive") as server:
        for host, looked_up in (("localhost", True), ("127.0.0.1", False)):
            _, findings = doctor(tmp_path, **archives(server.url.replace("127.0.0.1", host)))
            assert bool(told(findings, "archive main", f"{host} is")) == looked_up


def test_without_the_test_object_nothing_is_stored(tmp_path):
    with EmbeddedArchive(tmp_path / "archive") as server:
        code, findings = doctor(tmp_path, **archives(server.url))
        assert code == 0
        assert told(findings, "archive main", "was not seen")
        assert {line.split()[0] for line in server.switches.requests()} == {"GET"}


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "archives.*.auth"), (404, "archives.*.url"), (500, "its log"), (400, "is a DICOMweb service")],
)
def test_what_an_archive_refuses_has_its_advice(tmp_path, status, advice):
    with scripted(Answer(status)) as server:
        code, findings = doctor(tmp_path, **archives(server.url))
    (found,) = told(findings, "archive main", f"HTTP {status}")
    assert (code, found["mark"]) == (1, "fault")
    assert advice in found["advice"]


def test_a_clock_that_is_wrong_is_told(tmp_path):
    with scripted(Answer(204, {"Date": "Mon, 01 Jan 2001 00:00:00 GMT"}), dated=False) as server:
        code, findings = doctor(tmp_path, **archives(server.url))
    assert code == 1
    assert told(findings, "archive main", "its clock is", "behind")


def test_names_certificates_and_folders_are_examined(tmp_path):
    code, findings = doctor(
        tmp_path, spool={"folder": "/proc/none"}, **archives("https://nowhere.invalid/dicom-web", ca="none.pem")
    )
    assert code == 1
    assert told(findings, "archive main", "has no address")
    assert told(findings, "archive main", "certificate files cannot be used")
    assert told(findings, "spool", "cannot be used")
    assert told(findings, "listen")  # and the rest is examined all the same


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_closed_port_is_told(tmp_path, scheme):
    code, findings = doctor(tmp_path, **archives(f"{scheme}://127.0.0.1:{free_port()}/dicom-web"))
    faults = [one for one in findings if one["mark"] == "fault"]
    assert code == 1
    assert faults
    assert all(one["about"] == "archive main" and one["advice"] for one in faults)


def test_a_folder_of_the_embedded_archive_that_cannot_be_used_is_told(tmp_path):
    code, findings = doctor(tmp_path, embedded={"folder": "/proc/none"})
    (found,) = told(findings, "archive embedded", "cannot be used")
    assert (code, "embedded.folder" in found["advice"]) == (1, True)


def test_the_certificates_between_us_and_a_peer_are_examined(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "peer-ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "wrong-ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "own.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
    server = {"listen": {"tls": own}, "unknown_peers": "accept", "ae_titles": {"VIEWER": {}}}
    with GatewayProcess(tmp_path / "viewer", **server) as viewer:

        def examined(ca):
            tls = {"ca": str(tmp_path / ca), **own}
            peers = {"VIEWER": {"host": "127.0.0.1", "port": viewer.port, "tls": tls}}
            code, findings = doctor(tmp_path, peers=peers)
            return code, [(one["mark"], one["text"]) for one in findings if one["about"] == "peer VIEWER"]

        code, found = examined("peer-ca.pem")
        assert (code, [mark for mark, _ in found]) == (0, ["ok", "ok", "ok"])
        assert "own.pem is good for" in found[0][1]
        assert "its certificate is good for" in found[1][1]
        assert "answers C-ECHO" in found[2][1]
        code, found = examined("wrong-ca.pem")
        assert code == 1
        assert "is not believed" in found[1][1]
        code, found = examined("none.pem")
        assert code == 1
        assert "certificate files cannot be used" in found[1][1]


def test_the_archive_s_certificate_is_examined(tmp_path):
    with keeping(Keeper(), authority=trustme.CA(), folder=tmp_path) as keeper:
        code, findings = doctor(tmp_path, **archives(f"{keeper.url}/v2"))
        assert told(findings, "archive main", "is not believed")
        code, findings = doctor(tmp_path, **archives(f"{keeper.url}/v2", ca=str(tmp_path / "ca.pem")))
        assert told(findings, "archive main", "its certificate is good for")
        assert code == 1  # it asks for a token


@pytest.mark.parametrize(
    ("days", "mark", "text"), [(400, "ok", "good for"), (7, "note", "ends in"), (-1, "fault", "expired")]
)
def test_the_end_of_our_own_certificate_is_told(tmp_path, days, mark, text):
    now = dt.datetime.now(dt.UTC)
    issued = trustme.CA().issue_cert(
        "gateway.example.org",
        not_before=now - dt.timedelta(days=30),
        not_after=now + dt.timedelta(days=days, hours=1),
    )
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    found = own_certificate("listen", "listen.tls.certificate", tmp_path / "own.pem", None)
    assert (str(found.mark), text in found.text) == (mark, True)


def test_a_file_that_is_no_certificate_is_told(tmp_path):
    for name, content in (("none.pem", None), ("text.pem", "nonsense")):
        if content:
            (tmp_path / name).write_text(content)
        assert own_certificate("listen", "listen.tls.certificate", tmp_path / name, None).mark == "fault"


def test_both_dimse_sides_are_examined(tmp_path):
    with (
        storescp(tmp_path / "received") as receiver,
        GatewayProcess(tmp_path / "gateway", peers={"AWAY": {}}) as gateway,
    ):
        peers = {
            "CT": {},
            "VIEWER": {"host": "127.0.0.1", "port": receiver.port},
            "AWAY": {"host": "127.0.0.1", "port": free_port()},
        }
        listen = {"host": "127.0.0.1", "port": gateway.port}
        code, findings = doctor(tmp_path, listen=listen, peers=peers)
        assert told(findings, "listen", "GATEWAY answers C-ECHO")
        assert told(findings, "peer CT", "only calls")
        assert told(findings, "peer VIEWER", "answers C-ECHO")
        (away,) = told(findings, "peer AWAY", "cannot be connected")
        assert (code, away["mark"]) == (1, "fault")
        _, findings = doctor(tmp_path, listen=listen)
        assert told(findings, "listen", "rejects whom it does not know")
        _, findings = doctor(tmp_path, listen=listen | {"port": receiver.port}, ae_titles={"OTHER": {}})
        assert told(findings, "listen")
    _, findings = doctor(tmp_path)
    assert told(findings, "listen", "nobody listens")


def test_for_people_it_is_a_table(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"spool": {"folder": str(tmp_path / "spool")}}))
    done = run("doctor", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "what to do" in done.stdout
