import sqlite3

import pytest
from small_disk import fill, small_disk

from gateway import recent
from gateway.errors import SpoolBroken
from gateway.recent import Minute, Recent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recent.db"


def test_a_refusal_is_listed_once_with_its_count(path):
    with Recent(path) as one, Recent(path) as other:
        for memory in (one, other, one):
            memory.note_refusal("CT01", "GATEWAY", "10.0.0.1", "not known")
        one.note_refusal("CT01", "WRONG", "10.0.0.1", "not ours")
        found = {(refusal.calling, refusal.called): refusal.count for refusal in other.refusals()}
    assert found == {("CT01", "GATEWAY"): 3, ("CT01", "WRONG"): 1}


def test_the_lists_are_bounded_and_keep_the_last(path):
    with Recent(path) as memory:
        for number in range(300):
            memory.note_refusal(f"T{number}", "GATEWAY", "10.0.0.1", "not known")
            memory.note_contact(f"T{number}", "10.0.0.1")
            memory.note_stored(f"1.2.{number}", "main", "CT01", 100, "")
        assert [refusal.calling for refusal in memory.refusals()] == [f"T{n}" for n in range(299, 99, -1)]
        assert len(memory.contacts()) == 200
        assert len(memory.studies()) == 200


def test_a_study_counts_what_was_stored_and_what_was_not(path):
    with Recent(path) as memory:
        memory.note_stored("1.2", "main", "CT01", 100, "")
        memory.note_stored("1.2", "main", "CT01", 50, "archive main: HTTP 503")
        memory.note_stored("1.2", "main", "CT01", 50, "")
        (study,) = memory.studies()
    assert (study.archived, study.failed, study.bytes) == (2, 1, 200)
    assert study.reason == "archive main: HTTP 503"


def test_minutes_add_up_and_last_a_day(path):
    with Recent(path) as memory:
        memory.note_minute(Minute(1000, 1, 1, 10))
        memory.note_minute(Minute(1000, 2, 0, 5))
        memory.note_minute(Minute(2439, 1, 1, 1))
        assert memory.minutes(0) == [Minute(1000, 3, 1, 15), Minute(2439, 1, 1, 1)]
        memory.note_minute(Minute(2440, 1, 1, 1))
        assert [one.minute for one in memory.minutes(0)] == [2439, 2440]


def test_a_broken_file_is_made_anew(path):
    path.write_bytes(b"no database" * 1000)
    recent.prepare(path)
    with Recent(path) as memory:
        memory.note_contact("CT01", "10.0.0.1")
    with Recent(path) as memory:
        assert [contact.title for contact in memory.contacts()] == ["CT01"]


def test_a_place_that_cannot_be_written_costs_the_memory_of_this_process_only(tmp_path):
    path = tmp_path / "absent" / "recent.db"
    recent.prepare(path)
    with Recent(path) as memory:
        memory.note_contact("CT01", "10.0.0.1")
        assert [contact.title for contact in memory.contacts()] == ["CT01"]
    assert not path.parent.exists()


def test_what_cannot_be_written_harms_nobody(path):
    with Recent(path) as memory:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("DROP TABLE contacts")
        memory.note_contact("CT01", "10.0.0.1")
        with pytest.raises(SpoolBroken):
            memory.contacts()
        holder.close()


def test_the_last_room_of_a_disk_is_left_to_the_outbox(tmp_path):
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        path = disk / "recent.db"
        with Recent(path) as memory:
            memory.note_contact("FIRST", "10.0.0.1")
            filler = fill(disk)
            memory.note_contact("SECOND", "10.0.0.1")
            with Recent(path) as later:
                later.note_contact("THIRD", "10.0.0.1")
                assert [contact.title for contact in later.contacts()] == ["THIRD"]
            filler.unlink()
            memory.note_contact("FOURTH", "10.0.0.1")
            assert {contact.title for contact in memory.contacts()} == {"FIRST", "FOURTH"}
