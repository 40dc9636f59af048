"""A log that cannot be written costs its lines, never an instance or a process."""

import subprocess
import sys
from pathlib import Path

import psutil
import yaml
from bench.instances import Batch
from load import instances, store, waiting
from processes import answers, await_true, free_port, stop

ROOT = Path(__file__).parents[2]


def test_a_gateway_whose_log_is_on_a_full_disk_receives_and_delivers(tmp_path: Path) -> None:
    port, archive = free_port(), free_port()
    config = {
        "listen": {"host": "127.0.0.1", "port": port, "grace": 2},
        "ae_titles": {"GATEWAY": {"acknowledge": "spooled"}},
        "embedded": {"port": archive},
        "admin": None,
        "unknown_peers": "accept",
        "spool": {"folder": str(tmp_path / "spool"), "high_water": 1.0},
        "log": {"level": "debug"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", tmp_path / "config.yaml"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=full, stderr=full, cwd=ROOT)
    try:
        await_true(lambda: answers(port), what="the port")
        batch = Batch(run=31, count=4, size=5_000)
        assert store(port, batch, range(2)) == [0x0000] * 2
        await_true(lambda: waiting(tmp_path / "spool") == 0, what="the delivery")
        former = {child.pid for child in psutil.Process(process.pid).children()}
        assert len(former) == 3
        for pid in former:
            psutil.Process(pid).kill()

        def are_there_again() -> bool:
            now = {child.pid for child in psutil.Process(process.pid).children()}
            return len(now) == 3 and not now & former

        await_true(are_there_again, what="the processes again")
        await_true(lambda: answers(port), what="the port")
        assert store(port, batch, range(2, 4)) == [0x0000] * 2
        await_true(lambda: waiting(tmp_path / "spool") == 0, what="the delivery")
        assert len(instances(f"http://127.0.0.1:{archive}/v2", batch)) == 4
    finally:
        assert stop(process) == 0
