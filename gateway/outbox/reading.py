"""What can be asked of the outbox; long lists are read in pages, so that no reader keeps the log from shrinking."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.outbox.entry import Entry, State, Statistics, StudyState, Total
from gateway.outbox.queue import Selection
from gateway.outbox.rows import entry

_PAGE = 1000
_FEW = 5000  # undelivered entries that are gone through rather than all studies that are known
_LATEST = 2000  # entries that are looked through for the latest studies, in each group
_BY_INSTANCE = """
SELECT * FROM entries WHERE sop_instance = :sop_instance AND :series IN (series, '') AND :study IN (study, '')
AND state <> 'done' ORDER BY place, id
"""
_BY_STUDY = """
SELECT * FROM entries WHERE study = :study AND :series IN (series, '') AND state <> 'done' ORDER BY place, id
"""
_WAITING = """
SELECT * FROM entries INDEXED BY by_study WHERE study = :study AND archive = :archive AND state <> 'done'
AND id > :after ORDER BY id LIMIT :most
"""
_FIRST_OF_SERIES = """
SELECT * FROM entries WHERE id IN (
    SELECT min(id) FROM entries INDEXED BY by_study
    WHERE study = :study AND archive = :archive AND state <> 'done' GROUP BY series
) ORDER BY id
"""
_FEW_STUDIES = """
SELECT DISTINCT study FROM entries INDEXED BY undelivered WHERE archive = :archive AND state <> 'done' ORDER BY study
"""
# From one study to the next by the index, however many instances each has.
_MANY_STUDIES = """
WITH RECURSIVE known (study) AS (
    SELECT min(study) FROM entries WHERE study > :after
    UNION ALL
    SELECT (SELECT min(study) FROM entries WHERE study > known.study) FROM known WHERE known.study IS NOT NULL
    LIMIT :page
)
SELECT study, EXISTS (
    SELECT 1 FROM entries INDEXED BY by_study
    WHERE entries.study = known.study AND archive = :archive AND state <> 'done'
) FROM known WHERE study IS NOT NULL
"""
_BY_INSTANCES = """
SELECT * FROM entries WHERE sop_instance IN (SELECT value FROM json_each(:sop_instances)) AND archive = :archive
"""

Ask = Callable[[str, dict[str, object]], list[tuple[object, ...]]]
"""Run a query with its values and fetch all of its rows."""


def usage(ask: Ask, peer: str) -> tuple[int, int]:
    """Return how many bytes wait in all, and how many of them from one peer."""
    rows = ask(
        "SELECT total(bytes), total(bytes) FILTER (WHERE peer = :peer) FROM totals WHERE state <> 'done'",
        {"peer": peer},
    )
    total, of_peer = rows[0]
    return int(total), int(of_peer)  # type: ignore[call-overload]


def statistics(ask: Ask) -> Statistics:
    """Read the totals and, per archive, when the oldest undelivered entry was received."""
    rows = ask("SELECT archive, peer, state, entries, bytes FROM totals WHERE entries > 0", {})
    totals = tuple(Total(a, p, State(s), n, b) for a, p, s, n, b in rows)  # type: ignore[arg-type]
    oldest = {}
    for archive in {total.archive for total in totals if total.state is not State.DONE}:
        query = "SELECT min(received) FROM entries WHERE archive = :archive AND state <> 'done'"
        when = ask(query, {"archive": archive})[0][0]
        if isinstance(when, float):
            oldest[archive] = when
    return Statistics(totals, oldest)


def studies(ask: Ask, study: str, archive: str) -> Iterator[StudyState]:
    """Sum up by study and archive, in the order of their UIDs."""
    condition, values = Selection(study, archive).sql()
    last_study, last_archive = "", ""
    while True:
        rows = ask(
            "SELECT archive, study, min(received), max(received), sum(size), "  # noqa: S608 - our own names
            "sum(state = 'todo'), "
            "sum(state = 'leased'), sum(state = 'set aside'), sum(state = 'held'), sum(state = 'done'), "
            "coalesce(min(due) FILTER (WHERE state = 'todo'), 0.0), "
            "coalesce(max(reason) FILTER (WHERE state = 'set aside'), "
            "max(reason) FILTER (WHERE state <> 'done'), '') FROM entries "
            f"WHERE {condition} AND (study, archive) > (:last_study, :last_archive) "
            "GROUP BY study, archive ORDER BY study, archive LIMIT :page",
            values | {"last_study": last_study, "last_archive": last_archive, "page": _PAGE},
        )
        for row in rows:
            yield StudyState(*row)  # type: ignore[arg-type]
        if len(rows) < _PAGE:
            return
        last_archive, last_study = str(rows[-1][0]), str(rows[-1][1])


def holds(ask: Ask) -> list[tuple[str, str]]:
    """List what is to be held as (study, archive); "" stands for each."""
    return [(str(study), str(archive)) for study, archive in ask("SELECT study, archive FROM holds", {})]


def latest(ask: Ask, most: int) -> list[StudyState]:
    """Sum up the studies that wait for the operator, then those that moved last; at most so many of them."""
    waiting = ask("SELECT DISTINCT archive FROM totals WHERE entries > 0 AND state <> 'done'", {})
    steps = [
        ("state IN ('set aside', 'held') ORDER BY due DESC", ""),
        *(("archive = :archive AND state <> 'done' ORDER BY received DESC", str(archive)) for (archive,) in waiting),
        ("state = 'done' ORDER BY due DESC", ""),
    ]
    chosen: dict[tuple[str, str], None] = {}
    for which, archive in steps:
        rows = ask(
            f"SELECT study, archive FROM entries WHERE {which} LIMIT {_LATEST}",  # noqa: S608 - our own words
            {"archive": archive},
        )
        chosen.update(dict.fromkeys((str(study), str(of)) for study, of in rows))
    return [found for study, archive in list(chosen)[:most] for found in studies(ask, study, archive)]


def entries(ask: Ask, folder: Path, selection: Selection, state: State | None) -> Iterator[Entry]:
    """List entries in the order of their ids."""
    condition, values = selection.sql()
    if state is not None:
        condition += " AND state = :state"
        values["state"] = str(state)
    after = 0
    while True:
        rows = ask(
            f"SELECT * FROM entries WHERE {condition} "  # noqa: S608 - our own names
            "AND id > :after ORDER BY id LIMIT :page",
            values | {"after": after, "page": _PAGE},
        )
        for row in rows:
            found = entry(folder, row)
            after = found.id
            yield found
        if len(rows) < _PAGE:
            return


def find(ask: Ask, folder: Path, study: str, series: str, sop_instance: str) -> list[Entry]:
    """Find the undelivered entries of a study, of a series in it, or of a SOP instance anywhere."""
    if not study and not sop_instance:
        raise ValueError("find needs a study or a SOP instance: a series alone has no index")
    values: dict[str, object] = {"study": study, "series": series, "sop_instance": sop_instance}
    rows = ask(_BY_INSTANCE if sop_instance else _BY_STUDY, values)
    return [entry(folder, row) for row in rows]


def count_waiting(ask: Ask, archive: str) -> int:
    """Count the undelivered entries of an archive."""
    rows = ask("SELECT total(entries) FROM totals WHERE archive = :archive AND state <> 'done'", {"archive": archive})
    return int(rows[0][0])  # type: ignore[call-overload, no-any-return]


def waiting_studies(ask: Ask, archive: str) -> Iterator[str]:
    """Yield the studies of which something is undelivered to an archive, in the order of their UIDs."""
    if count_waiting(ask, archive) <= _FEW:
        yield from (str(study) for (study,) in ask(_FEW_STUDIES, {"archive": archive}))
        return
    after = ""
    while rows := ask(_MANY_STUDIES, {"archive": archive, "after": after, "page": _PAGE}):
        yield from (str(study) for study, is_waiting in rows if is_waiting)
        after = str(rows[-1][0])


def waiting(ask: Ask, folder: Path, archive: str, study: str, after: int, most: int) -> list[Entry]:
    """Return the next undelivered entries of a study with ids above `after`, in the order of their ids."""
    rows = ask(_WAITING, {"archive": archive, "study": study, "after": after, "most": most})
    return [entry(folder, row) for row in rows]


def first_of_series(ask: Ask, folder: Path, archive: str, study: str) -> list[Entry]:
    """Return the first undelivered entry of each series of a study, in the order of their ids."""
    return [entry(folder, row) for row in ask(_FIRST_OF_SERIES, {"archive": archive, "study": study})]


def of_instances(ask: Ask, folder: Path, archive: str, sop_instances: Sequence[str]) -> list[Entry]:
    """Find the entries of an archive with any of these SOP Instance UIDs, delivered ones as well."""
    rows = ask(_BY_INSTANCES, {"archive": archive, "sop_instances": json.dumps(sop_instances)})
    return [entry(folder, row) for row in rows]
