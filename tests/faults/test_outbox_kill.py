"""Kill a process that receives from four sides and delivers, again and again; what it acknowledged is all there."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import outbox_victim
import pytest
from spooled import content, data_set, digest

from gateway.outbox import Limits, Outbox, State

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("KILL_ROUNDS", "25"))
RECEIVERS = 4


class Spool:
    """The folder that all victims of a test share, and what they acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "archive").mkdir()
        self.acknowledged: set[str] = set()
        self.unacknowledged: set[str] = set()

    def kill(self, *arguments: str, after: float | None = None) -> None:
        """Start a victim, let it die, note what it acknowledged, and look at what it left."""
        command = [sys.executable, str(ROOT / "tests" / "outbox_victim.py"), str(self.folder), *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        victim = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        try:
            assert victim.stdout is not None
            if after is not None:
                first = victim.stdout.readline()
                time.sleep(after)
                victim.kill()
                output = first + victim.stdout.read()
            else:
                output = victim.communicate(timeout=60)[0]
            assert victim.wait(60) == -signal.SIGKILL
        finally:
            victim.kill()
            victim.wait()
            victim.stdout.close()
        lines = output.decode().split("\n")
        assert lines.pop() == ""
        self.acknowledged |= set(lines)
        self.look()

    def archived(self) -> set[str]:
        return {path.name for path in (self.folder / "archive").glob("9.*")}

    def look(self) -> None:
        """Open the spool as the next process does, and compare it with what was acknowledged."""
        with Outbox(self.folder / "spool", Limits(high_water=1)) as outbox:
            rows = list(outbox.entries())
        waiting = [row for row in rows if row.state is not State.DONE]
        assert {row.state for row in waiting} <= {State.TODO}
        for row in waiting:
            data = data_set(row.extent)
            assert digest(data) == row.digest
            assert data == content(*outbox_victim.seed(row.sop_instance))
        segments = {path.name for path in (self.folder / "spool").glob("*.seg")}
        assert segments == {row.extent.path.name for row in waiting}
        assert list((self.folder / "spool" / "incoming").iterdir()) == []
        known = {row.sop_instance for row in waiting} | self.archived()
        assert self.acknowledged <= known
        # What each receiver had committed, but not yet said, when it died.
        more = {row.sop_instance for row in rows} - self.acknowledged - self.unacknowledged
        assert len(more) <= RECEIVERS
        self.unacknowledged |= more

    def drain(self) -> None:
        """Deliver the rest; the archive has each once, byte for byte."""
        with Outbox(self.folder / "spool", Limits(high_water=1)) as outbox:
            while entries := outbox.claim("main", count=50, max_bytes=10**9, lease=60):
                for entry in entries:
                    outbox_victim.archive(self.folder, entry)
                outbox.done([entry.id for entry in entries])
            assert outbox.statistics().entries == 0
        assert list((self.folder / "spool").glob("*.seg")) == []
        archived = self.archived()
        assert self.acknowledged <= archived
        assert archived <= self.acknowledged | self.unacknowledged
        for name in archived:
            assert (self.folder / "archive" / name).read_bytes() == content(*outbox_victim.seed(name))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_a_process_killed_at_any_step_loses_nothing_it_acknowledged(spool: Spool) -> None:
    chance = random.Random(7)
    for number, point in enumerate(outbox_victim.POINTS):
        spool.kill(str(number), point, str(chance.randint(3, 25)))
    assert len(spool.acknowledged) > len(outbox_victim.POINTS)
    spool.drain()


def test_a_process_killed_at_any_time_loses_nothing_it_acknowledged(spool: Spool) -> None:
    chance = random.Random(11)
    for number in range(ROUNDS):
        spool.kill(str(number), after=chance.uniform(0, 0.2))
    assert len(spool.acknowledged) > 4 * ROUNDS
    spool.drain()
