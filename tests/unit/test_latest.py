"""Which studies of an outbox the status page shows."""

import sqlite3

import pytest
from spooled import arrival, content, put

from gateway.outbox import Outbox


@pytest.fixture
def clock():
    now = [1000.0]

    def clock():
        now[0] += 1
        return now[0]

    return clock


@pytest.fixture
def outbox(tmp_path, clock):
    with Outbox(tmp_path / "outbox", clock=clock) as outbox:
        yield outbox


def store(outbox, number, archive="main"):
    put(outbox, arrival(f"1.2.{number}.1", study=f"1.2.{number}", archive=archive), content(number))


def claimed(outbox):
    (entry,) = outbox.claim("main", count=1, max_bytes=1 << 20, lease=60)
    return entry


def shown(outbox, most=10):
    return [(one.study, one.archive) for one in outbox.latest(most)]


def test_what_waits_for_the_operator_comes_first_then_what_waits_then_what_is_done(outbox):
    for number in range(5):
        store(outbox, number)
    outbox.done([claimed(outbox).id])
    outbox.set_aside(claimed(outbox).id, "refused")
    outbox.hold("1.2.2")
    assert shown(outbox) == [
        ("1.2.2", "main"),
        ("1.2.1", "main"),
        ("1.2.4", "main"),
        ("1.2.3", "main"),
        ("1.2.0", "main"),
    ]
    assert shown(outbox, 2) == [("1.2.2", "main"), ("1.2.1", "main")]
    assert outbox.latest(2)[1].reason == "refused"


def test_a_study_is_shown_once_for_each_archive_with_all_that_is_known(outbox):
    store(outbox, 1)
    put(outbox, arrival("1.2.1.2", study="1.2.1"), content("another"))
    store(outbox, 1, archive="second")
    outbox.done([claimed(outbox).id])
    found = {one.archive: (one.done, one.todo) for one in outbox.latest(10)}
    assert found == {"main": (1, 1), "second": (0, 1)}
    assert len(outbox.latest(10)) == 2


def test_nothing_is_sorted_or_scanned_to_find_them(outbox, tmp_path):
    asked = []
    connection = sqlite3.connect(tmp_path / "outbox" / "outbox.db")
    store(outbox, 1)
    outbox._reader.set_trace_callback(asked.append)
    outbox.latest(10)
    outbox._reader.set_trace_callback(None)
    chosen = [query for query in asked if query.startswith("SELECT study, archive")]
    assert len(chosen) == 3
    for query in chosen:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "USING INDEX" in plan, query
        assert "TEMP B-TREE" not in plan, query
    connection.close()
