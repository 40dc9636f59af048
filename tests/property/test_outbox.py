"""Drive the outbox and a model of it with the same commands; they must never differ."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from spooled import arrival, content, data_set, digest, has_data, put, receive, records_in

from gateway.outbox import Limits, Outbox, Receipt, State
from gateway.outbox.record import Record, head

LIMITS = Limits(high_water=1, repeat_window=100, keep_done=500, keep_done_entries=4)
LEASE = 60.0

STUDIES = st.integers(0, 2).map(lambda number: f"1.2.{number}")
INSTANCES = st.integers(0, 3)
CONTENTS = st.integers(0, 2)
ARCHIVES = st.sampled_from(["main", "other"])


@dataclass
class Row:
    id: int
    archive: str
    study: str
    instance: str
    data: bytes
    size: int
    due: float
    state: State = State.TODO
    attempts: int = 0
    owner: int = 0  # 0 or 1: which of the two processes; -1 none
    replaces: bool = False


class OutboxMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outbox"))
        self.now = 1_000_000.0
        self.rows: dict[int, Row] = {}
        self.holds: set[str] = set()
        # Two processes share the folder.
        self.open = [self.enter(), self.enter()]

    def enter(self) -> Outbox:
        return Outbox(self.folder, LIMITS, clock=lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "open"):
            for outbox in self.open:
                outbox.close()
            shutil.rmtree(self.folder)

    def waiting_state(self, study: str) -> State:
        return State.HELD if study in self.holds else State.TODO

    def lapse(self) -> None:
        for row in self.rows.values():
            if row.state is State.LEASED and row.due <= self.now:
                row.state, row.owner = self.waiting_state(row.study), -1

    def ours(self, who: int) -> list[Row]:
        return [row for row in self.rows.values() if row.state is State.LEASED and row.owner == who]

    @rule(who=st.integers(0, 1), archive=ARCHIVES, study=STUDIES, instance=INSTANCES, seed=CONTENTS,
          policy=st.sampled_from(["keep", "replace", "reject"]))  # fmt: skip
    def put(self, who: int, archive: str, study: str, instance: int, seed: int, policy: str) -> None:
        what = arrival(f"{study}.1.{instance}", study=study, archive=archive)
        data = content(seed, 100 + seed)
        known = next((r for r in self.rows.values() if (r.archive, r.instance) == (archive, what.sop_instance)), None)
        receipt = put(self.open[who], what, data, policy)  # type: ignore[arg-type]
        if known is not None and known.state is State.DONE and self.now >= known.due + LIMITS.repeat_window:
            del self.rows[known.id]
            known = None
        if known is None:
            assert receipt is Receipt.QUEUED
        elif known.data == data:
            assert receipt is Receipt.DUPLICATE
        else:
            wanted = {"keep": Receipt.KEPT, "replace": Receipt.REPLACED, "reject": Receipt.REJECTED}
            assert receipt is wanted[policy]
        if receipt not in (Receipt.QUEUED, Receipt.REPLACED):
            return
        if known is not None:
            del self.rows[known.id]
        (found,) = [e for e in self.open[0].entries(study, archive) if e.id not in self.rows]
        not_before = known.due if known is not None and known.state is State.LEASED else 0.0
        assert found.due == not_before or (not_before <= self.now and self.now - 600 <= found.due <= self.now)
        replaces = known is not None and (known.attempts > 0 or known.replaces)
        self.rows[found.id] = Row(
            found.id,
            archive,
            study,
            what.sop_instance,
            data,
            found.size,
            found.due,
            self.waiting_state(study),
            replaces=replaces,
        )

    @rule(who=st.integers(0, 1), archive=ARCHIVES, study=STUDIES)
    def put_a_series(self, who: int, archive: str, study: str) -> None:
        for instance in range(3):
            self.put(who, archive, study, instance, 0, "keep")

    @rule(who=st.integers(0, 1))
    def claim_all(self, who: int) -> None:
        for archive in ("main", "other"):
            self.claim(who, archive, 4, 10**9)

    @rule(who=st.integers(0, 1), study=STUDIES, instance=INSTANCES, seed=CONTENTS)
    def begin_and_give_up(self, who: int, study: str, instance: int, seed: int) -> None:
        with receive(self.open[who], arrival(f"{study}.1.{instance}", study=study), content(seed)):
            pass

    @rule(who=st.integers(0, 1), archive=ARCHIVES, count=st.integers(1, 4), most=st.sampled_from([1, 1200, 10**9]))
    def claim(self, who: int, archive: str, count: int, most: int) -> None:
        claimed = self.open[who].claim(archive, count=count, max_bytes=most, lease=LEASE)
        due = [r for r in self.rows.values() if r.state is State.TODO and r.archive == archive and r.due <= self.now]
        lapsed = [r for r in self.rows.values() if r.state is State.LEASED and r.due <= self.now]
        if due or lapsed:
            self.lapse()
        ready = sorted(
            (r for r in self.rows.values() if r.state is State.TODO and r.archive == archive and r.due <= self.now),
            key=lambda r: (r.due, r.id),
        )
        expected, room = [], most
        for row in ready[:count]:
            room -= row.size
            if expected and room < 0:
                break
            expected.append(row)
        assert [entry.id for entry in claimed] == [row.id for row in expected]
        for row, entry in zip(expected, claimed, strict=True):
            row.state, row.owner, row.due, row.attempts = State.LEASED, who, self.now + LEASE, row.attempts + 1
            assert data_set(entry.extent) == row.data
            assert entry.digest == digest(row.data)
            assert (entry.attempts, entry.replaces, entry.due) == (row.attempts, row.replaces, row.due)

    @precondition(lambda self: any(r.state is State.LEASED for r in self.rows.values()))
    @rule(data=st.data(), who=st.integers(0, 1))
    def done(self, data: st.DataObject, who: int) -> None:
        # Even who lost the lease may say so.
        leased = [r for r in self.rows.values() if r.state is State.LEASED]
        chosen = data.draw(st.lists(st.sampled_from(leased), unique_by=lambda r: r.id, min_size=1))
        self.open[who].done([row.id for row in chosen])
        for row in chosen:
            row.state, row.due, row.owner = State.DONE, self.now, -1
        over = sorted((r for r in self.rows.values() if r.state is State.DONE), key=lambda r: (r.due, r.id))
        for row in [r for r in over if r.due < self.now - LIMITS.keep_done]:
            del self.rows[row.id]
            over.remove(row)
        for row in over[: max(0, len(over) - LIMITS.keep_done_entries)]:
            del self.rows[row.id]

    @precondition(lambda self: any(r.state is State.LEASED for r in self.rows.values()))
    @rule(data=st.data(), mine=st.sampled_from([True, True, False]), wait=st.integers(0, 200),
          how=st.sampled_from(["retry", "set aside", "give back", "renew"]))  # fmt: skip
    def settle(self, data: st.DataObject, mine: bool, how: str, wait: int) -> None:
        row = data.draw(st.sampled_from([r for r in self.rows.values() if r.state is State.LEASED]))
        outbox = self.open[row.owner if mine else 1 - row.owner]
        if how == "retry":
            assert outbox.retry(row.id, self.now + wait, "why") == mine
            if mine:
                row.state, row.due, row.owner = self.waiting_state(row.study), self.now + wait, -1
        elif how == "set aside":
            assert outbox.set_aside(row.id, "why") == mine
            if mine:
                row.state, row.due, row.owner = State.SET_ASIDE, self.now, -1
        elif how == "renew":
            assert outbox.renew([row.id], LEASE) == ({row.id} if mine else set())
            if mine:
                row.due = self.now + LEASE
        else:
            outbox.give_back([row.id])
            if mine:
                row.state, row.attempts, row.owner = self.waiting_state(row.study), row.attempts - 1, -1
                (found,) = [e for e in outbox.entries(row.study, row.archive) if e.id == row.id]
                assert found.due <= self.now
                row.due = found.due

    @rule(study=STUDIES)
    def hold(self, study: str) -> None:
        waiting = [r for r in self.rows.values() if r.study == study and r.state is State.TODO]
        assert self.open[0].hold(study) == len(waiting)
        self.holds.add(study)
        for row in waiting:
            row.state, row.due = State.HELD, self.now

    @rule(study=STUDIES)
    def release(self, study: str) -> None:
        held = [r for r in self.rows.values() if r.study == study and r.state is State.HELD]
        assert self.open[1].release(study) == len(held)
        self.holds.discard(study)
        found = {entry.id: entry.due for entry in self.open[1].entries(study)}
        for row in held:
            row.state, row.due = State.TODO, found[row.id]
            assert row.due <= self.now

    @rule(study=STUDIES | st.just(""))
    def retry_now(self, study: str) -> None:
        chosen = [
            r
            for r in self.rows.values()
            if study in ("", r.study) and (r.state is State.SET_ASIDE or (r.state is State.TODO and r.due > self.now))
        ]
        assert self.open[0].retry_now(study) == len(chosen)
        found = {entry.id: entry.due for entry in self.open[0].entries()}
        for row in chosen:
            row.state, row.due, row.attempts = self.waiting_state(row.study), found[row.id], min(row.attempts, 1)
            assert row.due <= self.now

    @rule(study=STUDIES)
    def discard(self, study: str) -> None:
        chosen = [r for r in self.rows.values() if r.study == study and r.state is not State.DONE]
        assert self.open[1].discard(study) == len(chosen)
        for row in chosen:
            del self.rows[row.id]

    @rule(seconds=st.sampled_from([1, 30, 61, 101, 501, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(who=st.integers(0, 1), study=STUDIES, how=st.sampled_from(["idle", "half received", "sealed"]))
    def crash(self, who: int, study: str, how: str) -> None:
        what, data = arrival(f"{study}.9", study=study), b"half"
        known = next((row for row in self.rows.values() if row.instance == what.sop_instance), None)
        if how != "idle":
            incoming = receive(self.open[who], what, data)
            place = incoming.place  # in a segment, as if it were long
            if how == "sealed":  # between the sync and its row
                received = Record(incoming.id, what, incoming.size, incoming.offset, incoming.digest, self.now,
                                  *place)  # fmt: skip
                incoming.seal(head(received, "keep"))
            incoming._segment.close()  # type: ignore[union-attr]
        self.open[who].close()
        self.open[who] = self.enter()
        for row in self.ours(who):
            row.due = self.now
        self.lapse()
        is_over = known is not None and known.state is State.DONE and self.now >= known.due + LIMITS.repeat_window
        if how == "sealed" and known is not None and is_over:
            del self.rows[known.id]
            known = None
        if how == "sealed" and known is None:
            (found,) = self.open[who].find(sop_instance=what.sop_instance)
            self.rows[found.id] = Row(
                found.id, "main", study, what.sop_instance, data, found.size, found.due, self.waiting_state(study)
            )

    @rule(puts=st.lists(st.tuples(st.integers(0, 1), STUDIES, INSTANCES, CONTENTS,
          st.sampled_from(["keep", "replace", "reject"])), min_size=1, max_size=4))  # fmt: skip
    def power_cut(self, puts: list[tuple[int, str, int, int, str]]) -> None:
        """Lose what of the database was not synced; the segments are whole."""
        kept = self.folder / "kept"
        kept.mkdir()
        names = [name for name in ("outbox.db", "outbox.db-wal") if (self.folder / name).exists()]
        # by another process: to close a file here would end the locks that SQLite has on it
        subprocess.run(["cp", *(self.folder / name for name in names), kept], check=True)
        for who, study, instance, seed, policy in puts:
            self.now += 0.001  # what came when decides who replaces whom
            self.put(who, "main", study, instance, seed, policy)
        for outbox in self.open:
            outbox.close()
        for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        for name in names:
            (kept / name).rename(self.folder / name)
        kept.rmdir()
        self.open = [self.enter(), self.enter()]
        found = {entry.id: entry.due for entry in self.open[0].entries()}
        for row in self.rows.values():
            if row.state is State.LEASED:
                row.due = self.now
            elif row.state in (State.TODO, State.HELD) and row.id in found:
                # it no longer waits for a lease of another, and another row of its study may have told its place
                assert found[row.id] <= max(row.due, self.now)
                row.due = found[row.id]
        self.lapse()

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "open"):
            return
        outbox = self.open[0]
        found = {entry.id: entry for entry in outbox.entries()}
        assert found.keys() == self.rows.keys()
        for row in self.rows.values():
            entry = found[row.id]
            assert (entry.state, entry.due, entry.attempts) == (row.state, row.due, row.attempts), row
        undelivered = [row for row in self.rows.values() if row.state is not State.DONE]
        statistics = outbox.statistics()
        assert statistics.entries == len(undelivered)
        assert statistics.bytes == sum(row.size for row in undelivered)
        for total in statistics.totals:
            same = [r for r in self.rows.values() if (r.archive, r.state) == (total.archive, total.state)]
            assert total.entries == len(same)
        assert statistics.oldest.keys() == {row.archive for row in undelivered}
        segments = {path.name for path in self.folder.glob("*.seg") if has_data(path)}
        assert segments == {found[row.id].extent.path.name for row in undelivered}
        assert sorted(records_in(self.folder)) == sorted(row.instance for row in undelivered)
        assert list((self.folder / "incoming").iterdir()) == []
        for summary in outbox.studies():
            mine = [r for r in self.rows.values() if (r.study, r.archive) == (summary.study, summary.archive)]
            assert summary.todo + summary.leased + summary.held + summary.set_aside + summary.done == len(mine)


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
