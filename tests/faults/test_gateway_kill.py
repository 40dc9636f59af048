"""Kill the gateway under load, a process of it or all of them; what it acknowledged is all in the archive."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gateway_victim
import psutil
import pytest
import yaml
from gateway_process import GatewayProcess
from load import check, sending, waiting
from processes import await_true, free_port
from spooled import left_over

from gateway.embedded.server import EmbeddedArchive

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("GATEWAY_KILLS", "40"))
IN_ONE_LIFE = 5  # kills, the last of all at once: a process that dies again and again is started after longer pauses
UP = '"listening"'
WHEN = ("before", "after")
PACE = {"connections": 2, "retry_first": 0.1, "retry_longest": 0.5}


def gateway_for(folder: Path, port: int, **sections: object) -> GatewayProcess:
    return GatewayProcess(
        folder / "gateway",
        listen={"workers": 2, "port": free_port()},
        ae_titles={"GATEWAY": {"acknowledge": "spooled"}},
        embedded={"port": port, "delivery": PACE},
        unknown_peers="accept",
        log={"format": "json"},
        **sections,
    )


def family(gateway: GatewayProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(gateway.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def kill_one(gateway: GatewayProcess, chance: random.Random) -> None:
    await_true(lambda: family(gateway), what="a process to kill")
    chance.choice(family(gateway)).kill()


@pytest.mark.timeout(240 + 6 * KILLS)
def test_a_gateway_killed_at_any_time_under_load_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    chance, archive, left = random.Random(13), free_port(), KILLS
    gateway = gateway_for(tmp_path, archive)
    spool = Path(gateway.config["spool"]["folder"])
    with sending(gateway.port) as senders:
        while left > 0:
            lives = gateway.log.count(UP) if left < KILLS else 0
            with gateway:
                await_true(lambda lives=lives: gateway.log.count(UP) > lives, what="every process")
                for _ in range(min(left, IN_ONE_LIFE) - 1):
                    time.sleep(chance.uniform(0, 0.6))
                    kill_one(gateway, chance)
                time.sleep(chance.uniform(0, 0.6))
                gateway.kill()
            left -= IN_ONE_LIFE
    with gateway:
        await_true(lambda: waiting(spool) == 0, 60, "the delivery")
        for sender in senders:
            assert sender.statuses == {0x0000}
            assert len(sender.acknowledged) > KILLS
            check(f"http://127.0.0.1:{archive}/v2", sender)
        assert gateway.stop() == 0
    assert not left_over(spool / "outbox")
    assert not list((spool / "outbox" / "incoming").iterdir())
    assert "Traceback" not in gateway.log


@contextmanager
def victim(folder: Path, config: dict[str, object], point: str, nth: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a gateway that kills itself at a point."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, str(ROOT / "tests" / "gateway_victim.py"), str(file), point, str(nth)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with (folder / "victim.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("acknowledge", ["spooled", "archived"])
def test_a_gateway_killed_at_any_step_loses_nothing_it_acknowledged(tmp_path: Path, acknowledge: str) -> None:
    chance, archive, points = random.Random(17), free_port(), gateway_victim.POINTS
    if acknowledge == "archived":  # there is no row to insert, claim or settle, and nothing to keep
        points = [f"{when}:{step}" for step in ("write", "request", "half the body", "answer") for when in WHEN]
    gateway = gateway_for(tmp_path, free_port())
    far = {"url": f"http://127.0.0.1:{archive}/v2", "profile": "embedded", "delivery": PACE}
    gateway.config["archives"] = {"far": far}
    gateway.config["ae_titles"] = {"GATEWAY": {"archive": "far", "acknowledge": acknowledge}}
    spool = Path(gateway.config["spool"]["folder"])
    with EmbeddedArchive(tmp_path / "far", port=archive) as there, sending(gateway.port) as senders:
        for point in points:
            with victim(tmp_path, gateway.config, point, chance.randint(1, 8)) as process:
                assert process.wait(40) == -signal.SIGKILL, point
        for sender in senders:
            sender.end()
        with gateway:
            await_true(lambda: waiting(spool) == 0, 60, "the delivery")
            assert not left_over(spool / "outbox")
            await_true(lambda: not list((spool / "outbox" / "incoming").iterdir()), 5, "a clean spool")
        for sender in senders:
            assert sender.statuses <= {0x0000}
            check(there.url, sender)
        assert any(sender.acknowledged for sender in senders)
