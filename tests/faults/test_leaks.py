"""What a gateway takes for its operations it gives back: threads, descriptors, memory, files."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import embedded_archive
import processes
import psutil
import pytest
import retrieving
from bench import wire
from destinations import Destination, destination
from gateway_process import GatewayProcess

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY, SERIES = "1.2.3", "1.2.3.1"
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
SPARE = 5  # threads and descriptors more of a gateway's hundred: connections to the archive that rest
GROWTH = 30_000_000  # bytes
VERIFICATION = ("1.2.840.10008.1.1", wire.IMPLICIT_LE)
HEAP = 64 << 20  # bytes; glibc reserves that much for an arena, at a multiple of it, and opens the beginning
MAPPING = re.compile(r"(?m)^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ 0 *$")


@dataclass
class Held:
    """What the processes of a gateway have together: its supervisor, its receiver and the delivery."""

    gateway: GatewayProcess

    def threads(self) -> int:
        return sum(process.num_threads() for process in self._all())

    def descriptors(self) -> int:
        return sum(process.num_fds() for process in self._all())

    def memory(self) -> int:
        return sum(process.memory_info().rss for process in self._all())

    def _all(self) -> list[psutil.Process]:
        supervisor = psutil.Process(self.gateway.pid)
        return [supervisor, *supervisor.children(recursive=True)]


@contextmanager
def stays(held: Held) -> Iterator[None]:
    """Wait until no more is held than before."""
    threads, descriptors, memory = held.threads(), held.descriptors(), held.memory()
    yield
    processes.await_true(lambda: held.threads() <= threads + SPARE, 60, "the threads' end")
    processes.await_true(lambda: held.descriptors() <= descriptors + SPARE, 60, "the descriptors' end")
    assert held.memory() < memory + GROWTH
    assert not list((held.gateway.folder / "spool").rglob("incoming/*"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Destination], Held]]:
    with ExitStack() as stack:
        archive = stack.enter_context(embedded_archive.running(tmp_path / "archive"))
        files = [
            embedded_archive.instance(STUDY, SERIES, f"{SERIES}.{number}", EncapsulatedDocument=bytes(100_000))
            for number in range(4)
        ]
        assert archive.store(*files).status_code == 200

        def start(where: Destination) -> Held:
            gateway = GatewayProcess(
                tmp_path / "gateway",
                listen={"workers": 1},
                peers={"BENCH": {}, "DEST": where.peer},
                archives={"main": {"url": archive.archive.url, "profile": "azure"}},
                ae_titles={"GATEWAY": {"archive": "main"}, "FAST": {"archive": "main", "acknowledge": "spooled"}},
            )
            held = Held(stack.enter_context(gateway))
            processes.await_true(lambda: retrieving_works(gateway.port), 60, "a receiver")
            return held

        yield start


def retrieving_works(port: int) -> bool:
    wire.release(wire.associate("127.0.0.1", port, "GATEWAY", "BENCH", [(SC, wire.EXPLICIT_LE)]))
    return True


def test_after_200_moves_threads_descriptors_and_memory_are_where_they_were(
    start: Callable[[Destination], Held],
) -> None:
    # one in four makes the destination drop, so that the ways out of an error are walked too
    with destination(lambda number: "abort" if number % 16 == 0 else 0) as where:
        held = start(where)

        def moves(count: int) -> None:
            for _ in range(count):
                assert retrieving.move(held.gateway.port, "DEST", **WHOLE).all()[-1].counters["completed"] == 4

        moves(40)
        with stays(held):
            moves(200)


def test_after_2000_associations_that_store_threads_descriptors_and_memory_are_where_they_were(
    start: Callable[[Destination], Held],
) -> None:
    with destination() as where:
        held = start(where)

        def stored(number: int) -> int:
            uid = f"1.2.4.1.{number}"
            file = embedded_archive.instance("1.2.4", "1.2.4.1", uid)
            data = file[144 + int.from_bytes(file[140:144], "little") :]
            contexts = [(SC, wire.EXPLICIT_LE)]
            connection = wire.associate("127.0.0.1", held.gateway.port, "FAST", "BENCH", contexts)
            status = wire.store(connection, 1, SC, uid, data)
            wire.release(connection)
            return status

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(stored, range(100))) == {0x0000}
            with stays(held):
                assert set(pool.map(stored, range(100, 2_100))) == {0x0000}


def arenas(process: psutil.Process) -> int:
    """Count the arenas that threads made for what they allocate, beside the first one of the process."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    mappings = [(int(begin, 16), int(end, 16), mode) for begin, end, mode in MAPPING.findall(maps)]
    return sum(
        begin % HEAP == 0 and mode == "rw-p" and following == (end, begin + HEAP, "---p")
        for (begin, end, mode), following in pairwise(mappings)
    )


def test_threads_share_their_arenas_so_that_not_each_keeps_what_it_freed(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, unknown_peers="accept") as gateway, ExitStack() as stack:
        for _ in range(12):  # a thread each
            stack.enter_context(closing(wire.associate("127.0.0.1", gateway.port, "GATEWAY", "MANY", [VERIFICATION])))
        family = psutil.Process(gateway.pid).children()
        assert max(one.num_threads() for one in family) > 12
        assert all(arenas(one) <= 1 for one in family)
        assert any(arenas(one) == 1 for one in family)  # so that they are found where there are some
