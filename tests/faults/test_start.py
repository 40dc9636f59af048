"""What keeps a gateway from starting is said in one line, and what it must not touch stays as it is."""

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from bench.instances import Batch
from gateway_process import GatewayProcess
from load import instances, store, waiting
from processes import await_true, free_port
from spooled import left_over

ROOT = Path(__file__).parents[2]
UP = '"listening"'


def gateway_for(folder: Path, spool: Path, **sections: object) -> GatewayProcess:
    return GatewayProcess(
        folder,
        spool={"folder": str(spool)},
        unknown_peers="accept",
        log={"format": "json"},
        **{"ae_titles": {"GATEWAY": {"acknowledge": "spooled"}}, **sections},
    )


def refused(gateway: GatewayProcess) -> str:
    """Start a gateway that must end by itself, without a traceback; give what it says."""
    gateway.folder.mkdir(parents=True, exist_ok=True)
    file = gateway.folder / "config.yaml"
    file.write_text(yaml.safe_dump(gateway.config))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == 2, said
    assert "Traceback" not in said
    return said


def test_a_second_gateway_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with gateway_for(tmp_path / "one", tmp_path / "spool") as first:
        assert "is in use by another gateway" in refused(gateway_for(tmp_path / "two", tmp_path / "spool"))
        assert store(first.port, Batch(run=41, count=2, size=2_000)) == [0x0000] * 2


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read only"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("a disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_spool_that_cannot_be_written_is_named(tmp_path: Path, read_only: Path) -> None:
    said = refused(gateway_for(tmp_path / "one", read_only / "spool"))
    assert "spool.folder" in said
    assert "Read-only file system" in said


@pytest.mark.parametrize("option", [{"ca": "/nowhere/ca.pem"}, {"auth": {"kind": "basic", "username": "u"}}])
def test_what_a_process_cannot_read_at_its_start_is_named(tmp_path: Path, option: dict[str, object]) -> None:
    if "auth" in option:
        option = {"auth": {**option["auth"], "password_file": "/nowhere/password"}}  # type: ignore[dict-item]
    archives = {"far": {"url": "https://127.0.0.1:1/v2", **option}}
    said = refused(
        gateway_for(tmp_path, tmp_path / "spool", archives=archives, ae_titles={"GATEWAY": {"archive": "far"}})
    )
    assert "/nowhere/" in said


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
def test_a_damaged_database_is_named_and_nothing_is_removed(tmp_path: Path, damage: str) -> None:
    spool = tmp_path / "spool"
    far = {"far": {"url": "http://127.0.0.1:1/v2"}}
    titles = {"GATEWAY": {"archive": "far", "acknowledge": "spooled"}}
    with gateway_for(tmp_path / "one", spool, archives=far, ae_titles=titles) as gateway:
        assert store(gateway.port, Batch(run=42, count=3, size=2_000)) == [0x0000] * 3
        assert gateway.stop() == 0
    database = spool / "outbox" / "outbox.db"
    whole = database.read_bytes()
    database.write_bytes(bytes(4096) if damage == "overwritten" else whole[: len(whole) // 2])
    said = refused(gateway_for(tmp_path / "two", spool, archives=far, ae_titles=titles))
    assert "outbox.db" in said
    assert left_over(spool / "outbox")
    if damage == "overwritten":
        database.write_bytes(whole)
    else:  # as the error says
        assert "made again of the segments" in said
        for path in database.parent.glob("outbox.db*"):
            path.unlink()
    with gateway_for(tmp_path / "three", spool, archives=far, ae_titles=titles):
        assert waiting(spool) == 3


def test_a_database_that_another_program_locks_delays_and_loses_nothing(tmp_path: Path) -> None:
    archive, batch = free_port(), Batch(run=43, count=3, size=2_000)
    with gateway_for(tmp_path, tmp_path / "spool", embedded={"port": archive}) as gateway:
        await_true(lambda: UP in gateway.log, what="every process")
        other = sqlite3.connect(tmp_path / "spool" / "outbox" / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor() as pool:
            stored = pool.submit(store, gateway.port, batch)
            time.sleep(1.5)
            assert not stored.done()
            other.execute("ROLLBACK")
            assert stored.result(20) == [0x0000] * 3
        other.close()
        await_true(lambda: waiting(tmp_path / "spool") == 0, what="the delivery")
        assert len(instances(f"http://127.0.0.1:{archive}/v2", batch)) == 3


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(gateway_for(tmp_path, tmp_path / "spool", listen={"port": port}))
    assert f"cannot be used: 127.0.0.1, port {port}: Address already in use" in said
