"""What lies behind a writer leaves memory, and is on the disk whole."""

import os
import subprocess
from pathlib import Path

import pytest
from spooled import arrival, content, data_set, put

from gateway.errors import SpoolBroken
from gateway.extent import Extent
from gateway.outbox import Limits, Outbox
from gateway.outbox.trail import STEP, Trail

LIMITS = Limits(high_water=1)
PIECE = content("piece", 1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], check=True, capture_output=True, text=True).stdout
    if kind.strip() == "tmpfs":
        pytest.skip("what a tmpfs holds is in memory")
    return tmp_path


def in_memory(folder: Path) -> int:
    """Count the bytes of segments that the page cache holds."""
    paths = list(folder.glob("*.seg"))
    told = subprocess.run(["fincore", "-b", "-n", "-o", "RES", *paths], check=True, capture_output=True, text=True)
    return sum(map(int, told.stdout.split()))


def send(outbox: Outbox, instance: str, pieces: int) -> Extent:
    with outbox.incoming("CT01", bytes(200), expected=pieces << 20) as incoming:
        for _ in range(pieces):
            incoming.write(PIECE)
        outbox.commit(incoming, arrival(instance))
        return incoming.extent


def test_a_long_instance_leaves_memory_while_it_comes(folder: Path) -> None:
    with Outbox(folder, LIMITS) as outbox, outbox.incoming("CT01", bytes(200)) as incoming:
        most = 0
        for number in range(160):
            incoming.write(PIECE)
            if number % 8 == 0:
                most = max(most, in_memory(folder))
        outbox.commit(incoming, arrival())
        assert STEP <= most <= 4 * STEP  # it is seen at all, and does not grow
        with incoming.extent.open() as stream:
            stream.seek(200)
            assert all(stream.read(len(PIECE)) == PIECE for _ in range(160))


def test_many_instances_leave_memory_after_their_sync(folder: Path) -> None:
    with Outbox(folder, LIMITS) as outbox:
        for number in range(120):
            put(outbox, arrival(f"1.{number}"), content(number, 1 << 20))
        assert in_memory(folder) <= 3 * STEP
        for number, entry in enumerate(outbox.entries()):
            assert data_set(entry.extent) == content(number, 1 << 20)


def test_what_comes_after_something_long_was_cut_off_leaves_memory_as_well(folder: Path) -> None:
    with Outbox(folder, LIMITS) as outbox:
        with outbox.incoming("CT01", bytes(200)) as cut:
            for _ in range(100):
                cut.write(PIECE)
        for number in range(60):
            send(outbox, f"1.{number}", 1)
        assert len(list(folder.glob("*.seg"))) == 1
        assert in_memory(folder) <= 3 * STEP


def test_an_error_while_writing_back_is_told_for_the_sync_would_not_tell_it_again(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # which cannot be written back
    try:
        with pytest.raises(OSError, match="seek"):
            Trail(writing).wrote(STEP)
    finally:
        os.close(reading)
        os.close(writing)
    with Outbox(tmp_path, LIMITS) as outbox, outbox.incoming("CT01", bytes(200)) as incoming:
        incoming.write(PIECE)
        segment = incoming._segment  # a disk that fails is not to be had here
        assert segment is not None
        reading, writing = os.pipe()
        segment.trail = Trail(writing)
        with pytest.raises(SpoolBroken):
            incoming.write(*[PIECE] * (STEP // len(PIECE)))
        os.close(reading)
        os.close(writing)
    with Outbox(tmp_path, LIMITS) as outbox:
        assert not list(outbox.entries())
