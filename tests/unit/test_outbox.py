import multiprocessing
import os
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from spooled import arrival, content, data_set, digest, left_over, lose, put, receive, records_in

from gateway.errors import ConfigError, DataSetError, SpoolBroken, SpoolFull
from gateway.outbox import FILE_LOST, Duplicates, Entry, Limits, Outbox, Receipt, State, reclaim
from gateway.outbox.journal import Journal, _Ticket


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path, Limits(high_water=1), clock=clock) as opened:
        yield opened


def claim(outbox: Outbox, count: int = 100, archive: str = "main", lease: float = 60) -> list[Entry]:
    return outbox.claim(archive, count=count, max_bytes=10**9, lease=lease)


def state(outbox: Outbox) -> list[State]:
    return [entry.state for entry in outbox.entries()]


def test_what_was_put_is_claimed_with_its_bytes(outbox: Outbox) -> None:
    data = content("a", 300_001)
    assert put(outbox, arrival(), data) is Receipt.QUEUED
    (entry,) = claim(outbox)
    assert data_set(entry.extent) == data
    assert entry.digest == digest(data)
    assert (entry.peer, entry.called, entry.archive, entry.attempts) == ("CT01", "GATEWAY", "main", 1)


@pytest.mark.parametrize("length", [1, 500_000])
def test_a_record_is_on_the_disk_before_its_row_and_what_is_done_before_its_room_goes(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def noted(call: Callable[..., object], said: str) -> Callable[..., object]:
        def noting(*arguments: object) -> object:
            steps.append(said)
            return call(*arguments)

        return noting

    def notable() -> list[str]:
        found = [step for step in steps if not step.startswith(("PRAGMA sync", "SELECT", "--", "UPDATE", "DELETE"))]
        steps.clear()
        return [step for before, step in zip(["", *found], found, strict=False) if step != before]

    with Outbox(tmp_path, Limits(high_water=1)) as watched:
        connection = watched._journal._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

        def run(statement: str) -> None:
            synced = (
                connection.execute("PRAGMA synchronous").fetchone()[0] if statement == "BEGIN IMMEDIATE" else None
            )
            steps.append({None: statement.split("(", maxsplit=1)[0], 1: "begin", 2: "begin synced"}[synced])

        connection.set_trace_callback(run)
        for name in ("fsync", "pwritev", "pwrite", "fdatasync"):
            monkeypatch.setattr(os, name, noted(getattr(os, name), name))
        monkeypatch.setattr(reclaim, "punch_hole", noted(reclaim.punch_hole, "punch"))
        put(watched, arrival(), content("x", length))
        # its segment's name, what it is, and then the row, which the record makes up for
        wrote = ["fsync", "pwritev"] if length == 1 else ["fsync", "pwritev", "pwrite"]
        assert notable() == [*wrote, "fdatasync", "begin", "\nINSERT INTO entries ", "COMMIT"]
        claimed = claim(watched)
        assert notable() == ["begin synced", "COMMIT"]
        watched.done([entry.id for entry in claimed])
        assert notable() == ["begin synced", "COMMIT", "punch"]


def test_more_buffers_than_the_kernel_takes_at_once_are_written_in_order(outbox: Outbox) -> None:
    data = content("many", 200_000)
    with receive(outbox, arrival(), b"xy") as incoming:
        incoming.write(*(memoryview(data)[at : at + 1] for at in range(len(data))))
        outbox.commit(incoming, arrival())
    (entry,) = claim(outbox)
    assert data_set(entry.extent) == b"xy" + data
    assert entry.digest == digest(b"xy" + data)


def digesting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "digest"]


def test_a_long_file_is_digested_behind_the_writer_and_waited_for(outbox: Outbox) -> None:
    pieces = [content(number, 1 << 20) for number in range(40)]
    with receive(outbox, arrival(), b"xy") as incoming:
        for piece in pieces:
            incoming.write(piece[:1000], piece[1000:])
        assert len(digesting()) == 1
        outbox.commit(incoming, arrival())
    (entry,) = claim(outbox)
    assert entry.digest == digest(b"xy" + b"".join(pieces))
    assert digesting() == []


def test_a_long_file_that_is_given_up_leaves_no_thread_behind(outbox: Outbox, tmp_path: Path) -> None:
    with receive(outbox, arrival(), b"xy") as incoming:
        for _ in range(20):
            incoming.write(bytes(1 << 20))
        threads = digesting()
        assert len(threads) == 1
    threads[0].join(5)
    assert not threads[0].is_alive()
    assert left_over(tmp_path) == []


def test_an_empty_data_set_is_never_acknowledged(outbox: Outbox, tmp_path: Path) -> None:
    with receive(outbox, arrival(), b"") as incoming, pytest.raises(DataSetError):
        outbox.commit(incoming, arrival())
    assert list(outbox.entries()) == []
    assert left_over(tmp_path) == []


def test_what_is_not_committed_leaves_nothing(outbox: Outbox, tmp_path: Path) -> None:
    with receive(outbox, arrival(), b"half"):
        pass
    incoming = receive(outbox, arrival(), b"half")
    incoming.discard()
    incoming.discard()
    assert left_over(tmp_path) == []


def test_a_delivered_instance_leaves_the_disk_but_answers_for_a_repeat_for_a_while(
    outbox: Outbox, tmp_path: Path, clock: Clock
) -> None:
    put(outbox, arrival(), b"image")
    outbox.done([entry.id for entry in claim(outbox)])
    assert left_over(tmp_path) == []
    clock.now += 3599
    assert put(outbox, arrival(), b"image") is Receipt.DUPLICATE
    clock.now += 1
    assert put(outbox, arrival(), b"image") is Receipt.QUEUED


@pytest.mark.parametrize(
    ("policy", "receipt", "kept"),
    [
        ("keep", Receipt.KEPT, b"first"),
        ("reject", Receipt.REJECTED, b"first"),
        ("replace", Receipt.REPLACED, b"other"),
    ],
)
def test_another_object_under_the_same_uids_is_handled_by_policy(
    outbox: Outbox, tmp_path: Path, policy: Duplicates, receipt: Receipt, kept: bytes
) -> None:
    put(outbox, arrival(), b"first")
    assert put(outbox, arrival(), b"other", policy) is receipt
    (entry,) = claim(outbox)
    assert data_set(entry.extent) == kept
    assert not entry.replaces
    assert len(records_in(tmp_path)) == 1


def test_the_same_uid_in_another_series_study_or_archive_is_another_instance(outbox: Outbox) -> None:
    assert put(outbox, arrival("1.1", study="1.2"), b"x") is Receipt.QUEUED
    assert put(outbox, arrival("1.1", study="1.3"), b"x") is Receipt.QUEUED
    assert put(outbox, arrival("1.1", study="1.3", archive="other"), b"x") is Receipt.QUEUED
    assert len(outbox.find(sop_instance="1.1")) == 3
    assert len(outbox.find(study="1.3")) == 2
    assert len(outbox.find(study="1.3", series="1.3.1", sop_instance="1.1")) == 2
    assert outbox.find(study="1.3", series="1.2.1") == []


def test_a_replacement_waits_until_the_lease_of_the_other_is_over_and_says_that_it_replaces(
    outbox: Outbox, clock: Clock
) -> None:
    put(outbox, arrival(), b"first")
    (first,) = claim(outbox, lease=60)
    assert put(outbox, arrival(), b"other", "replace") is Receipt.REPLACED
    clock.now += 59
    assert claim(outbox) == []
    assert outbox.renew([first.id], 60) == set()
    outbox.done([first.id])
    clock.now += 1
    (other,) = claim(outbox)
    assert data_set(other.extent) == b"other"
    assert other.replaces


def test_the_study_that_began_first_goes_first_with_all_it_gets_later(outbox: Outbox, clock: Clock) -> None:
    for second, (instance, study) in enumerate([("1", "1.2"), ("2", "1.3"), ("3", "1.2"), ("4", "1.3")]):
        clock.now += second
        put(outbox, arrival(instance, study=study), content(instance))
    assert [entry.sop_instance for entry in claim(outbox)] == ["1", "3", "2", "4"]


def test_a_study_that_never_ends_does_not_starve_others(outbox: Outbox, clock: Clock) -> None:
    put(outbox, arrival("1", study="1.2"), b"1")
    clock.now += 500
    put(outbox, arrival("2", study="1.3"), b"2")
    for number in range(3, 20):
        clock.now += 100
        put(outbox, arrival(str(number), study="1.2"), content(number))
    order = [entry.sop_instance for entry in claim(outbox)]
    # Those that came within ten minutes after the second go before it, the rest behind it.
    assert order == ["1", "3", "4", "5", "6", "7", "2", *map(str, range(8, 20))]


def test_one_that_is_tried_again_queues_anew(outbox: Outbox, clock: Clock) -> None:
    put(outbox, arrival("1", study="1.2"), b"1")
    (entry,) = claim(outbox)
    assert outbox.retry(entry.id, clock.now + 30, "HTTP 503")
    clock.now += 10
    put(outbox, arrival("2", study="1.3"), b"2")
    assert [e.sop_instance for e in claim(outbox)] == ["2"]
    clock.now += 20
    (again,) = claim(outbox)
    assert (again.attempts, again.reason) == (2, "HTTP 503")


def test_a_claim_takes_as_many_bytes_as_it_may_but_one_of_any_size(outbox: Outbox) -> None:
    for number in range(4):
        put(outbox, arrival(str(number)), content(number, 10_000))
    size = next(outbox.entries()).size
    assert len(outbox.claim("main", count=9, max_bytes=2 * size, lease=60)) == 2
    assert len(outbox.claim("main", count=9, max_bytes=1, lease=60)) == 1


def test_a_lease_that_ran_out_is_somebody_elses(tmp_path: Path, clock: Clock, outbox: Outbox) -> None:
    put(outbox, arrival(), b"x")
    (mine,) = claim(outbox, lease=60)
    with Outbox(tmp_path, clock=clock) as other:
        assert claim(other) == []
        assert outbox.renew([mine.id], 60) == {mine.id}
        clock.now += 60
        (theirs,) = claim(other)
        assert theirs.attempts == 2
        assert not outbox.retry(mine.id, clock.now, "late")
        assert not outbox.set_aside(mine.id, "late")
        outbox.done([mine.id])
    assert state(outbox) == [State.DONE]


def test_what_a_dead_process_had_leased_is_free_at_once(tmp_path: Path, clock: Clock, outbox: Outbox) -> None:
    put(outbox, arrival(), b"x")
    dead = Outbox(tmp_path, clock=clock)
    assert len(claim(dead)) == 1
    dead.close()
    assert claim(outbox) == []
    Outbox(tmp_path, clock=clock).close()
    assert len(claim(outbox)) == 1


def test_leases_given_back_count_no_attempt_and_keep_their_place(outbox: Outbox, clock: Clock) -> None:
    put(outbox, arrival("1", study="1.2"), b"1")
    clock.now += 1
    put(outbox, arrival("2", study="1.3"), b"2")
    outbox.give_back([entry.id for entry in claim(outbox, 1)])
    first, second = claim(outbox)
    assert (first.sop_instance, first.attempts, second.sop_instance) == ("1", 1, "2")


def test_a_held_study_is_held_with_what_comes_and_what_comes_back(outbox: Outbox, clock: Clock) -> None:
    put(outbox, arrival("1"), b"1")
    put(outbox, arrival("2"), b"2")
    (leased,) = claim(outbox, 1)
    assert outbox.hold("1.2") == 1
    put(outbox, arrival("3"), b"3")
    outbox.retry(leased.id, clock.now, "HTTP 503")
    assert state(outbox) == [State.HELD] * 3
    assert claim(outbox) == []
    assert outbox.release("1.2") == 3
    assert len(claim(outbox)) == 3


def test_a_hold_for_one_archive_leaves_the_other_alone(outbox: Outbox) -> None:
    put(outbox, arrival(archive="main"), b"1")
    put(outbox, arrival(archive="other"), b"1")
    assert outbox.hold("1.2", "main") == 1
    assert claim(outbox, archive="main") == []
    assert len(claim(outbox, archive="other")) == 1


def test_what_is_set_aside_waits_for_the_operator(outbox: Outbox) -> None:
    put(outbox, arrival(), b"1")
    (entry,) = claim(outbox)
    outbox.set_aside(entry.id, "HTTP 413")
    assert claim(outbox) == []
    assert put(outbox, arrival(), b"1") is Receipt.DUPLICATE
    (study,) = outbox.studies()
    assert (study.set_aside, study.reason, study.bytes) == (1, "HTTP 413", entry.size)
    assert outbox.retry_now(ids=[entry.id]) == 1
    assert len(claim(outbox)) == 1


def test_discard_takes_what_was_chosen_and_its_files_only(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, arrival("1", study="1.2"), b"1")
    put(outbox, arrival("2", study="1.3"), b"2")
    with pytest.raises(ValueError, match="study or ids"):
        outbox.discard()
    assert outbox.discard(study="1.2") == 1
    (left,) = outbox.entries()
    assert left.extent.exists()
    assert records_in(tmp_path) == ["2"]
    assert outbox.discard(ids=[left.id]) == 1
    assert left_over(tmp_path) == []


def test_thousands_are_changed_and_listed_whole(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbox.queue.MOST_PER_TRANSACTION", 7)
    monkeypatch.setattr("gateway.outbox.reading._PAGE", 7)
    for number in range(30):
        put(outbox, arrival(f"1.{number}", study=f"1.2.{number % 15}"), content(number))
    assert len(list(outbox.entries())) == 30
    assert len(list(outbox.entries(state=State.HELD))) == 0
    assert [(study.study, study.todo) for study in outbox.studies()] == sorted((f"1.2.{n}", 2) for n in range(15))
    for entry in claim(outbox):
        outbox.set_aside(entry.id, "why")
    assert outbox.retry_now() == 30


def test_statistics_count_by_archive_peer_and_state(outbox: Outbox, clock: Clock) -> None:
    begin = clock.now
    put(outbox, arrival("1", peer="CT01"), b"1")
    clock.now += 5
    put(outbox, arrival("2", peer="MR02"), b"2")
    outbox.done([entry.id for entry in claim(outbox, 1)])
    statistics = outbox.statistics()
    assert statistics.entries == 1
    assert statistics.oldest == {"main": begin + 5}
    assert {(t.peer, t.state): t.entries for t in statistics.totals} == {
        ("CT01", State.DONE): 1,
        ("MR02", State.TODO): 1,
    }


def test_above_a_quota_nothing_is_taken_and_nothing_deleted(tmp_path: Path) -> None:
    with Outbox(tmp_path, Limits(high_water=1, quota=30_000, peer_quota=20_000)) as outbox:
        put(outbox, arrival("1", peer="CT01"), content(1, 15_000))
        with pytest.raises(SpoolFull, match="of this peer"):
            receive(outbox, arrival("2", peer="CT01"), b"", expected=10_000)
        put(outbox, arrival("3", peer="MR02"), content(3, 10_000))
        with pytest.raises(SpoolFull, match="as many bytes as it may"):
            outbox.check_room("US03", 10_000)
        # What is being received counts as well.
        with receive(outbox, arrival("4", peer="US03"), b"", expected=3_000), pytest.raises(SpoolFull):
            outbox.check_room("US03", 3_000)
        outbox.check_room("US03", 3_000)
        outbox.done([entry.id for entry in claim(outbox)])
        outbox.check_room("CT01", 10_000)


def test_above_the_high_water_mark_nothing_is_taken(tmp_path: Path) -> None:
    used = os.statvfs(tmp_path)
    share = 1 - used.f_bavail / used.f_blocks
    with Outbox(tmp_path, Limits(high_water=share / 2)) as outbox, pytest.raises(SpoolFull, match="high-water"):
        outbox.incoming("CT01", b"header")
    with Outbox(tmp_path, Limits(high_water=1)) as outbox:
        with pytest.raises(SpoolFull, match="high-water"):
            outbox.check_room("CT01", used.f_bavail * used.f_frsize + (64 << 20))
        outbox.check_room("CT01", 1000)
        # What those that are being received may still become counts as well.
        with (
            outbox.incoming("MR02", b"header", expected=used.f_bavail * used.f_frsize // 2),
            pytest.raises(SpoolFull, match="high-water"),
        ):
            outbox.check_room("CT01", used.f_bavail * used.f_frsize // 2 + (64 << 20))


def test_one_of_unknown_length_is_cut_off_when_it_passes_a_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.incoming._LOOK_EVERY", 1_000_000)
    with (
        Outbox(tmp_path, Limits(high_water=1, peer_quota=5_000_000)) as outbox,
        outbox.incoming("CT01", b"header") as incoming,
    ):
        for _ in range(4):
            incoming.write(bytes(1_000_000))
        with pytest.raises(SpoolFull, match="of this peer"):
            incoming.write(bytes(1_000_000))
        assert left_over(tmp_path) == []
        outbox.check_room("CT01", 5_000_000)


def test_a_disk_that_fills_up_while_receiving_is_told_and_leaves_nothing(outbox: Outbox, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with outbox.incoming("CT01", b"header") as incoming:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(SpoolFull):
                incoming.write(bytes(90_000), bytes(90_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_over(tmp_path) == []


def test_a_database_that_cannot_be_written_leaves_nothing_behind(
    outbox: Outbox, tmp_path: Path, clock: Clock
) -> None:
    with sqlite3.connect(tmp_path / "outbox.db") as database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'broken'); END")
    database.close()
    with receive(outbox, arrival(), b"x") as incoming, pytest.raises(SpoolBroken):
        outbox.commit(incoming, arrival())
    assert left_over(tmp_path) == []


def test_files_of_version_1_without_a_database_are_not_swept_but_reported(tmp_path: Path) -> None:
    file = tmp_path / f"{1 << 32:016x}.dcm"
    file.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no outbox\.db"):
        Outbox(tmp_path)
    assert file.exists()


def test_bytes_that_are_gone_are_found_so_and_do_not_answer_for_a_repeat(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        put(outbox, arrival("1"), b"1")
        (one,) = outbox.entries()
    with Outbox(tmp_path) as outbox:
        put(outbox, arrival("2"), b"2")
        put(outbox, arrival("3"), b"3")
        one.extent.path.unlink()
        lose(next(entry for entry in outbox.entries() if entry.sop_instance == "3"))
    with Outbox(tmp_path) as outbox:
        found = {entry.sop_instance: (entry.state, entry.reason) for entry in outbox.entries()}
        assert found == {"1": (State.SET_ASIDE, FILE_LOST), "2": (State.TODO, ""), "3": (State.TODO, "")}
        assert outbox.retry_now() == 0
        assert put(outbox, arrival("1"), b"1") is Receipt.QUEUED
        assert [entry.extent.exists() for entry in claim(outbox)] == [True, False, True]


def test_files_of_living_processes_are_not_swept(tmp_path: Path) -> None:
    with Outbox(tmp_path) as living:
        with receive(living, arrival(), b"under way") as incoming:
            scratch = living.scratch()
            scratch.write_bytes(b"converted")
            renamed = tmp_path / f"{living.scratch().name}.dcm"
            renamed.write_bytes(b"between rename and commit")
            Outbox(tmp_path).close()
            assert incoming.data_set().read() == b"under way"
            assert scratch.exists()
            assert renamed.exists()
    (tmp_path / "incoming" / "stranger").write_bytes(b"x")
    (tmp_path / "strangers.dcm").write_bytes(b"x")
    Outbox(tmp_path).close()
    assert list((tmp_path / "incoming").iterdir()) == []
    # Only names of ours are swept beside the database.
    assert [path.name for path in tmp_path.glob("*.dcm")] == ["strangers.dcm"]
    assert list((tmp_path / "owners").iterdir()) == [tmp_path / "owners" / "3.lock"]


def test_wait_ends_when_something_is_put(outbox: Outbox) -> None:
    assert not outbox.wait("main", 0.01)
    putter = threading.Timer(0.05, put, (outbox, arrival(), b"x"))
    putter.start()
    assert outbox.wait("main", 20)
    putter.join()


class Gate:
    """Let a transaction begin once the gate is open."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate

    def __enter__(self) -> None:
        self.gate.wait()

    def __exit__(self, *_: object) -> None:
        pass


def test_threads_share_transactions_and_get_their_own_results(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE t (n INTEGER CHECK (n <> 13))")
    transactions: list[str] = []
    connection.set_trace_callback(transactions.append)
    gate = threading.Event()
    journal = Journal(connection, Gate(gate))
    results: dict[int, object] = {}

    def insert(number: int) -> None:
        try:
            results[number] = journal.run(
                lambda c: c.execute("INSERT INTO t VALUES (?) RETURNING n", (number,)).fetchone()[0],
                synced=False,
            )
        except sqlite3.IntegrityError as error:
            results[number] = error

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert isinstance(results.pop(13), sqlite3.IntegrityError)
    assert results == {number: number for number in range(300) if number != 13}
    assert transactions.count("COMMIT") < 150
    journal.close()


def let_wait(journal: Journal, operation: Callable[[sqlite3.Connection], object]) -> None:
    journal._waiting.append(_Ticket(operation, synced=False))  # as if a thread had just come


def test_an_operation_that_raises_changes_nothing_and_the_others_of_its_group_are_written(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("CREATE TABLE t (n INTEGER)")
    journal = Journal(connection, nullcontext())
    for number in range(3):
        let_wait(journal, partial(lambda n, c: c.execute("INSERT INTO t VALUES (?)", (n,)), number))

    def insert_and_fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (99)")
        raise LookupError

    with pytest.raises(LookupError):
        journal.run(insert_and_fail)
    assert connection.execute("SELECT n FROM t").fetchall() == [(0,), (1,), (2,)]
    journal.close()


def test_an_operation_that_raises_alone_changes_nothing_and_the_next_is_written(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("CREATE TABLE t (n INTEGER)")
    journal = Journal(connection, nullcontext())

    def insert_and_fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (99)")
        raise LookupError

    with pytest.raises(LookupError):
        journal.run(insert_and_fail)
    assert not connection.in_transaction
    journal.run(lambda c: c.execute("INSERT INTO t VALUES (1)"))
    assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
    journal.close()


def test_whoever_waits_behind_more_than_a_group_still_gets_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.journal._MOST", 2)
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    journal = Journal(connection, nullcontext())
    for _ in range(5):
        let_wait(journal, lambda c: c.execute("SELECT 1"))
    assert journal.run(lambda c: c.execute("SELECT 7").fetchone()) == (7,)
    journal.close()


def _put_from_process(folder: Path, who: int, count: int) -> None:
    with Outbox(folder, Limits(high_water=1)) as outbox:
        for number in range(count):
            assert put(outbox, arrival(f"{who}.{number}"), content((who, number))) is Receipt.QUEUED


def test_processes_share_the_folder_and_claim_each_instance_once(tmp_path: Path) -> None:
    with Outbox(tmp_path, Limits(high_water=1)) as outbox:
        start = multiprocessing.get_context("spawn")
        processes = [start.Process(target=_put_from_process, args=(tmp_path, who, 40)) for who in range(3)]
        for process in processes:
            process.start()
        found: list[Entry] = []
        while len(found) < 120 and outbox.wait("main", 30):
            claimed = claim(outbox, 7)
            found += claimed
            outbox.done([entry.id for entry in claimed])
        for process in processes:
            process.join()
            assert process.exitcode == 0
    assert len({entry.id for entry in found}) == 120
    assert {entry.sop_instance for entry in found} == {f"{who}.{n}" for who in range(3) for n in range(40)}


def test_what_was_received_before_the_clock_was_set_back_does_not_wait_for_that_time(tmp_path):
    now = [1_000_000.0]
    with Outbox(tmp_path / "spool", Limits(high_water=1), clock=lambda: now[0]) as outbox:
        put(outbox, arrival("1"), b"1")
        put(outbox, arrival("2"), b"2")
        for entry in outbox.claim("main", count=1, max_bytes=10**9, lease=60):
            outbox.set_aside(entry.id, "for the operator")
        now[0] -= 86_400
        claimed = outbox.claim("main", count=9, max_bytes=10**9, lease=60)
        assert [entry.sop_instance for entry in claimed] == ["2"]
        assert not outbox.is_due("main")
