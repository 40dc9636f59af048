"""Senders that go on whatever happens to the gateway, and what they were told: for tests that kill it under load."""

import itertools
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from bench import wire
from bench.instances import SOP_CLASS, Batch
from spooled import content

from gateway.translate.multipart import boundary_of, split

SIZES = (2_000, 20_000, 70_000, 250_000)


class Sender:
    """Store instance after instance; one without an answer is sent again, or, every other time, given up.

    It rests for `pause` seconds after each, and for a moment when the gateway is not there.
    """

    def __init__(self, port: int, number: int, *, called: str = "GATEWAY", pause: float = 0) -> None:
        self.port, self.called, self.pause = port, called, pause
        self.batch = Batch(run=200 + number, count=0, size=SIZES[number % len(SIZES)], studies=3)
        self.acknowledged: list[int] = []
        self.sent = 0
        self.statuses: set[int] = set()
        self.rejected = False
        self._over = threading.Event()

    def data_set(self, number: int) -> bytes:
        header = self.batch._header(number)
        return header + content((self.batch.run, number), self.batch.size - len(header))

    def uid(self, number: int) -> str:
        return self.batch._uid(3, number)

    def end(self) -> None:
        """Send nothing more."""
        self._over.set()

    def run(self) -> None:
        unanswered = itertools.count()
        while not self._over.is_set():
            try:
                self._send_until_it_breaks()
            except (OSError, wire.WireError) as error:
                self.rejected = self.rejected or "refused:" in str(error)
                self.sent += next(unanswered) % 2
                self._over.wait(0.02)

    def _send_until_it_breaks(self) -> None:
        contexts = [(SOP_CLASS, wire.EXPLICIT_LE)]
        connection = wire.associate("127.0.0.1", self.port, self.called, f"SENDER{self.batch.run}", contexts)
        try:
            while not self._over.is_set():
                status = wire.store(connection, 1, SOP_CLASS, self.uid(self.sent), self.data_set(self.sent))
                self.statuses.add(status)
                if status == 0x0000:
                    self.acknowledged.append(self.sent)
                self.sent += 1
                self._over.wait(self.pause)
            wire.release(connection)
        finally:
            connection.close()


def store(port: int, batch: Batch, numbers: Iterable[int] | None = None, *, called: str = "GATEWAY") -> list[int]:
    """Store instances of a batch over one association; give the statuses."""
    connection = wire.associate("127.0.0.1", port, called, "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)])
    statuses = []
    for number in range(batch.count) if numbers is None else numbers:
        pieces = (batch.prefixes[number], batch.tail) if batch.size > 20_000 else (batch.prefixes[number],)
        connection.send(pieces)
        statuses.append(wire.answer(connection))
    wire.release(connection)
    return statuses


@contextmanager
def sending(port: int, senders: int = 4) -> Iterator[list[Sender]]:
    """Send from several associations at once until the end of the `with`."""
    all_of_them = [Sender(port, number) for number in range(senders)]
    threads = [threading.Thread(target=one.run) for one in all_of_them]
    for thread in threads:
        thread.start()
    try:
        yield all_of_them
    finally:
        for one in all_of_them:
            one.end()
        for thread in threads:
            thread.join()


def waiting(spool: Path) -> int:
    """Count what the outbox of a gateway has not delivered."""
    connection = sqlite3.connect(f"file:{spool / 'outbox' / 'outbox.db'}?mode=ro", uri=True, timeout=10)
    try:
        query = "SELECT count(*) FROM entries WHERE state <> 'done'"
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def instances(url: str, batch: Batch) -> list[str]:
    """Give the SOP Instance UIDs that the archive has of a sender's studies, each as often as it is there."""
    found: list[str] = []
    with httpx.Client(headers={"Accept": "application/dicom+json"}, trust_env=False, timeout=30) as client:
        for study in range(batch.studies):
            for offset in itertools.count(0, 100):
                path = f"{url}/studies/{batch._uid(1, study)}/instances?limit=100&offset={offset}"
                answer = client.get(path)
                page = answer.json() if answer.status_code == 200 else []
                found += [row["00080018"]["Value"][0] for row in page]
                if len(page) < 100:
                    break
    return found


def check(url: str, sender: Sender) -> None:
    """Insist that what was acknowledged is there, nothing else than what was sent is, each once, byte for byte."""
    batch, there = sender.batch, instances(url, sender.batch)
    sent = {sender.uid(number): number for number in range(sender.sent + 1)}
    assert len(there) == len(set(there))
    assert {sender.uid(number) for number in sender.acknowledged} <= set(there)
    assert set(there) <= sent.keys()
    stored = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    with httpx.Client(headers=stored, trust_env=False, timeout=30) as client:
        for uid in there:
            number = sent[uid]
            series = batch._uid(2, number % batch.studies * 1_000 + number // batch.studies // 100)
            path = f"{url}/studies/{batch._uid(1, number % batch.studies)}/series/{series}/instances/{uid}"
            answer = client.get(path)
            parts = split([answer.content], boundary_of(answer.headers["Content-Type"]))
            (file,) = [b"".join(part.body) for part in parts]
            assert file[144 + int.from_bytes(file[140:144], "little") :] == sender.data_set(number)
