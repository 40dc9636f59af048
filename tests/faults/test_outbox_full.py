"""Fill a small disk: what was acknowledged stays, the rest is refused, and it goes on when there is room again."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_disk
from spooled import arrival, content, data_set, put

from gateway.errors import SpoolFull
from gateway.outbox import Limits, Outbox, State

MOST = 16 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk.small_disk(tmp_path, MOST) as mounted:
        yield mounted


def fill(outbox: Outbox, names: Iterator[int], length: int) -> set[str]:
    """Put instances until there is no room; return which were acknowledged."""
    acknowledged: set[str] = set()
    for name in map(str, names):
        try:
            put(outbox, arrival(name), content(name, length))
        except SpoolFull:
            break
        acknowledged.add(name)
    return acknowledged


@pytest.mark.parametrize("length", [100, 30_000, 1_000_000])
@pytest.mark.parametrize("high_water", [1, 0.8])
def test_a_full_disk_loses_nothing_and_recovers(disk: Path, length: int, high_water: float) -> None:
    names = itertools.count()
    with Outbox(disk, Limits(high_water=high_water)) as outbox:
        acknowledged = fill(outbox, names, length)
        assert acknowledged
        assert list((disk / "incoming").iterdir()) == []
        waiting = {entry.sop_instance: entry for entry in outbox.entries()}
        assert waiting.keys() == acknowledged
        for name, entry in waiting.items():
            assert data_set(entry.extent) == content(name, length)
        # Delivery makes room though there is none for a new row.
        entries = outbox.claim("main", count=20, max_bytes=10**9, lease=60)
        outbox.done([entry.id for entry in entries])
        name = str(next(names))
        put(outbox, arrival(name), content(name, length))
        acknowledged = acknowledged - {entry.sop_instance for entry in entries} | {name}
    with Outbox(disk, Limits(high_water=high_water)) as outbox:
        delivered = set()
        while entries := outbox.claim("main", count=100, max_bytes=10**9, lease=60):
            delivered |= {entry.sop_instance for entry in entries}
            assert all(data_set(e.extent) == content(e.sop_instance, length) for e in entries)
            outbox.done([entry.id for entry in entries])
    assert delivered == acknowledged


def test_delivery_goes_on_though_another_program_took_every_byte(disk: Path) -> None:
    with Outbox(disk) as outbox:
        for name in map(str, range(40)):
            put(outbox, arrival(name), content(name, 2_000))
        (disk / "reserve").unlink()
        small_disk.fill(disk)
        for attempt in range(300):
            for entry in outbox.claim("main", count=10, max_bytes=10**9, lease=60):
                outbox.retry(entry.id, 0, f"connection refused, attempt {attempt}")
        with Outbox(disk) as another:
            while entries := another.claim("main", count=10, max_bytes=10**9, lease=60):
                another.done([entry.id for entry in entries])
            assert [entry.state for entry in another.entries()] == [State.DONE] * 40
