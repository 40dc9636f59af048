"""What a gateway takes for its operations it gives back: threads, descriptors, memory, files."""

from pathlib import Path

import embedded_archive
import processes
import psutil
import retrieving
from destinations import destination
from gateway_process import GatewayProcess

STUDY, SERIES = "1.2.3", "1.2.3.1"
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
GROWTH = 20_000_000  # bytes


def test_after_200_moves_threads_descriptors_and_memory_are_where_they_were(tmp_path: Path) -> None:
    with embedded_archive.running(tmp_path / "archive") as caller:
        files = [
            embedded_archive.instance(STUDY, SERIES, f"{SERIES}.{number}", EncapsulatedDocument=bytes(100_000))
            for number in range(4)
        ]
        assert caller.store(*files).status_code == 200
        # one in four makes the destination drop, so that the ways out of an error are walked too
        with (
            destination(lambda number: "abort" if number % 16 == 0 else 0) as where,
            GatewayProcess(
                tmp_path / "gateway",
                peers={"BENCH": {}, "DEST": where.peer},
                archives={"main": {"url": caller.archive.url, "profile": "azure"}},
                ae_titles={"GATEWAY": {"archive": "main"}},
            ) as gateway,
        ):
            process = psutil.Process(gateway.pid)

            def moves(count: int) -> None:
                for _ in range(count):
                    assert retrieving.move(gateway.port, "DEST", **WHOLE).all()[-1].counters["completed"] == 4

            moves(40)
            processes.await_true(lambda: process.num_threads() <= 4, what="the threads' end")
            threads, descriptors, memory = process.num_threads(), process.num_fds(), process.memory_info().rss
            moves(200)
            processes.await_true(lambda: process.num_threads() <= threads, what="the threads' end")
            processes.await_true(lambda: process.num_fds() <= descriptors, what="the descriptors' end")
            assert process.memory_info().rss < memory + GROWTH
            assert not list((gateway.folder / "spool").rglob("incoming/*"))
