"""The outbox is asked for what waits in few and short steps, and nothing is shown that nobody is to see."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from embedded_archive import instance
from held import data_set
from queries import identifier_of
from spooled import EXPLICIT, lose

from gateway.dimse.backlog import Backlog, Headers
from gateway.errors import ScanLimitReached
from gateway.outbox import FILE_LOST, Arrival, Limits, Outbox
from gateway.translate.part10 import file_header
from gateway.translate.profiles import PROFILES
from gateway.translate.search import Model, Negotiated, Search, plan

SC = "1.2.840.10008.5.1.4.1.1.7"
HEADERS = Headers()


def search(level: str = "STUDY", **keys: str) -> Search:
    identifier = identifier_of(level, **(keys or {"StudyInstanceUID": ""}))
    return plan(identifier, Model.STUDY_ROOT, PROFILES["embedded"], Negotiated(relational=True))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path, Limits(high_water=1)) as outbox:
        yield outbox


def put(outbox: Outbox, sop: str, *, archive: str = "main", data: bytes = b"", **values: str) -> None:
    """Queue an instance whose series and study are the beginnings of its UID."""
    series = sop.rpartition(".")[0]
    study = series.rpartition(".")[0]
    with outbox.incoming("", file_header(SC, sop, EXPLICIT)) as incoming:
        incoming.write(memoryview(data or data_set(instance(study, series, sop, **values))))
        outbox.commit(incoming, Arrival(archive, study, series, SC, sop, EXPLICIT))


def found(outbox: Outbox, wanted: Search, *hidden: str, most: int = 100) -> list[str]:
    """Give the unique keys of the rows."""
    name = {"STUDY": "0020000D", "SERIES": "0020000E", "IMAGE": "00080018"}[wanted.level]
    backlog = Backlog(outbox, HEADERS, "main", wanted, most, hidden=lambda uids: set(uids) & set(hidden))
    return [row[name]["Value"][0] for row in backlog.rows() if row is not None]


def test_what_waits_for_another_archive_is_not_seen(outbox: Outbox) -> None:
    put(outbox, "1.2.1.1.1", archive="other")
    assert found(outbox, search()) == []
    assert found(outbox, search(StudyInstanceUID="1.2.1")) == []
    assert found(outbox, search("IMAGE", SOPInstanceUID="1.2.1.1.1")) == []
    assert Backlog(outbox, HEADERS, "main", search(), 1).is_empty()
    assert not Backlog(outbox, HEADERS, "other", search(), 1).is_empty()


def test_what_is_hidden_is_not_seen_and_does_not_stand_for_its_study_or_series(outbox: Outbox) -> None:
    put(outbox, "1.2.1.1.1", AccessionNumber="A1")
    put(outbox, "1.2.1.1.2", AccessionNumber="A2")
    put(outbox, "1.2.2.1.1")
    hidden = ("1.2.1.1.1", "1.2.2.1.1")
    assert found(outbox, search(), *hidden) == ["1.2.1"]
    assert found(outbox, search(AccessionNumber="A1"), *hidden) == []
    assert found(outbox, search(AccessionNumber="A2"), *hidden) == ["1.2.1"]
    assert found(outbox, search("SERIES", SeriesInstanceUID=""), *hidden) == ["1.2.1.1"]
    assert found(outbox, search("IMAGE", SOPInstanceUID=""), *hidden) == ["1.2.1.1.2"]
    assert found(outbox, search("IMAGE", SOPInstanceUID="1.2.1.1.1\\1.2.1.1.2"), *hidden) == ["1.2.1.1.2"]


def test_a_file_that_was_delivered_meanwhile_does_not_stand_for_its_study(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "1.2.1.1.1")
    put(outbox, "1.2.1.1.2")
    first, _ = outbox.waiting("main", "1.2.1")
    lose(first)
    assert found(outbox, search()) == ["1.2.1"]
    assert found(outbox, search("IMAGE", SOPInstanceUID="")) == ["1.2.1.1.2"]


def test_a_row_whose_file_is_lost_is_not_seen(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "1.2.1.1.1")
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database, database:
        database.execute("UPDATE entries SET state = 'set aside', reason = ?", (FILE_LOST,))
    assert found(outbox, search()) == []


def test_a_data_set_that_cannot_be_read_has_its_uids(outbox: Outbox) -> None:
    put(outbox, "1.2.1.1.1", data=b"\x08\x00\x05\x00??\x02\x00" * 8)
    assert found(outbox, search("IMAGE", SOPInstanceUID="")) == ["1.2.1.1.1"]
    assert found(outbox, search("IMAGE", PatientName="Doe*")) == []


def test_no_more_headers_are_looked_at_than_a_query_may_read(outbox: Outbox) -> None:
    for number in range(3):
        put(outbox, f"1.2.{number}.1.1")
        put(outbox, f"1.2.{number}.1.2")
    assert found(outbox, search(), most=3) == ["1.2.0", "1.2.1", "1.2.2"]
    with pytest.raises(ScanLimitReached, match="2 instances in the outbox"):
        found(outbox, search(), most=2)


def test_keys_of_the_study_spare_the_headers_below_it(outbox: Outbox) -> None:
    for number in range(3):
        put(outbox, f"1.2.{number}.1.1", AccessionNumber=f"A{number}")
        put(outbox, f"1.2.{number}.1.2", AccessionNumber=f"A{number}")
    assert found(outbox, search("IMAGE", AccessionNumber="A1"), most=4) == ["1.2.1.1.1", "1.2.1.1.2"]


def test_studies_are_found_among_many_entries_as_among_few(outbox: Outbox, tmp_path: Path) -> None:
    put(outbox, "1.2.1.1.1")
    columns = "archive, study, series, sop_class, transfer_syntax, peer, called, size, digest, received, due, place"
    copy = f"""
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 6000)
    INSERT INTO entries (id, sop_instance, state, {columns})
    SELECT :from + n, '1.9.' || (:from + n), CASE WHEN n % 3 = :from THEN 'todo' ELSE :state END,
        {columns.replace("study", "'1.3.' || (n % 1500)")} FROM entries, numbers WHERE sop_instance = '1.2.1.1.1'
    """
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database, database:
        database.execute(copy, {"from": 1, "state": "done"})
    few = list(outbox.waiting_studies("main"))
    assert outbox.count_waiting("main") == 2001
    assert few == sorted(["1.2.1", *(f"1.3.{n}" for n in range(1500) if n % 3 == 1)])
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database, database:
        database.execute(copy, {"from": 100_000, "state": "todo"})
    assert outbox.count_waiting("main") == 8001
    assert list(outbox.waiting_studies("main")) == sorted(["1.2.1", *(f"1.3.{n}" for n in range(1500))])


def test_pages_of_a_study_go_on_where_they_ended(outbox: Outbox) -> None:
    for number in range(5):
        put(outbox, f"1.2.1.1.{number}")
    first = outbox.waiting("main", "1.2.1", most=3)
    rest = outbox.waiting("main", "1.2.1", after=first[-1].id, most=3)
    assert [one.sop_instance for one in (*first, *rest)] == [f"1.2.1.1.{number}" for number in range(5)]
