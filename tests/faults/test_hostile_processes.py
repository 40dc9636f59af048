"""Whatever bytes come to the port, the gateway as processes stays up, keeps nothing of it, and does not grow."""

import itertools
import socket
import struct
import time
from collections.abc import Iterator

import hostile
import httpx
import psutil
import pytest
from bench.instances import Batch
from gateway_process import GatewayProcess
from load import store
from processes import await_true, free_port
from spooled import left_over

ROUNDS = 12
MiB = 1 << 20


@pytest.fixture(scope="module")
def archive() -> int:
    return free_port()


@pytest.fixture(scope="module", params=["spooled", "archived"])
def gateway(
    request: pytest.FixtureRequest, archive: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with GatewayProcess(
        tmp_path_factory.mktemp(request.param),
        listen={"workers": 2, "negotiation_timeout": 1.5, "network_timeout": 1.5},
        ae_titles={"GATEWAY": {"acknowledge": request.param}},
        embedded={"port": archive},
        unknown_peers="accept",
        log={"format": "json"},
    ) as running:
        await_true(lambda: '"listening"' in running.log, what="every process")
        yield running
        assert "Traceback" not in running.log
        assert "a process ended" not in running.log


def left_behind(gateway: GatewayProcess) -> list[str]:
    outbox = gateway.folder / "spool" / "outbox"
    return [*(path.name for path in (outbox / "incoming").iterdir()), *left_over(outbox)]


def statuses(sock: socket.socket) -> list[int]:
    """Read responses until the connection ends."""
    found = []
    while answer := hostile.receive(sock):
        if answer[0] == 4:
            found.append(int.from_bytes(answer[answer.index(b"\0\0\0\x09\2\0\0\0") + 8 :][:2], "little"))
    return found


@pytest.mark.parametrize("name", hostile.STORES)
def test_half_received_and_empty_objects_are_never_acknowledged_and_leave_nothing(
    gateway: GatewayProcess, archive: int, name: str
) -> None:
    with hostile.associated(gateway.port) as sock:
        sock.sendall(hostile.STORES[name])
        sock.shutdown(socket.SHUT_WR)
        assert 0x0000 not in statuses(sock)
    await_true(lambda: not left_behind(gateway), 5, "a clean spool")
    assert hostile.echoes(gateway.port)
    search = httpx.get(
        f"http://127.0.0.1:{archive}/v2/instances",
        headers={"Accept": "application/dicom+json"},
        trust_env=False,
    )
    assert search.status_code == 204


def assault(port: int) -> None:
    """Send everything that the other tests send one by one, and hold connections half open meanwhile."""
    silent = [hostile.connect(port) for _ in range(5)]
    for opening in hostile.OPENINGS.values():
        with hostile.connect(port) as sock:
            sock.sendall(opening)
            hostile.receive(sock)
    for message in itertools.chain(hostile.MESSAGES.values(), hostile.STORES.values()):
        with hostile.associated(port) as sock:
            sock.sendall(message)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for sock in silent:
        sock.close()


def held(gateway: GatewayProcess) -> dict[int, tuple[int, int, int]]:
    """Give memory, descriptors and threads of each process."""
    family = psutil.Process(gateway.pid).children()
    return {one.pid: (one.memory_info().rss, one.num_fds(), one.num_threads()) for one in family}


def test_memory_descriptors_and_threads_stay_flat_under_hostile_peers(gateway: GatewayProcess) -> None:
    for _ in range(5):
        assault(gateway.port)
    time.sleep(2)
    before = held(gateway)
    for _ in range(ROUNDS):
        assault(gateway.port)
    assert hostile.echoes(gateway.port)
    await_true(lambda: all(held(gateway)[one][1] <= before[one][1] + 1 for one in before), what="closed descriptors")
    after = held(gateway)
    assert after.keys() == before.keys()
    for process, (memory, _, threads) in before.items():
        assert after[process][0] < memory + 12 * MiB
        assert after[process][2] <= threads + 1
    assert not left_behind(gateway)


def test_two_thousand_associations_that_store_leave_no_thread_and_no_descriptor_behind(
    gateway: GatewayProcess,
) -> None:
    batch = Batch(run=51, count=2_000, size=1_024)
    assert store(gateway.port, batch, range(20)) == [0x0000] * 20
    time.sleep(1)
    before = held(gateway)
    for number in range(20, batch.count):
        assert store(gateway.port, batch, [number]) == [0x0000]
    await_true(lambda: not left_behind(gateway), 60, "the delivery")
    time.sleep(1)
    after = held(gateway)
    assert after.keys() == before.keys()
    for process, (_, files, threads) in before.items():  # the archive may want another reader or two
        assert after[process][1] <= files + 6
        assert after[process][2] <= threads + 3
