"""Segments: what a power cut takes is entered again, room is given back, and nobody reads what is not there."""

import errno
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from processes import await_true
from spooled import arrival, content, data_set, has_data, left_over, lose, put, receive, records_in

from gateway.errors import GatewayError, SpoolBroken, SpoolFull
from gateway.extent import Extent
from gateway.outbox import (
    Arrival,
    Duplicates,
    Entry,
    Ledger,
    Limits,
    Outbox,
    Receipt,
    State,
    reclaim,
    recovery,
    replay,
    schema,
    segments,
)

LIMITS = Limits(high_water=1)
DATABASE = ("outbox.db", "outbox.db-wal", "outbox.db-shm")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path, LIMITS) as opened:
        yield opened


def claim(outbox: Outbox, count: int = 100) -> list[Entry]:
    return outbox.claim("main", count=count, max_bytes=10**9, lease=60)


def known(folder: Path) -> dict[str, bytes]:
    with Outbox(folder, LIMITS) as outbox:
        return {one.sop_instance: data_set(one.extent) for one in outbox.entries() if one.state is not State.DONE}


@contextmanager
def power_cut(folder: Path, *, first: Arrival | None = None) -> Iterator[Outbox]:
    """Take from the database, once it is closed, what was done within; the segments keep all of it.

    `first` is put into the same segment and known.
    """
    kept = folder / "kept"
    with Outbox(folder, LIMITS) as outbox:
        if first is not None:
            put(outbox, first, b"1")
        kept.mkdir()
        names = [name for name in DATABASE[:2] if (folder / name).exists()]
        # by another process: to close a file here would end the locks that SQLite has on it
        subprocess.run(["cp", *(folder / name for name in names), kept], check=True)
        yield outbox
    for name in DATABASE:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        shutil.move(kept / name, folder / name)
    kept.rmdir()


def test_rows_that_a_power_cut_took_are_made_again_of_the_segments(tmp_path: Path) -> None:
    with Outbox(tmp_path, LIMITS) as first:
        put(first, arrival("1"), b"1")
        first.hold("9.9")
        before = next(first.entries())
    with power_cut(tmp_path) as outbox:
        with receive(outbox, arrival("2"), b"2") as beside:
            put(outbox, arrival("3", study="9.9"), content(3, 300_000))
            outbox.commit(beside, arrival("2"))
        put(outbox, arrival("1"), b"other", "keep")
        put(outbox, arrival("1"), b"1")
        written = {entry.id: entry for entry in outbox.entries()}
    with Outbox(tmp_path, LIMITS) as outbox:
        found = {entry.id: entry for entry in outbox.entries()}
        assert {one.sop_instance for one in found.values()} == {"1", "2", "3"}
        assert found[before.id] == before
        for entry in found.values():
            assert data_set(entry.extent) == data_set(written[entry.id].extent)
            assert (entry.received, entry.digest, entry.state) == (
                written[entry.id].received,
                written[entry.id].digest,
                written[entry.id].state,
            )
    assert set(known(tmp_path)) == {"1", "2", "3"}


def test_the_order_in_which_they_came_decides_who_replaces_whom(tmp_path: Path) -> None:
    """Across segments: two associations, the second of which replaces what the first sent."""
    with power_cut(tmp_path) as outbox:
        with receive(outbox, arrival("9"), b"9") as holding:  # has the first segment meanwhile
            put(outbox, arrival("1"), b"first", "replace")
            outbox.commit(holding, arrival("9"))
        assert put(outbox, arrival("1"), b"second", "replace") is Receipt.REPLACED
        with receive(outbox, arrival("8"), b"8") as holding:
            assert put(outbox, arrival("1"), b"third", "replace") is Receipt.REPLACED
            outbox.commit(holding, arrival("8"))
    assert known(tmp_path) == {"1": b"third", "8": b"8", "9": b"9"}


def test_what_was_dropped_is_not_entered_after_a_power_cut(tmp_path: Path) -> None:
    with power_cut(tmp_path) as outbox:
        put(outbox, arrival("1"), b"first")
        assert put(outbox, arrival("1"), b"second", "reject") is Receipt.REJECTED
        with receive(outbox, arrival("2"), b"given up"):
            pass
        receive(outbox, arrival("3"), b"under way")
    assert known(tmp_path) == {"1": b"first"}


def test_one_that_is_not_whole_is_not_entered(tmp_path: Path) -> None:
    with power_cut(tmp_path) as outbox:
        for name in "123":
            put(outbox, arrival(name), content(name))
        _, second, _ = outbox.entries()
        with second.extent.path.open("r+b") as file:
            file.seek(second.extent.start + second.size - 1)
            file.write(b"?")
    assert known(tmp_path) == {name: content(name) for name in "13"}


def test_one_in_the_middle_of_which_its_writer_was_killed_is_given_back(tmp_path: Path) -> None:
    with Outbox(tmp_path, LIMITS) as outbox:
        for name in "12":
            put(outbox, arrival(name), content(name, 50_000))
        first, second = outbox.entries()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database, database:
        database.execute("DELETE FROM entries WHERE id = ?", (second.id,))
        database.execute("UPDATE segments SET known = ?", (first.extent.start - first.extent.lead + first.size,))
    os.truncate(second.extent.path, second.extent.start + 20_000)
    with Outbox(tmp_path, LIMITS) as outbox:
        assert records_in(tmp_path) == ["1"]
        outbox.done([entry.id for entry in claim(outbox)])
        assert not first.extent.path.exists()


def test_a_segment_that_whoever_emptied_it_did_not_remove_goes_when_another_opens_the_outbox(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.segments.LONG", 50_000)
    put(outbox, arrival("1"), content(1, 60_000))
    with monkeypatch.context() as killed:
        killed.setattr(outbox, "_remove", lambda _: None)
        outbox.done([entry.id for entry in claim(outbox)])
    assert left_over(tmp_path)
    Outbox(tmp_path, LIMITS).close()  # while its writer lives
    assert left_over(tmp_path) == []


def test_a_database_that_is_lost_is_made_again_of_what_waits(tmp_path: Path) -> None:
    with Outbox(tmp_path, LIMITS) as outbox:
        for number in range(500):
            put(outbox, arrival(f"1.{number}"), content(number))
        outbox.done([entry.id for entry in claim(outbox, 300)])
    for name in DATABASE:
        (tmp_path / name).unlink(missing_ok=True)
    assert known(tmp_path) == {f"1.{number}": content(number) for number in range(300, 500)}


def test_a_segment_with_what_no_row_knows_stays_though_all_others_in_it_are_discarded(tmp_path: Path) -> None:
    with power_cut(tmp_path, first=arrival("1")) as outbox:
        put(outbox, arrival("2"), b"2")
    with Ledger(tmp_path) as ledger:
        assert ledger.discard(study="1.2") == 1
    assert known(tmp_path) == {"2": b"2"}


def test_a_record_whose_head_was_half_written_is_left_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with power_cut(tmp_path) as outbox:
        put(outbox, arrival("1"), b"1")
        put(outbox, arrival("2"), b"2")
        _, last = outbox.entries()
        with last.extent.path.open("r+b") as file:
            file.seek(last.extent.start - last.extent.lead + 100)
            file.write(bytes(1000))
    assert known(tmp_path) == {"1": b"1"}
    assert last.extent.path.name in capfd.readouterr().out
    with Outbox(tmp_path, LIMITS) as outbox:  # nothing waits in it any more, but nobody can say what that was
        outbox.done([entry.id for entry in claim(outbox)])
        assert last.extent.path.exists()
    Outbox(tmp_path, LIMITS).close()
    assert not last.extent.path.exists()
    assert last.extent.path.with_suffix(".damaged").exists()


def test_room_is_given_back_as_instances_are_delivered_and_the_file_once_nobody_writes_to_it(tmp_path: Path) -> None:
    with Outbox(tmp_path, LIMITS) as outbox:
        for number in range(10):
            put(outbox, arrival(f"1.{number}"), content(number, 100_000))
        (segment,) = tmp_path.glob("*.seg")
        full = segment.stat().st_blocks
        outbox.done([entry.id for entry in claim(outbox, 5)])
        assert segment.stat().st_blocks <= 0.6 * full
        outbox.done([entry.id for entry in claim(outbox)])
        assert not has_data(segment)
        put(outbox, arrival("2"), b"2")
        assert segment.exists()
    with Outbox(tmp_path, LIMITS) as other:
        other.done([entry.id for entry in claim(other)])
        assert not segment.exists()
        assert other._ask("SELECT * FROM segments", {}) == []


def test_a_long_segment_is_let_go_and_removed_by_whoever_comes_last(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.segments.LONG", 50_000)
    for number in range(3):
        put(outbox, arrival(f"1.{number}"), content(number, 60_000))
    assert len(list(tmp_path.glob("*.seg"))) == 3
    with Outbox(tmp_path, LIMITS) as other:
        other.done([entry.id for entry in claim(other)])
    assert list(tmp_path.glob("*.seg")) == []
    with receive(outbox, arrival("2"), content(2, 60_000)) as last:
        outbox.commit(last, arrival("2"))
    assert len(records_in(tmp_path)) == 1


def test_no_more_files_stay_open_than_a_few(tmp_path: Path, outbox: Outbox) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    many = [receive(outbox, arrival(f"1.{number}"), content(number, 200_000)) for number in range(60)]
    for one in many:
        one.discard()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 20
    assert len(list(tmp_path.glob("*.seg"))) <= 16
    assert left_over(tmp_path) == []


def test_who_reads_an_instance_goes_on_while_it_is_delivered_and_nobody_reads_it_afterwards(outbox: Outbox) -> None:
    put(outbox, arrival("1"), content(1, 200_000))
    put(outbox, arrival("2"), content(2, 200_000))
    first, second = claim(outbox)
    with first.extent.open() as stream:
        head = stream.read(1000)
        outbox.done([first.id])
        outbox.done([second.id])
        assert (head + stream.read())[-200_000:] == content(1, 200_000)
        with pytest.raises(FileNotFoundError):
            second.extent.open()
        assert not second.extent.exists()
    with pytest.raises(FileNotFoundError):
        Extent(first.extent.path.with_name("none"), 1).open()


def test_an_entry_whose_bytes_were_overwritten_is_not_there(outbox: Outbox) -> None:
    put(outbox, arrival("1"), b"1")
    (entry,) = claim(outbox)
    assert entry.extent.exists()
    lose(entry)
    assert not entry.extent.exists()


def test_an_archive_s_name_that_is_too_long_for_a_head_is_refused_not_cut(tmp_path: Path, outbox: Outbox) -> None:
    with pytest.raises(SpoolBroken, match="too long"):
        put(outbox, arrival("1", archive="x" * 4000), b"1")
    assert left_over(tmp_path) == []


def test_an_outbox_of_version_1_keeps_its_files_until_they_are_delivered(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    new = [",\n    segment INTEGER NOT NULL DEFAULT 0", ",\n    position INTEGER NOT NULL DEFAULT 0"]
    assert all(column in schema._SCHEMA for column in new)
    old = schema._SCHEMA.replace("".join(new), "")
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as database:
        database.executescript(f"PRAGMA journal_mode = WAL;{old}PRAGMA user_version = 1;")
        database.execute("INSERT INTO owners VALUES (1, 0)")
        for number, state, due in ((1, "todo", 5), (2, "done", time.time())):
            database.execute(
                "INSERT INTO entries (id, archive, study, series, sop_class, sop_instance, transfer_syntax, peer, "
                "called, size, digest, received, state, due, place) "
                "VALUES (?, 'main', '1.2', '1.2.1', '1', ?, '1', 'CT01', 'GATEWAY', 200, ?, 5, ?, ?, 5)",
                ((1 << 32) + number, f"1.{number}", hashlib.sha256(content("old", 200)).digest(), state, due),
            )
    file = tmp_path / f"{(1 << 32) + 1:016x}.dcm"
    file.write_bytes(content("old", 200))
    stray = tmp_path / f"{(1 << 32) + 7:016x}.dcm"
    stray.write_bytes(b"never acknowledged")
    with Outbox(tmp_path, LIMITS) as outbox:
        assert not stray.exists()
        assert put(outbox, arrival("1.1"), content("old", 200)) is Receipt.DUPLICATE
        assert put(outbox, arrival("1.1"), content("other", 200)) is Receipt.KEPT
        assert put(outbox, arrival("1.2"), content("old", 200)) is Receipt.DUPLICATE
        put(outbox, arrival("2"), b"2")
        old_one, new_one = claim(outbox)
        with old_one.extent.open() as stream:
            assert stream.read() == content("old", 200)
        assert data_set(new_one.extent) == b"2"
        outbox.done([old_one.id, new_one.id])
        assert left_over(tmp_path) == []
    with Outbox(tmp_path, LIMITS) as outbox:
        assert [entry.state for entry in outbox.entries()] == [State.DONE] * 3


def put_at_once(outbox: Outbox, instances: list[tuple[str, bytes, Duplicates]]) -> list[Receipt | GatewayError]:
    """Put instances by threads that all wait for one another's turn."""

    def one(name: str, data: bytes, policy: Duplicates) -> Receipt | GatewayError:
        try:
            return put(outbox, arrival(name), data, policy)
        except GatewayError as error:
            return error

    journal = outbox._journal
    with ThreadPoolExecutor(len(instances)) as pool:
        with journal._turn:
            waiting = []
            for instance in instances:  # in this order
                waiting.append(pool.submit(one, *instance))
                await_true(lambda: len(journal._waiting) == len(waiting), what="the next in the line")
        return [future.result() for future in waiting]


def test_small_instances_that_wait_together_are_written_with_one_sync_and_each_gets_its_own_answer(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, arrival("1"), b"1")
    syncs: list[int] = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: syncs.append(descriptor) or sync(descriptor))
    told = put_at_once(
        outbox,
        [
            ("2", content(2, 5000), "keep"),
            ("1", b"1", "keep"),
            ("3", content(3, 100_000), "keep"),
            ("1", b"other", "reject"),
            ("4", b"4", "keep"),
            ("1", b"another", "replace"),
        ],
    )
    receipts = [Receipt.QUEUED, Receipt.DUPLICATE, Receipt.QUEUED, Receipt.REJECTED, Receipt.QUEUED, Receipt.REPLACED]
    assert told == receipts
    assert len(syncs) == 1
    there = {"1": b"another", "2": content(2, 5000), "3": content(3, 100_000), "4": b"4"}
    assert {entry.sop_instance: data_set(entry.extent) for entry in outbox.entries()} == there
    assert sorted(records_in(tmp_path)) == sorted(there)
    assert len(list(tmp_path.glob("*.seg"))) == 1


def test_one_that_fails_among_small_instances_leaves_nothing_and_the_others_are_taken(
    tmp_path: Path, outbox: Outbox
) -> None:
    statement = "CREATE TRIGGER broken BEFORE INSERT ON entries WHEN new.sop_instance = '{}' "
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database, database:
        database.execute(statement.format(2) + "BEGIN SELECT raise(ABORT, 'broken'); END")
    told = put_at_once(outbox, [(name, content(name), "keep") for name in "123"])
    assert [type(one) for one in told] == [Receipt, SpoolBroken, Receipt]
    assert {entry.sop_instance: data_set(entry.extent) for entry in outbox.entries()} == {
        "1": content("1"),
        "3": content("3"),
    }
    assert sorted(records_in(tmp_path)) == ["1", "3"]


def test_a_disk_that_is_full_for_all_who_wait_together_leaves_nothing_of_them(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(outbox, arrival("0"), b"0")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", full)
        told = put_at_once(outbox, [(name, content(name), "keep") for name in "123"])
    assert [type(one) for one in told] == [SpoolFull] * 3
    assert records_in(tmp_path) == ["0"]
    assert put_at_once(outbox, [(name, content(name), "keep") for name in "123"]) == [Receipt.QUEUED] * 3
    assert known(tmp_path) == {"0": b"0"} | {name: content(name) for name in "123"}


def test_an_instance_that_is_entered_while_another_process_sweeps_is_not_swept_with_its_segment(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.segments.LONG", 1)  # let go of after each instance
    incoming = receive(outbox, arrival("1"), content(1, 200_000))
    assert incoming.place
    looked_at: list[Path] = []

    def late(path: Path) -> AbstractContextManager[int | None]:
        if not looked_at:
            looked_at.append(path)
            assert outbox.commit(incoming, arrival("1")) is Receipt.QUEUED
        return segments.alone(path)

    monkeypatch.setattr(recovery, "alone", late)
    Outbox(tmp_path, LIMITS).close()
    assert looked_at
    assert [data_set(entry.extent) for entry in claim(outbox)] == [content(1, 200_000)]


def test_what_was_not_taken_stays_so_where_a_file_system_has_no_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "punch_hole", lambda *_: None)
    with Outbox(tmp_path, LIMITS) as outbox:
        put(outbox, arrival("1"), b"1")
        put(outbox, arrival("2"), b"2")
        assert put(outbox, arrival("1"), b"1") is Receipt.DUPLICATE
        assert outbox.withdraw([entry.id for entry in outbox.entries() if entry.sop_instance == "1"]) == 1
    assert known(tmp_path) == {"2": b"2"}


def test_room_that_cannot_be_given_back_is_told_and_holds_nothing_up(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reclaim, "punch_hole", failing)
    monkeypatch.setattr("gateway.outbox.segments.LONG", 1)
    for name in "12":
        put(outbox, arrival(name), content(name))
    outbox.done([entry.id for entry in claim(outbox)])
    assert "room is not given back yet" in capfd.readouterr().out
    assert list(tmp_path.glob("*.seg")) == []


def test_a_segment_that_cannot_be_made_leaves_no_descriptor_and_no_file(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(list(Path("/proc/self/fd").iterdir()))
    for call in ("rename", "fsync"):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, full)
            with pytest.raises(SpoolFull):
                put(outbox, arrival("1"), b"1")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.glob("*.seg")) == []
    assert list((tmp_path / "incoming").iterdir()) == []
    assert put(outbox, arrival("1"), b"1") is Receipt.QUEUED


def test_what_the_disk_cannot_read_after_a_power_cut_is_kept_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with power_cut(tmp_path) as outbox:
        for name in "123":
            put(outbox, arrival(name), content(name))
        second = next(entry for entry in outbox.entries() if entry.sop_instance == "2")
    read = replay.digest_of

    def broken(stream: BinaryIO) -> bytes:
        if content("2") in (data := stream.read()):
            raise OSError(errno.EIO, "Input/output error")
        return read(io.BytesIO(data))

    with monkeypatch.context() as failing:
        failing.setattr(replay, "digest_of", broken)
        assert known(tmp_path) == {name: content(name) for name in "13"}
    assert second.extent.path.with_suffix(".damaged").exists()


def test_a_row_that_a_power_cut_brings_back_without_its_bytes_does_not_answer_for_the_same_again(
    tmp_path: Path,
) -> None:
    with power_cut(tmp_path, first=arrival("1")) as outbox:
        assert put(outbox, arrival("1"), b"other", "replace") is Receipt.REPLACED
        assert put(outbox, arrival("1"), b"1", "replace") is Receipt.REPLACED
    assert known(tmp_path) == {"1": b"1"}


def test_what_the_system_takes_in_parts_is_written_whole(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def a_part(descriptor: int, buffers: Sequence[bytes], at: int) -> int:
        written.append(os.pwrite(descriptor, b"".join(buffers)[:7_001], at))
        return written[-1]

    monkeypatch.setattr(os, "pwritev", a_part)
    there = {"1": content(1, 20_000), "2": content(2, 300_000)}
    for name, data in there.items():
        put(outbox, arrival(name), data)
    assert len(written) >= 2
    assert {entry.sop_instance: data_set(entry.extent) for entry in outbox.entries()} == there


@pytest.mark.parametrize("number", [1022, 1023, 1024, 3000])
def test_more_pieces_than_the_system_takes_at_once_are_written_whole(outbox: Outbox, number: int) -> None:
    pieces = [content("long", 140_000)] + [bytes([place % 256]) for place in range(number - 1)]
    with outbox.incoming("CT01", bytes(200)) as incoming:
        incoming.write(*pieces)
        incoming.write(*pieces)
        outbox.commit(incoming, arrival("1"))
        with incoming.extent.open() as stream:
            assert stream.read() == bytes(200) + b"".join(pieces) * 2


def test_what_cannot_be_opened_just_now_may_still_be_there(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert Extent(tmp_path / "loop", 1).exists()
    assert not Extent(tmp_path / "none", 1).exists()
