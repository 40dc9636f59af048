import os
import threading
import time
from pathlib import Path

import pytest
from processes import await_true
from small_disk import small_disk
from spooled import arrival, content, put

from gateway.cache import Cache, RecentObjects, emptied
from gateway.outbox import Limits, Outbox

KIB, MIB = 1 << 10, 1 << 20
UIDS = ("1.2", "1.2.1", "1.2.1.1")


def uids(number):
    return "1.2", "1.2.1", f"1.2.1.{number}"


@pytest.fixture
def folder(tmp_path):
    with emptied(tmp_path / "cache"):
        yield tmp_path / "cache"


def objects(folder, *, size=MIB, seconds=600, archive="main", **options):
    return RecentObjects(Cache(folder, size, seconds), archive, **options)


def keep(recent, uids, data, mark=None):
    recent.keep(uids, len(data), lambda path: path.write_bytes(data), recent.mark() if mark is None else mark)


def taken(recent, uids, folder):
    """Take an instance and give its bytes; None when it is not there."""
    path = folder.parent / "taken"
    path.unlink(missing_ok=True)
    size = recent.take(uids, path)
    assert (size is not None) == path.exists()
    assert size is None or size == path.stat().st_size
    return path.read_bytes() if size is not None else None


def files(folder):
    return [path for path in folder.iterdir() if path.name != "state"]


def age(folder, seconds):
    """Let everything be older by so many seconds."""
    for path in files(folder):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def in_a_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(9)
    return pid


def test_what_was_kept_is_taken_byte_for_byte_under_its_own_uids_and_archive_only(folder):
    recent, data = objects(folder), content("an instance", 100_000)
    assert not recent.has(UIDS)
    assert taken(recent, UIDS, folder) is None
    keep(recent, UIDS, data)
    assert recent.has(UIDS)
    assert taken(recent, UIDS, folder) == data
    for other in (("1.3", "1.2.1", "1.2.1.1"), ("1.2", "1.2.2", "1.2.1.1"), ("1.2", "1.2.1", "1.2.1.2")):
        assert not recent.has(other)
        assert taken(recent, other, folder) is None
    assert taken(objects(folder, archive="other"), UIDS, folder) is None


def test_another_process_takes_it_too(folder):
    pid = in_a_child(lambda: keep(objects(folder), UIDS, b"from a child"))
    assert os.waitpid(pid, 0)[1] == 0
    assert taken(objects(folder), UIDS, folder) == b"from a child"


def test_what_is_too_old_or_of_the_future_is_not_taken(folder):
    recent = objects(folder)
    keep(recent, UIDS, b"old")
    age(folder, 590)
    assert taken(recent, UIDS, folder) == b"old"
    age(folder, 20)
    assert not recent.has(UIDS)
    assert taken(recent, UIDS, folder) is None
    age(folder, -1000)
    assert taken(recent, UIDS, folder) is None


def test_what_is_too_old_is_removed_by_itself(folder):
    cache = Cache(folder, MIB, 2)
    recent = RecentObjects(cache, "main")
    keep(recent, UIDS, b"old")
    keep(recent, uids(2), b"left behind by a process that was killed")
    files(folder)[0].rename(cache.new())
    with cache.tended():
        await_true(lambda: not files(folder), what="an empty cache")


def test_the_oldest_go_when_it_is_full_and_it_never_grows_over_its_size(folder):
    recent = objects(folder, size=MIB)
    for number in range(40):
        keep(recent, uids(number), content(number, 100 * KIB))
        age(folder, 1)  # each is a second older than the next
        assert sum(path.stat().st_size for path in files(folder)) <= MIB
    there = [number for number in range(40) if recent.has(uids(number))]
    assert len(there) >= 7
    assert there == list(range(there[0], 40))
    assert all(taken(recent, uids(number), folder) == content(number, 100 * KIB) for number in there)


def test_small_instances_count_as_64_kib_so_that_their_number_is_bounded(folder):
    recent = objects(folder, size=MIB)
    for number in range(100):
        keep(recent, uids(number), b"small")
    assert 12 <= len(files(folder)) <= 16


def test_processes_that_fill_it_at_the_same_time_do_not_pass_its_size(folder):
    def fill(first):
        recent = objects(folder, size=2 * MIB)
        for number in range(first, first + 150):
            keep(recent, uids(number), content(number, 64 * KIB))

    for pid in [in_a_child(lambda first=first: fill(first)) for first in (0, 1000, 2000)]:
        assert os.waitpid(pid, 0)[1] == 0
    assert 0 < sum(path.stat().st_size for path in files(folder)) <= 2 * MIB
    recent = objects(folder, size=2 * MIB)
    keep(recent, UIDS, content(1, 64 * KIB))
    assert taken(recent, UIDS, folder) == content(1, 64 * KIB)


def test_an_instance_of_more_than_half_the_size_is_not_kept(folder):
    recent = objects(folder, size=MIB)
    keep(recent, UIDS, bytes(600 * KIB))
    assert files(folder) == []


def test_what_was_taken_stays_whole_when_it_is_evicted_or_replaced(folder):
    cache = Cache(folder, MIB, 600)
    recent = RecentObjects(cache, "main")
    keep(recent, UIDS, b"first")
    first, second = folder.parent / "first", folder.parent / "second"
    assert recent.take(UIDS, first) == 5
    keep(recent, UIDS, b"second")
    assert recent.take(UIDS, second) == 6
    assert cache.give_way()
    assert files(folder) == []
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert not cache.give_way()


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ([("1.2", "1.2.1", "1.2.1.1")], {"1.2.1.2", "1.2.2.1", "1.3.1.1"}),
        ([("1.2", "1.2.1", "1.2.1.1"), ("1.3", "1.3.1", "1.3.1.1")], {"1.2.1.2", "1.2.2.1"}),
        ([("1.2", "1.2.1", "")], {"1.2.2.1", "1.3.1.1"}),
        ([("1.2", "", "")], {"1.3.1.1"}),
    ],
)
def test_what_is_changed_in_the_archive_is_forgotten_and_nothing_else(folder, changed, left):
    recent, other = objects(folder), objects(folder, archive="other")
    all_ = [
        ("1.2", "1.2.1", "1.2.1.1"),
        ("1.2", "1.2.1", "1.2.1.2"),
        ("1.2", "1.2.2", "1.2.2.1"),
        ("1.3", "1.3.1", "1.3.1.1"),
    ]
    for one in all_:
        keep(recent, one, b"mine")
        keep(other, one, b"other")
    recent.forget(changed)
    assert {one[2] for one in all_ if recent.has(one)} == left
    assert all(other.has(one) for one in all_)


@pytest.mark.parametrize("changed", [UIDS, UIDS[:2], UIDS[:1]])
def test_what_was_changed_while_it_was_fetched_is_not_kept(folder, changed):
    recent = objects(folder)
    mark = recent.mark()
    os.waitpid(in_a_child(lambda: objects(folder).forget([changed])), 0)
    keep(recent, UIDS, b"perhaps the former bytes", mark)
    assert files(folder) == []
    keep(recent, UIDS, b"the new bytes")
    assert taken(recent, UIDS, folder) == b"the new bytes"


def test_whatever_comes_between_former_bytes_do_not_outlive_the_change(folder):
    recent, archive = objects(folder), [b"0"]
    over = threading.Event()

    def fetch():
        while not over.is_set():
            mark = recent.mark()
            data = archive[0]
            keep(recent, UIDS, data, mark)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 300):
            archive[0] = str(number).encode()
            recent.forget([UIDS])
            found = taken(recent, UIDS, folder)
            assert found is None or int(found) >= number
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_hits_and_misses_are_told_with_their_bytes(folder):
    seen = []
    recent = objects(folder, observe=lambda *one: seen.append(one))
    taken(recent, UIDS, folder)
    keep(recent, UIDS, b"123")
    taken(recent, UIDS, folder)
    assert seen == [("miss", 3), ("hit", 3)]


def test_with_size_0_nothing_is_kept_told_or_taken_and_a_change_is_heeded_for_others(folder):
    seen, used = [], objects(folder)
    off = objects(folder, size=0, observe=lambda *one: seen.append(one))
    keep(used, UIDS, b"kept by those with the former configuration")
    assert not off.has(UIDS)
    assert taken(off, UIDS, folder) is None
    keep(off, uids(2), b"not kept")
    assert (seen, len(files(folder))) == ([], 1)
    off.forget([UIDS])
    assert taken(used, UIDS, folder) is None


def test_it_begins_and_ends_empty_whatever_a_killed_gateway_left(tmp_path):
    folder = tmp_path / "cache"

    def die():
        with emptied(folder):
            keep(objects(folder), UIDS, b"left")
            Cache(folder, MIB, 600).new().write_bytes(b"half written")
            os._exit(9)

    os.waitpid(in_a_child(die), 0)
    assert len(files(folder)) == 2
    with emptied(folder):
        assert files(folder) == []
        keep(objects(folder), UIDS, b"new")
    assert not folder.exists()


def test_a_folder_that_was_removed_does_no_harm(tmp_path):
    recent = objects(tmp_path / "never made")
    keep(recent, UIDS, b"1")
    recent.forget([UIDS])
    with emptied(tmp_path / "cache"):
        recent = objects(tmp_path / "cache")
        for path in (tmp_path / "cache").iterdir():
            path.unlink()
        (tmp_path / "cache").rmdir()
        keep(recent, UIDS, b"1")
        recent.forget([UIDS])
        assert taken(recent, UIDS, tmp_path / "cache") is None


# -- a disk that is full ---------------------------------------------------------------------------------------------


def leave(disk: Path, room: int) -> None:
    """Fill a disk so that so many bytes are free."""
    free = os.statvfs(disk)
    with (disk / f"filler-{time.monotonic_ns()}").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)


def test_nothing_is_kept_above_the_high_water_mark_and_what_is_there_is_given_back(tmp_path):
    with small_disk(tmp_path / "disk", 32 * MIB) as disk, emptied(disk / "cache"):
        folder = disk / "cache"
        cache = Cache(folder, 16 * MIB, 600, high_water=0.5)
        recent = RecentObjects(cache, "main")
        for number in range(4):
            keep(recent, uids(number), content(number, MIB))
        with cache.tended():
            leave(disk, 20 * MIB)
            time.sleep(1.5)
            assert len(files(folder)) == 4
            leave(disk, 16 * MIB)
            await_true(lambda: not files(folder), what="the room to be given back")
        leave(disk, 16 * MIB)
        keep(recent, UIDS, content(1, MIB))
        assert files(folder) == []


def test_an_outbox_without_room_gets_that_of_the_cache_at_once(tmp_path):
    with small_disk(tmp_path / "disk", 32 * MIB) as disk, emptied(disk / "cache"):
        cache = Cache(disk / "cache", 16 * MIB, 600)
        for number in range(8):
            keep(RecentObjects(cache, "main"), uids(number), content(number, MIB))
        with Outbox(disk / "outbox", Limits(high_water=1.0), make_room=cache.give_way) as outbox:
            leave(disk, MIB)
            put(outbox, arrival(), content("received", 4 * MIB))
        assert files(disk / "cache") == []


def test_a_disk_without_room_for_it_keeps_nothing_from_starting(tmp_path):
    with small_disk(tmp_path / "disk", MIB) as disk:
        leave(disk, 0)
        with emptied(disk / "cache"):
            recent = objects(disk / "cache")
            keep(recent, UIDS, b"1")
            recent.forget([UIDS])
            assert not recent.has(UIDS)
            assert not Cache(disk / "cache", MIB, 600).give_way()
