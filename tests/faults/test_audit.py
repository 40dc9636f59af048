"""The audit trail of a running gateway: what it says of an association, and that it loses and delays nothing."""

import os
import socket
import ssl
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import audit_trail
import dcmtk
import pydicom.data
import pytest
import trustme
from data import save
from gateway_process import GatewayProcess
from processes import await_true, free_port
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from gateway.audit import Keeper, Source, Trail
from gateway.audit.messages import Activity, activity
from gateway.audit_options import SyslogServer
from gateway.config import parse
from gateway.dimse.auditing import Auditor
from gateway.translate.part10 import Identity, file_header

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
SOURCE = Source("test", "", ("GATEWAY",), 1, "host")
RECORD = partial(activity, what=Activity.START)


def study(folder: Path, patient: str, count: int) -> tuple[str, list[Path]]:
    """Write a study of `count` instances and give its UID and files."""
    uid, series = generate_uid(), generate_uid()
    paths = []
    for number in range(count):
        dataset = dcmread(CT)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid, series, generate_uid()
        dataset.PatientID, dataset.PatientName = patient, "Trail^Audit"
        path = folder / f"{patient}-{number}.dcm"
        save(dataset, path)
        paths.append(path)
    return uid, paths


def running(folder: Path, **audit: object) -> GatewayProcess:
    return GatewayProcess(
        folder / "gateway",
        peers={"DCMTK": {}},
        audit={"folder": str(folder / "audit"), **audit},
        log={"format": "json"},
    )


class Collector:
    """A syslog server with TLS that keeps what it got, by octet counting (RFC 5425)."""

    def __init__(self, folder: Path, port: int) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "audit-ca.pem")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self.config = {"host": "127.0.0.1", "port": port, "ca": str(folder / "audit-ca.pem")}
        self.lines: list[bytes] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        with closing(socket.create_server(("127.0.0.1", self.config["port"]))) as listener:
            listener.settimeout(0.1)
            done = threading.Event()
            thread = threading.Thread(target=self._serve, args=(listener, done))
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()

    def _serve(self, listener: socket.socket, done: threading.Event) -> None:
        while not done.is_set():
            try:
                plain, _ = listener.accept()
            except TimeoutError:
                continue
            plain.settimeout(5)
            with self._context.wrap_socket(plain, server_side=True) as sock:
                sock.settimeout(0.1)
                self._read(sock, done)

    def _read(self, sock: ssl.SSLSocket, done: threading.Event) -> None:
        held = b""
        while not done.is_set():
            try:
                more = sock.recv(65_536)
            except TimeoutError:
                continue
            if not more:
                return
            held += more
            while (space := held.find(b" ")) > 0 and len(held) >= space + 1 + int(held[:space]):
                end = space + 1 + int(held[:space])
                self.lines.append(held[space + 1 : end])
                held = held[end:]


def test_the_trail_tells_of_each_association_by_study(tmp_path: Path) -> None:
    first, files = study(tmp_path, "P1", 3)
    second, more = study(tmp_path, "P2", 2)
    with running(tmp_path) as gateway:
        assert dcmtk.storescu(gateway.port, *files, *more).returncode == 0
        assert dcmtk.findscu(gateway.port, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={first}").status == 0
        got = dcmtk.getscu(
            gateway.port,
            tmp_path / "got",
            "QueryRetrieveLevel=STUDY",
            f"StudyInstanceUID={first}",
            model="S",
            syntax=None,
        )
        assert got.returncode == 0
        assert dcmtk.echoscu(gateway.port, calling="STRANGER").rejected
        assert dcmtk.echoscu(gateway.port, calling="STRANGER").rejected
    roots = audit_trail.in_folder(tmp_path / "audit")
    kinds = [root.find("EventIdentification/EventTypeCode") for root in audit_trail.of_kind(roots, "110100")]
    assert [kind.get("csd-code") for kind in kinds] == ["110120", "110121"]
    transfers = [audit_trail.parts(root) for root in audit_trail.of_kind(roots, "110104")]
    ct = "1.2.840.10008.5.1.4.1.1.2"
    assert [(parts.studies, parts.patient) for parts in transfers[:2]] == [
        ({first: {ct: 3}}, ("P1", "Trail^Audit")),
        ({second: {ct: 2}}, ("P2", "Trail^Audit")),
    ]
    assert transfers[0].roles == {"DCMTK": "110153", "GATEWAY": "110152"}
    assert transfers[2].studies == {first: {"": 3}}
    assert transfers[2].roles == {"GATEWAY": "110153", "DCMTK": "110152"}
    assert len(transfers) == 3
    (query,) = audit_trail.of_kind(roots, "110112")
    assert audit_trail.outcome(query) == "0"
    (alert,) = audit_trail.of_kind(roots, "110113")  # once for the same in a minute
    assert audit_trail.outcome(alert) == "4"
    assert "P1" not in gateway.log
    assert "Trail" not in gateway.log


def test_a_failed_store_and_a_stored_one_are_told_apart(tmp_path: Path) -> None:
    uid, files = study(tmp_path, "P1", 2)
    changed = dcmread(files[1])
    changed.SOPInstanceUID = dcmread(files[0]).SOPInstanceUID
    save(changed, files[1])
    with GatewayProcess(
        tmp_path / "gateway", peers={"DCMTK": {}}, embedded={"duplicates": "reject"}, ae_titles={"GATEWAY": {}}
    ) as gateway:
        changed.ImageComments = "another"
        save(changed, files[1])
        dcmtk.storescu(gateway.port, *files)
    transfers = audit_trail.of_kind(audit_trail.in_folder(tmp_path / "gateway/spool/audit"), "110104")
    assert {audit_trail.outcome(root) for root in transfers} == {"0", "4"}
    assert all(audit_trail.parts(root).studies == {uid: {"1.2.840.10008.5.1.4.1.1.2": 1}} for root in transfers)


def test_without_patients_the_trail_names_none(tmp_path: Path) -> None:
    _, files = study(tmp_path, "SECRET", 1)
    with running(tmp_path, patients=False) as gateway:
        dcmtk.storescu(gateway.port, *files)
        dcmtk.findscu(gateway.port, "QueryRetrieveLevel=STUDY", "PatientID=SECRET")
        dcmtk.getscu(gateway.port, tmp_path / "got", "QueryRetrieveLevel=PATIENT", "PatientID=SECRET")
    roots = audit_trail.in_folder(tmp_path / "audit")
    assert len(audit_trail.of_kind(roots, "110104")) == 2
    text = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.log"))
    assert b"SECRET" not in text
    assert b"Trail" not in text
    assert b"ParticipantObjectQuery" not in text


def test_the_trail_is_for_its_owner_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        await_true(lambda: list((tmp_path / "audit").glob("*.log")), what="the trail")
    (path,) = (tmp_path / "audit").glob("*.log")
    assert [item.stat().st_mode & 0o777 for item in (path.parent, path)] == [0o700, 0o600]


def test_messages_wait_for_their_server_and_reach_it_in_order_across_restarts(tmp_path: Path) -> None:
    _, files = study(tmp_path, "P1", 1)
    collector = Collector(tmp_path, free_port())
    for number in range(2):
        with running(tmp_path, syslog=collector.config) as gateway:
            assert dcmtk.storescu(gateway.port, *files).returncode == 0
            if number == 0:
                await_true(lambda log=gateway: "wait for the syslog server" in log.log, what="the log's line")
                continue
            with collector.open():
                await_true(lambda: len(collector.lines) >= 5, what="the messages at the server")
    written = [line for path in sorted((tmp_path / "audit").glob("*.log")) for line in path.read_bytes().splitlines()]
    assert len(written) == 6  # the last is of the stop, when the server was gone
    assert collector.lines == written[:5]
    with running(tmp_path, syslog=collector.config), collector.open():
        await_true(lambda: len(collector.lines) >= 7, what="the rest at the server")
    assert collector.lines[5] == written[5]
    for line in collector.lines:
        audit_trail.of_line(line)


def test_a_server_that_cannot_prove_itself_gets_nothing(tmp_path: Path) -> None:
    collector = Collector(tmp_path, free_port())
    trustme.CA().cert_pem.write_to_path(tmp_path / "audit-ca.pem")
    folder = tmp_path / "audit"
    with Trail(folder, SOURCE) as trail:
        trail.record(RECORD)
    keeper = Keeper(folder, SyslogServer(**collector.config), None)
    with socket.create_server(("127.0.0.1", int(collector.config["port"]))) as listener:
        thread = threading.Thread(target=partial(_half, listener, collector))
        thread.start()
        with pytest.raises(ssl.SSLCertVerificationError):
            keeper._send()
        thread.join()
    assert collector.lines == []


def _half(listener: socket.socket, collector: Collector) -> None:
    plain, _ = listener.accept()
    with plain, pytest.raises((ssl.SSLError, OSError)):
        collector._context.wrap_socket(plain, server_side=True).recv(1)


def test_messages_go_by_udp_one_datagram_each(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        where = SyslogServer(host="127.0.0.1", port=server.getsockname()[1], transport="udp")
        with Keeper(tmp_path, where, None), Trail(tmp_path, SOURCE) as trail:
            for _ in range(3):
                trail.record(RECORD)
        for _ in range(3):
            audit_trail.of_line(server.recv(65_536))


def bomb(path: Path, size: int) -> None:
    """Write an instance in Deflated Explicit VR whose first element has `size` zeros, a multiple of 16 MiB."""
    deflate, zeros = zlib.compressobj(wbits=-zlib.MAX_WBITS), bytes(1 << 24)
    with path.open("wb") as file:
        file.write(file_header("1.2.840.10008.5.1.4.1.1.7", "1.2.3", DeflatedExplicitVRLittleEndian))
        file.write(deflate.compress(struct.pack("<HH2sHI", 0x0008, 0x0001, b"UN", 0, size)))
        for _ in range(size // len(zeros)):
            file.write(deflate.compress(zeros))
        named = ((0x0010, b"PN", b"Trail^Audit "), (0x0020, b"LO", b"BOMB"))
        elements = (struct.pack("<HH2sH", 0x0010, tag, vr, len(value)) + value for tag, vr, value in named)
        file.write(deflate.compress(b"".join(elements)) + deflate.flush())


def test_the_patient_of_an_instance_that_inflates_enormously_is_read_in_little_memory(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.dcm", 1 << 28)
    assert (tmp_path / "bomb.dcm").stat().st_size < 1 << 20
    with Trail(tmp_path / "audit", SOURCE) as trail:
        account = Auditor(trail, parse({"audit": {"folder": str(tmp_path / "audit")}}, "test")).association(
            "PEER", "GATEWAY", "127.0.0.1"
        )
        tracemalloc.start()
        try:
            with account.storing(
                Identity("1.2", "1.2.1", "1.2.840.10008.5.1.4.1.1.7", "1.2.3"),
                partial((tmp_path / "bomb.dcm").open, "rb"),
            ) as told:
                told(0)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        account.close()
    assert most < 1 << 24
    (line,) = (tmp_path / "audit").glob("*.log")
    assert b"BOMB" in line.read_bytes()


def test_a_disk_that_fails_keeps_nobody_waiting_and_loses_nothing_that_fits_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.write_text("a file where the folder should be")
    with Trail(folder, SOURCE) as trail:
        for _ in range(100):
            trail.record(RECORD)
        folder.unlink()
    assert len(audit_trail.in_folder(folder)) == 100


def test_old_files_are_removed_once_they_are_sent(tmp_path: Path) -> None:
    for name in ("2020-01-01.log", "2020-01-02.log"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1.6e9, 1.6e9))
    with Trail(tmp_path, SOURCE) as trail:
        trail.record(RECORD)
    unsent = SyslogServer(host="127.0.0.1", port=free_port())
    with Keeper(tmp_path, None, keep=None):
        pass
    assert len(list(tmp_path.glob("*.log"))) == 3
    with Keeper(tmp_path, unsent, keep=10):
        pass
    (tmp_path / "sent").unlink(missing_ok=True)
    with Keeper(tmp_path, None, keep=10):
        pass
    assert [path.name for path in tmp_path.glob("2020*.log")] == []
