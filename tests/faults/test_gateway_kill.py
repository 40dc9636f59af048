"""Kill the gateway under load, a process of it or all of them; what it acknowledged is all in the archive."""

import os
import random
import time
from pathlib import Path

import psutil
from gateway_process import GatewayProcess
from load import check, sending, waiting
from processes import await_true, free_port

KILLS = int(os.environ.get("GATEWAY_KILLS", "40"))
IN_ONE_LIFE = 5  # kills, the last of all at once: a process that dies again and again is started after longer pauses
UP = '"listening"'


def gateway_for(folder: Path, port: int, **sections: object) -> GatewayProcess:
    pace = {"connections": 2, "retry_first": 0.1, "retry_longest": 0.5}
    return GatewayProcess(
        folder / "gateway",
        listen={"workers": 2, "port": free_port()},
        ae_titles={"GATEWAY": {"acknowledge": "spooled"}},
        embedded={"port": port, "delivery": pace},
        unknown_peers="accept",
        log={"format": "json"},
        **sections,
    )


def family(gateway: GatewayProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(gateway.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def kill_one(gateway: GatewayProcess, chance: random.Random) -> None:
    await_true(lambda: family(gateway), what="a process to kill")
    chance.choice(family(gateway)).kill()


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
    assert not list((spool / "outbox").glob("*.dcm"))
    assert not list((spool / "outbox" / "incoming").iterdir())
    assert "Traceback" not in gateway.log
