"""Fill the disk below a gateway: A700, nothing lost, and it goes on by itself when there is room."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_process import GatewayProcess
from load import check, sending, waiting
from processes import await_true, free_port
from small_disk import fill, small_disk

from gateway.embedded.server import EmbeddedArchive

UP, MOST = '"listening"', 24 << 20
PACE = {"connections": 2, "retry_first": 0.1, "retry_longest": 0.5}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", MOST) as mounted:
        yield mounted


def gateway_for(folder: Path, disk: Path, archive: int) -> GatewayProcess:
    return GatewayProcess(
        folder / "gateway",
        listen={"workers": 2, "port": free_port()},
        archives={"far": {"url": f"http://127.0.0.1:{archive}/v2", "profile": "embedded", "delivery": PACE}},
        ae_titles={"GATEWAY": {"archive": "far", "acknowledge": "spooled"}},
        spool={"folder": str(disk / "spool"), "high_water": 1.0},
        unknown_peers="accept",
        log={"format": "json"},
    )


def test_a_full_disk_is_a700_loses_nothing_and_drains_by_itself(tmp_path: Path, disk: Path) -> None:
    archive = free_port()
    with gateway_for(tmp_path, disk, archive) as gateway, sending(gateway.port) as senders:
        await_true(lambda: all(0xA700 in one.statuses or one.rejected for one in senders), 40, "a full disk")
        time.sleep(0.5)
        there = [len(one.acknowledged) for one in senders]
        with EmbeddedArchive(tmp_path / "far", port=archive) as far:
            await_true(
                lambda: all(len(one.acknowledged) > n + 20 for one, n in zip(senders, there, strict=True)),
                60,
                "success again",
            )
            for sender in senders:
                sender.end()
            await_true(lambda: waiting(disk / "spool") == 0, 60, "the delivery")
            for sender in senders:
                assert sender.statuses == {0x0000, 0xA700}
                check(far.url, sender)
        assert "a process ended" not in gateway.log
        assert "Traceback" not in gateway.log
        assert not list((disk / "spool" / "outbox" / "incoming").iterdir())


@pytest.mark.parametrize("killed", [True, False])
def test_a_gateway_that_is_started_on_a_full_disk_delivers_what_is_there(
    tmp_path: Path, disk: Path, killed: bool
) -> None:
    archive = free_port()
    gateway = gateway_for(tmp_path, disk, archive)
    with gateway:
        with sending(gateway.port) as senders:
            await_true(lambda: all(len(one.acknowledged) > 3 for one in senders), what="some instances")
        filler = fill(disk)
        gateway.kill() if killed else gateway.stop()
    fill(disk)
    with EmbeddedArchive(tmp_path / "far", port=archive) as far, gateway:
        await_true(lambda: waiting(disk / "spool") == 0, 60, "the delivery")
        for sender in senders:
            check(far.url, sender)
        filler.unlink()
        with sending(gateway.port) as senders:
            await_true(lambda: all(one.acknowledged for one in senders), what="success again")
