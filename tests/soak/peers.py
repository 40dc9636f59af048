"""Twenty peers that go on whatever happens to the gateway, and say which of its answers were wrong."""

import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import retrieving
from bench import wire
from bench.instances import SOP_CLASS, studies_of
from find_client import Query
from load import Sender
from modality import Modality, action, references

_SERIES = 100  # instances of a Sender in one series
_PATIENCE = 60  # seconds after which a peer takes the gateway for dead
_LONGEST_ASKED = 100  # seconds; pynetdicom's own limits together are shorter
_VERIFICATION = "1.2.840.10008.1.1"
_ECHO_RQ = 0x0030


class Wrong(Exception):
    """Say what the gateway must never answer."""


class Peer(threading.Thread):
    """Do one thing again and again, with a pause of about `pause` seconds; `outcomes` counts what came of it."""

    def __init__(self, name: str, act: Callable[[], str], pause: float) -> None:
        super().__init__(name=name, daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._act, self._pause = act, pause
        self._chance = random.Random(name)
        self._over = threading.Event()

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self.outcomes[self._act()] += 1
            except Wrong as error:
                self.wrong.append(f"{self.name}: {error}")
            except (OSError, wire.WireError, AssertionError):  # the gateway was killed, or has no room
                self.outcomes["broken off"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the run has to say so
                self.wrong.append(f"{self.name}: {type(error).__name__}: {error}")
            self._over.wait(self._chance.uniform(0.5, 1.5) * self._pause)


def echo(port: int, calling: str) -> str:
    with contextlib.closing(_associate(port, calling, (_VERIFICATION, wire.IMPLICIT_LE))) as connection:
        body = (
            wire.element(0x0002, wire.uid(_VERIFICATION))
            + wire.element(0x0100, _ECHO_RQ.to_bytes(2, "little"))
            + wire.element(0x0110, b"\1\0")
            + wire.element(0x0800, b"\1\1")
        )
        request = wire.element(0, len(body).to_bytes(4, "little")) + body
        connection.send((wire.p_data(1, request, 16_384, is_command=True),))
        status = wire.answer(connection)
        wire.release(connection)
    if status:
        raise Wrong(f"C-ECHO is answered with {status:04X}H")
    return "0000"


def find(port: int, calling: str, senders: Sequence[Sender], chance: random.Random) -> str:
    """Ask for the studies of the day; with success all are there that the archive confirmed before."""
    stored = {
        sender.batch._uid(1, number % sender.batch.studies)
        for sender in senders
        if sender.called == "ARCHIVED"
        for number in sender.acknowledged[:100]
    }
    with Query(port, studies_of("20240101"), calling=calling) as query:
        query._connection.sock.settimeout(_PATIENCE)
        if chance.random() < 0.2:
            return "left"
        *matches, last = query.responses()
    missing = [uid for uid in stored if not any(uid.encode() in match.identifier for match in matches)]
    if last.status == 0 and missing:
        raise Wrong(f"C-FIND does not find {len(missing)} of {len(stored)} studies and says success")
    return f"{last.status:04X}"


def retrieve(port: int, destination: str, senders: Sequence[Sender], chance: random.Random) -> str:
    """Move a series, or get it without a destination; with success everything acknowledged before has come."""
    sender = chance.choice(senders)
    batch, stored = sender.batch, list(sender.acknowledged)
    if not stored:
        return "nothing there"

    def place(number: int) -> tuple[int, int]:
        return number % batch.studies, number // batch.studies // _SERIES

    study, series = place(chance.choice(stored))
    keys = {
        "QueryRetrieveLevel": "SERIES",
        "StudyInstanceUID": batch._uid(1, study),
        "SeriesInstanceUID": batch._uid(2, study * 1_000 + series),
    }
    if destination:
        retrieval = retrieving.move(port, destination, calling="MOVER", **keys)
    else:
        retrieval = retrieving.get(port, [(SOP_CLASS, wire.EXPLICIT_LE)], **keys)
    with contextlib.closing(retrieval.connection):
        retrieval.connection.sock.settimeout(_PATIENCE)
        last = retrieval.all()[-1]
    there = sum(place(number) == (study, series) for number in stored)
    if last.status == 0 and last.counters["completed"] < there:
        raise Wrong(f"{last.counters['completed']} of {there} instances came, and the status is success")
    return f"{last.status:04X}"


class Committer:
    """Store a few instances and ask for storage commitment; every request that is taken has its report some day."""

    def __init__(self, port: int, modality: Modality, number: int) -> None:
        self.modality = modality
        self.accepted: list[str] = []
        self.sender = Sender(port, number)
        self._chance = random.Random(number)

    def act(self) -> str:
        sender, uids = self.sender, []
        contexts = [(SOP_CLASS, wire.EXPLICIT_LE)]
        with contextlib.closing(_associate(sender.port, self.modality.title, *contexts)) as connection:
            for number in range(sender.sent, sender.sent + 3):
                sender.sent += 1
                uids.append(sender.uid(number))
                if wire.store(connection, 1, SOP_CLASS, uids[-1], sender.data_set(number)) == 0:
                    sender.acknowledged.append(number)
                else:
                    return "not stored"
            wire.release(connection)
        answer: Future[str] = Future()
        threading.Thread(target=self._ask, args=(uids, answer), daemon=True).start()
        try:
            return answer.result(_LONGEST_ASKED)
        except TimeoutError:  # its threads wait for each other for ever when a connection breaks at the wrong time
            return "pynetdicom hangs"

    def _ask(self, uids: Sequence[str], answer: Future[str]) -> None:
        request = references(*((SOP_CLASS, uid) for uid in uids))
        try:
            with self.modality.association() as association:
                status = action(association, request)
                if status == 0:
                    self.accepted.append(str(request.TransactionUID))
                threading.Event().wait(self._chance.choice((0, 2)))  # so that some reports come on this association
        except Exception as error:  # noqa: BLE001 - it is for who waits
            answer.set_exception(error)
        else:
            answer.set_result(f"{status:04X}")

    @property
    def unreported(self) -> list[str]:
        return sorted(set(self.accepted) - {report.transaction for report in self.modality.reports})


def abort(port: int, sender: Sender, chance: random.Random) -> str:
    """Break off in the middle of an instance."""
    connection = _associate(port, "ABORTER", (SOP_CLASS, wire.EXPLICIT_LE))
    with contextlib.closing(connection):
        uid, data = f"{sender.uid(0)}.{chance.randint(1, 1 << 30)}", sender.data_set(0)
        request = wire.command(wire.C_STORE, 1, SOP_CLASS, wire.element(0x1000, wire.uid(uid)))
        connection.send((wire.p_data(1, request, 16_384, is_command=True),))
        whole = wire.p_data(1, data, 16_384, is_command=False)
        connection.send((whole[: chance.randint(0, len(whole) - 1)],))
        if chance.random() < 0.5:
            connection.send((b"\7\0\0\0\0\4\0\0\0\0",))
    return "broken off on purpose"


def stay_silent(port: int, chance: random.Random) -> str:
    """Open a connection or an association and say nothing until the gateway ends it."""
    if chance.random() < 0.5:
        sock = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    else:
        sock = _associate(port, "SILENT", (_VERIFICATION, wire.IMPLICIT_LE)).sock
    with sock:
        sock.settimeout(_PATIENCE)
        while sock.recv(4096):
            pass
    return "shown out"


def _associate(port: int, calling: str, *contexts: tuple[str, str]) -> wire.Connection:
    connection = wire.associate("127.0.0.1", port, "GATEWAY", calling, contexts)
    connection.sock.settimeout(_PATIENCE)
    return connection
