"""A changed configuration is taken up while the gateway runs, or changes nothing and says why."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dcmtk
import httpx
import processes
import psutil
import pydicom.data
import pytest
import yaml
from gateway_process import GatewayProcess
from processes import await_true, free_port
from pynetdicom import AE
from pynetdicom.association import Association

ROOT = Path(__file__).parents[2]
CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
VERIFICATION = "1.2.840.10008.1.1"
TAKEN, REFUSED = "configuration taken up", "configuration not taken up"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path, peers={"DCMTK": {}}, log={"format": "json"}) as running:
        yield running


def write(gateway: GatewayProcess, **sections: Any) -> None:
    (gateway.folder / "config.yaml").write_text(yaml.safe_dump({**gateway.config, **sections}))


def reload(gateway: GatewayProcess, word: str = TAKEN, **sections: Any) -> str:
    """Have a changed file read, wait until the log has `word` once more, and give that line."""
    before = gateway.log.count(word)
    write(gateway, **sections)
    os.kill(gateway.pid, signal.SIGHUP)
    await_true(lambda: gateway.log.count(word) > before, what=word)
    return [line for line in gateway.log.splitlines() if word in line][-1]


def children(gateway: GatewayProcess) -> set[int]:
    return {child.pid for child in psutil.Process(gateway.pid).children()}


def serves(gateway: GatewayProcess, calling: str) -> bool:
    return dcmtk.echoscu(gateway.port, calling=calling).statuses == [0]


@contextmanager
def associated(gateway: GatewayProcess, calling: str) -> Iterator[Association]:
    entity = AE(ae_title=calling)
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def test_a_reload_holds_for_new_associations_and_leaves_running_ones_alone(gateway: GatewayProcess) -> None:
    former = children(gateway)
    assert not serves(gateway, "NEW")
    with associated(gateway, "DCMTK") as held:
        reload(gateway, peers={"NEW": {}})
        assert serves(gateway, "NEW")
        assert not serves(gateway, "DCMTK")
        assert held.send_c_echo().Status == 0
        assert len(children(gateway) - former) == 2  # delivery and receiver; the archive is the same
    await_true(lambda: len(children(gateway)) == 3, what="the former processes' end")
    assert len(children(gateway) & former) == 1
    assert serves(gateway, "NEW")


FAULTY = {
    "no option": ({"peerz": {}}, "peerz"),
    "another port": ({"listen": {"port": 1}}, "listen.port"),
    "another spool": ({"spool": {"folder": "/nowhere"}}, "spool.folder"),
    "a certificate that is not there": (
        {"archives": {"far": {"url": "https://127.0.0.1:9", "ca": "/nowhere/ca.pem"}}},
        "ca",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_file_changes_nothing_and_the_log_says_why(gateway: GatewayProcess, name: str) -> None:
    sections, word = FAULTY[name]
    former = children(gateway)
    assert word in reload(gateway, REFUSED, **sections, unknown_peers="accept")
    assert serves(gateway, "DCMTK")
    assert not serves(gateway, "NEW")
    await_true(lambda: children(gateway) == former, what="the end of what was started in vain")


def test_a_file_that_is_not_yaml_changes_nothing(gateway: GatewayProcess) -> None:
    (gateway.folder / "config.yaml").write_text("peers: [")
    os.kill(gateway.pid, signal.SIGHUP)
    await_true(lambda: REFUSED in gateway.log, what="the log's line")
    assert "not YAML" in gateway.log
    assert serves(gateway, "DCMTK")


def test_a_changed_file_is_taken_up_by_itself_where_that_is_wanted(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, peers={"DCMTK": {}}, reload_on_change=True, log={"format": "json"}) as gateway:
        write(gateway, peers={"NEW": {}})
        await_true(lambda: TAKEN in gateway.log, what="the reload")
        assert serves(gateway, "NEW")
        (gateway.folder / "config.yaml").write_text("peers: [")
        await_true(lambda: REFUSED in gateway.log, what="the log's line")
        assert serves(gateway, "NEW")


def test_no_call_is_lost_while_the_configuration_is_taken_up_again_and_again(gateway: GatewayProcess) -> None:
    for number in range(4):
        before = gateway.log.count(TAKEN)
        write(gateway, peers={"DCMTK": {}, f"P{number}": {}})
        os.kill(gateway.pid, signal.SIGHUP)
        for _ in range(5):
            assert dcmtk.storescu(gateway.port, CT).statuses == [0]
        await_true(lambda seen=before: gateway.log.count(TAKEN) > seen, what="the reload")
    assert serves(gateway, "P3")
    assert gateway.stop() == 0


def test_a_stop_ends_what_still_runs_by_a_former_configuration(gateway: GatewayProcess) -> None:
    with associated(gateway, "DCMTK"):
        reload(gateway, peers={"NEW": {}})
        family = psutil.Process(gateway.pid).children(recursive=True)
        assert gateway.stop() == 0
        assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_hang_up_that_reaches_every_process_stops_none(gateway: GatewayProcess) -> None:
    former = children(gateway)
    for pid in former:
        os.kill(pid, signal.SIGHUP)
    assert serves(gateway, "DCMTK")
    assert children(gateway) == former


def test_the_status_page_goes_over_too_and_its_counts_never_go_back(tmp_path: Path) -> None:
    port = free_port()
    with GatewayProcess(tmp_path, peers={"DCMTK": {}}, admin={"port": port}, log={"format": "json"}) as gateway:

        def echoes(peer: str) -> float:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            found = [line for line in text.splitlines() if line.startswith("dicom_gateway_operations_total")]
            return sum(float(line.split()[-1]) for line in found if f'peer="{peer}"' in line)

        assert serves(gateway, "DCMTK")
        await_true(lambda: echoes("DCMTK") == 1, what="the count")
        for number in range(3):
            reload(gateway, peers={"DCMTK": {}, f"P{number}": {}})
            assert serves(gateway, f"P{number}")
            await_true(lambda peer=f"P{number}": echoes(peer) == 1, what="the count of the new peer")
            assert echoes("DCMTK") == 1
        await_true(lambda: len(children(gateway)) == 4, what="the former processes' end")
        ready = httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False)
        assert ready.status_code == 200, ready.text


def test_a_process_that_the_new_configuration_has_not_is_none_that_is_down(tmp_path: Path) -> None:
    port = free_port()
    listen = {"workers": 3}
    sections = {"peers": {"DCMTK": {}}, "admin": {"port": port}, "log": {"format": "json"}}
    with GatewayProcess(tmp_path, listen=listen, **sections) as gateway:
        await_true(lambda: '"listening"' in gateway.log, what="every process")

        def up() -> dict[str, float]:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            rows = [line.split() for line in text.splitlines() if line.startswith("dicom_gateway_process_up{")]
            return {name.split('"')[1]: float(value) for name, value in rows}

        all_of_them = {"archive", "admin", "delivery", "receiver-1", "receiver-2", "receiver-3"}
        assert up() == dict.fromkeys(all_of_them, 1)
        reload(gateway, listen={**gateway.config["listen"], "workers": 1})
        await_true(lambda: up() == dict.fromkeys(all_of_them - {"receiver-2", "receiver-3"}, 1), what="one receiver")
        ready = httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False)
        assert ready.status_code == 200, ready.text
        reload(gateway, listen={**gateway.config["listen"], "workers": 2})
        await_true(lambda: up() == dict.fromkeys(all_of_them - {"receiver-3"}, 1), what="two receivers")


def test_a_process_that_hangs_at_its_start_keeps_the_gateway_neither_from_a_reload_nor_from_its_stop(
    tmp_path: Path,
) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    auth = {"kind": "basic", "username": "gateway", "password_file": str(password)}
    hanging = {"far": {"url": "http://127.0.0.1:9", "auth": auth}}
    with GatewayProcess(tmp_path, peers={"DCMTK": {}}, archives=hanging, log={"format": "json"}) as gateway:
        await_true(lambda: '"listening"' in gateway.log, what="every process")
        password.unlink()
        os.mkfifo(password)  # who opens it waits for a writer
        delivery = sorted(psutil.Process(gateway.pid).children(), key=lambda one: (one.create_time(), one.pid))[1]
        delivery.kill()
        await_true(lambda: "started again" in gateway.log, what="the end of the delivery")
        reload(gateway, peers={"NEW": {}}, archives={})
        assert serves(gateway, "NEW")
        write(gateway, peers={"DCMTK": {}})
        os.kill(gateway.pid, signal.SIGHUP)
        assert serves(gateway, "NEW")
        assert processes.stop(gateway.process, 60) == 0


def test_a_gateway_whose_process_hangs_at_its_first_start_can_be_stopped(tmp_path: Path) -> None:
    password = tmp_path / "password"
    os.mkfifo(password)
    auth = {"kind": "basic", "username": "gateway", "password_file": str(password)}
    config = tmp_path / "config.yaml"
    sections = {
        "admin": None,
        "listen": {"host": "127.0.0.1", "port": 0},
        "spool": {"folder": str(tmp_path / "spool")},
    }
    config.write_text(yaml.safe_dump({**sections, "archives": {"far": {"url": "http://127.0.0.1:9", "auth": auth}}}))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", config]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        await_true(lambda: len(psutil.Process(process.pid).children()) == 2, what="a process that hangs")
        os.kill(process.pid, signal.SIGHUP)
        process.terminate()
        assert process.wait(30) == 2
    finally:
        process.kill()
        process.wait()
    assert "a signal came before" in (tmp_path / "log").read_text()
