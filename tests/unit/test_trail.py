"""What lies behind a writer leaves memory, and is on the disk whole."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from spooled import arrival, content, data_set, put

from gateway.errors import SpoolBroken
from gateway.outbox import Limits, Outbox, Receipt
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
    long = content("long", 100 << 20)
    with Outbox(folder, LIMITS) as outbox:
        assert put(outbox, arrival("1"), long) is Receipt.QUEUED  # and a segment of its own
        assert put(outbox, arrival("1"), long) is Receipt.DUPLICATE
        for number in range(60):
            put(outbox, arrival(f"2.{number}"), PIECE)
        assert len(list(folder.glob("*.seg"))) == 2
        assert in_memory(folder) <= 3 * STEP


@pytest.fixture
def unwritable() -> Iterator[int]:
    """Give a descriptor that cannot be written back: a pipe's."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


def test_an_error_while_writing_back_is_told_for_the_sync_would_not_tell_it_again(
    tmp_path: Path, unwritable: int
) -> None:
    with pytest.raises(OSError, match="seek"):
        Trail(unwritable).wrote(STEP)
    with Outbox(tmp_path, LIMITS) as outbox, outbox.incoming("CT01", bytes(200)) as incoming:
        incoming.write(PIECE)
        segment = incoming._segment  # a disk that fails is not to be had here
        assert segment is not None
        segment.trail = Trail(unwritable)
        with pytest.raises(SpoolBroken):
            incoming.write(*[PIECE] * (STEP // len(PIECE)))
    with Outbox(tmp_path, LIMITS) as outbox:
        assert not list(outbox.entries())
