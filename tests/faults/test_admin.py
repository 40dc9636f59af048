"""Metrics and health say what happens to the gateway and to its archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dcmtk
import psutil
import pydicom.data
import pytest
from admin_page import AdminPage, admin
from bench import wire
from bench.instances import SOP_CLASS, Batch
from gateway_process import GatewayProcess
from processes import await_true, free_port
from scripted_server import Answer, scripted

from gateway.embedded.server import EmbeddedArchive

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
QUICK = {"connections": 2, "retry_first": 0.2, "retry_longest": 0.5}


@contextmanager
def watched(folder: Path, **sections: object) -> Iterator[AdminPage]:
    gateway = GatewayProcess(
        folder / "gateway", **{"admin": admin(), "log": {"format": "json"}, "unknown_peers": "accept", **sections}
    )
    with gateway:
        page = AdminPage(gateway)
        await_true(lambda: "listening" in gateway.log, what="every process")
        yield page


def far(url: str, acknowledge: str = "spooled", **archive: object) -> dict[str, object]:
    return {
        "archives": {"far": {"url": url, "profile": "embedded", "delivery": QUICK, **archive}},
        "ae_titles": {"GATEWAY": {"archive": "far", "acknowledge": acknowledge}},
    }


def store(page: AdminPage, batch: Batch) -> list[int]:
    connection = wire.associate("127.0.0.1", page.gateway.port, "GATEWAY", "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)])
    statuses = []
    for prefix in batch.prefixes:
        connection.send((prefix,))
        statuses.append(wire.answer(connection))
    wire.release(connection)
    return statuses


def test_every_operation_of_every_process_is_counted_once(tmp_path: Path) -> None:
    peers = {"DCMTK": {}}
    with watched(tmp_path, listen={"workers": 2}, peers=peers) as page:
        for _ in range(6):
            assert dcmtk.echoscu(page.gateway.port).status == 0x0000
        assert dcmtk.storescu(page.gateway.port, CT).statuses == [0x0000]
        assert dcmtk.echoscu(page.gateway.port, calling="STRANGER").status == 0x0000
        assert dcmtk.echoscu(page.gateway.port, called="WRONG").rejected
        await_true(lambda: page.metrics("dicom_gateway_associations_rejected_total"), what="the last count")
        operations = page.metrics("dicom_gateway_operations_total")
        assert operations == {
            ("DCMTK", "C-ECHO", "0000"): 6,
            ("DCMTK", "C-STORE", "0000"): 1,
            ("unknown", "C-ECHO", "0000"): 1,  # a title that anybody can choose becomes no label
        }
        size = CT.stat().st_size
        assert size * 0.9 < page.metrics("dicom_gateway_operation_bytes_total")["DCMTK", "C-STORE"] <= size
        assert page.metrics("dicom_gateway_operation_duration_seconds_count") == {
            ("DCMTK", "C-ECHO"): 6,
            ("DCMTK", "C-STORE"): 1,
            ("unknown", "C-ECHO"): 1,
        }
        assert page.metrics("dicom_gateway_associations_total") == {("DCMTK",): 7, ("unknown",): 1}
        assert page.metrics("dicom_gateway_associations_rejected_total") == {("called title not recognized",): 1}
        assert page.metrics("dicom_gateway_instances_sent_total") == {("embedded", "done"): 1}
        assert page.metrics("dicom_gateway_archive_requests_total")["embedded", "STOW-RS", "200"] == 1
        assert page.metrics("dicom_gateway_archive_request_duration_seconds_count")["embedded", "STOW-RS"] == 1
        assert page.metrics("dicom_gateway_listening")[()] == 2
        assert page.metrics("dicom_gateway_spool_free_bytes")[()] > 0


def test_open_associations_are_counted_and_those_of_a_killed_process_are_not(tmp_path: Path) -> None:
    with watched(tmp_path, peers={"BENCH": {}}) as page:
        name = "dicom_gateway_associations_open"
        connection = wire.associate(
            "127.0.0.1", page.gateway.port, "GATEWAY", "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)]
        )
        await_true(lambda: page.metrics(name) == {("BENCH",): 1})
        receivers = [
            child for child in psutil.Process(page.gateway.pid).children() if child.net_connections(kind="tcp")
        ]
        receiver = next(
            child
            for child in receivers
            if any(
                one.status == "ESTABLISHED" and one.laddr.port == page.gateway.port for one in child.net_connections()
            )
        )
        receiver.kill()
        await_true(lambda: page.metrics(name) == {("BENCH",): 0})
        await_true(lambda: page.metrics("dicom_gateway_process_starts_total")[("receiver-1",)] == 2)
        connection.close()
        assert page.metrics("dicom_gateway_associations_total") == {("BENCH",): 1}


def test_the_outbox_is_told_by_archive_with_the_age_of_its_oldest(tmp_path: Path) -> None:
    port, batch = free_port(), Batch(run=41, count=3, size=5_000)
    with watched(tmp_path, **far(f"http://127.0.0.1:{port}/v2")) as page:
        assert page.metrics("dicom_gateway_outbox_oldest_undelivered_seconds") == {("far",): 0}
        assert store(page, batch) == [0x0000] * 3

        def depth() -> float:
            return sum(page.metrics("dicom_gateway_outbox_instances").values())

        assert depth() == 3
        assert sum(page.metrics("dicom_gateway_outbox_bytes").values()) >= 3 * 5_000
        await_true(lambda: page.metrics("dicom_gateway_outbox_oldest_undelivered_seconds")["far",] > 1)
        await_true(lambda: page.metrics("dicom_gateway_archive_circuit_open") == {("far",): 1}, what="the circuit")
        assert page.metrics("dicom_gateway_archive_up") == {("far",): 0}
        assert page.is_ready()  # what is spooled is taken whatever the archive does
        assert page.findings()["archive far"][0] == "warning"
        with EmbeddedArchive(tmp_path / "far", port=port):
            await_true(lambda: depth() == 0, what="the delivery")
            await_true(lambda: page.metrics("dicom_gateway_archive_circuit_open") == {("far",): 0})
            assert page.metrics("dicom_gateway_outbox_oldest_undelivered_seconds") == {("far",): 0}
            assert page.metrics("dicom_gateway_instances_sent_total")["far", "done"] == 3
            await_true(lambda: page.metrics("dicom_gateway_archive_up") == {("far",): 1})


@pytest.mark.parametrize("status", [401, 403])
def test_an_archive_that_does_not_let_us_in_makes_the_gateway_not_ready(tmp_path: Path, status: int) -> None:
    with scripted(*[Answer(status)] * 200) as server, watched(tmp_path, **far(server.url)) as page:
        await_true(lambda: not page.is_ready(), what="the alarm")
        state, detail = page.findings()["archive far"]
        assert state == "red"
        assert f"HTTP {status}" in detail
        assert "archives.far.auth" in detail
        assert page.metrics("dicom_gateway_archive_sign_in_refused") == {("far",): 1}
        assert page.get("/health/live").status_code == 200


def test_a_disk_above_the_high_water_mark_makes_the_gateway_not_ready(tmp_path: Path) -> None:
    with watched(tmp_path, spool={"high_water": 0.000001}) as page:
        assert not page.is_ready()
        assert page.findings()["spool"] == ("red", "the disk is above the high-water mark (0%)")
        assert page.metrics("dicom_gateway_spool_takes_instances") == {(): 0}


def test_a_process_that_is_down_makes_the_gateway_not_ready_until_it_runs_again(tmp_path: Path) -> None:
    with watched(tmp_path) as page:
        await_true(page.is_ready)
        names = set()
        (receiver,) = _listeners(page)
        for _ in range(4):  # each death in a row costs a longer pause
            receiver.kill()
            receiver.wait(10)

            def is_red() -> bool:
                names.update(name for name, (state, _) in page.findings().items() if state == "red")
                return "listener" in names

            await_true(is_red, what="the alarm")
            await_true(lambda: _listeners(page) and page.is_ready(), what="the process again")
            (receiver,) = _listeners(page)
        assert names >= {"listener", "process receiver-1"}


def _listeners(page: AdminPage) -> list[psutil.Process]:
    """Find the receiving process: it is the last child that the gateway started."""
    children = [one for one in psutil.Process(page.gateway.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
    return [max(children, key=lambda one: one.create_time())] if len(children) == 4 else []


def test_what_a_retrieve_sends_is_counted_for_the_peer_that_asked(tmp_path: Path) -> None:
    with watched(tmp_path, peers={"DCMTK": {}}) as page:
        assert dcmtk.storescu(page.gateway.port, CT).statuses == [0x0000]
        stored = page.metrics("dicom_gateway_operation_bytes_total")["DCMTK", "C-STORE"]
        study = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
        keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
        assert dcmtk.getscu(page.gateway.port, tmp_path / "got", *keys, model="S").status == 0x0000
        await_true(lambda: ("DCMTK", "C-GET") in page.metrics("dicom_gateway_operation_bytes_total"))
        assert page.metrics("dicom_gateway_operation_bytes_total")["DCMTK", "C-GET"] == stored
