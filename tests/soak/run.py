"""Run twenty peers against a gateway whose archive and processes fail, and say whether anything was lost or grows.

In the first half anything may fail: the archive is down, answers 503, hangs or is slow; a process of the gateway or
all of them are killed; the gateway is stopped and started, or reloads its configuration. In the second half the
archive goes on so, but only one receiver is killed, so that the growth of the others can be seen.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import processes
import psutil
from bench.load import Sink
from gateway_process import GatewayProcess
from load import Sender, check, waiting
from modality import Modality
from soak import peers
from soak.archive import Archive
from soak.peers import Committer, Peer
from soak.watch import ROLES, Watch, table
from spooled import left_over

_SENDERS = 8
_SPOOLED = 5  # of them; the others wait for the archive
_SAMPLE = 10.0  # seconds between two samples
_LONG = 10.0  # minutes of a run from which growth counts
_DRAIN = 300.0  # seconds
_STOP = 120.0  # seconds for a peer to see that all is over
_UP = '"listening"'


class Soak:
    """Hold the parts of a run."""

    def __init__(self, folder: Path, minutes: float, chance: random.Random) -> None:
        self.chance, self.seconds = chance, minutes * 60
        self.longest = min(40.0, max(3.0, self.seconds / 30))  # of an outage
        self.archive = Archive(folder / "archive", processes.free_port())
        self.sink = Sink()
        self.modalities = [(Modality(0, title=title), processes.free_port()) for title in ("COMMIT1", "COMMIT2")]
        self.gateway = gateway_for(folder, self)
        self.page = f"http://127.0.0.1:{self.gateway.config['admin']['port']}"
        for modality, _ in self.modalities:
            modality.port = self.port
        self.senders = [
            Sender(self.port, number, called="GATEWAY" if number < _SPOOLED else "ARCHIVED", pause=0.5)
            for number in range(_SENDERS)
        ]
        self.committers = [Committer(self.port, one, 50 + at) for at, (one, _) in enumerate(self.modalities)]
        self.watch = Watch(min(_SAMPLE, self.seconds / 60))
        self.events: list[str] = []

    @property
    def port(self) -> int:
        return self.gateway.port

    def peers(self) -> list[Peer]:
        """Give the peers beside the senders; with them they are twenty."""
        port, senders, chance = self.port, self.senders, self.chance
        return [
            *(Peer(f"move {n}", partial(peers.retrieve, port, "SINK", senders, chance), 5) for n in (1, 2, 3)),
            *(Peer(f"get {n}", partial(peers.retrieve, port, "", senders, chance), 5) for n in (1, 2)),
            *(Peer(f"find {n}", partial(peers.find, port, f"FIND{n}", senders, chance), 2) for n in (1, 2)),
            Peer("echo", partial(peers.echo, port, "ECHO"), 1),
            *(Peer(one.modality.title, one.act, 4) for one in self.committers),
            Peer("abort", partial(peers.abort, port, Sender(port, 60), chance), 2),
            Peer("silent", partial(peers.stay_silent, port, chance), 1),
        ]


def gateway_for(folder: Path, soak: Soak) -> GatewayProcess:
    far = {
        "url": soak.archive.url,
        "profile": "embedded",
        "connect_timeout": 2,
        "read_timeout": 10,
        "delivery": {"connections": 2, "retry_first": 0.5, "retry_longest": 5},
    }
    known = {one.title: {"host": "127.0.0.1", "port": port} for one, port in soak.modalities}
    return GatewayProcess(
        folder / "gateway",
        listen={"workers": 2, "port": processes.free_port(), "idle_timeout": 20, "negotiation_timeout": 10},
        archives={"far": far},
        ae_titles={
            "GATEWAY": {"archive": "far", "acknowledge": "spooled"},
            "ARCHIVED": {"archive": "far", "acknowledge": "archived"},
        },
        peers={"SINK": {"host": "127.0.0.1", "port": soak.sink.port}, **known},
        unknown_peers="accept",
        admin={"port": processes.free_port()},
        log={"format": "json"},
    )


# -- what goes wrong


def outage(soak: Soak, fault: str) -> None:
    soak.archive.say(fault)
    time.sleep(soak.chance.uniform(1, soak.longest))
    soak.archive.say("well")


def archive_down(soak: Soak) -> None:
    soak.archive.kill()
    time.sleep(soak.chance.uniform(1, soak.longest))
    soak.archive.start()


def kill_one(soak: Soak, roles: Sequence[str]) -> None:
    process = soak.watch.process(soak.chance.choice(roles))
    if process is not None:
        with suppress(psutil.NoSuchProcess):  # it may just have ended by itself
            process.kill()


def start_again(soak: Soak, end: Callable[[], object]) -> None:
    lives = soak.gateway.log.count(_UP)
    end()
    soak.gateway.__exit__(None, None, None)
    start(soak, lives)


def start(soak: Soak, lives: int = 0) -> None:
    soak.gateway.__enter__()
    processes.await_true(lambda: soak.gateway.log.count(_UP) > lives, 60, "every process")
    soak.watch.follow(soak.gateway.pid)


def reload(soak: Soak) -> None:
    soak.watch.forget()
    os.kill(soak.gateway.pid, signal.SIGHUP)


_ARCHIVE: dict[str, Callable[[Soak], None]] = {
    "503": partial(outage, fault="503"),
    "hang": partial(outage, fault="hang"),
    "down": archive_down,
    "slow": partial(outage, fault="slow"),
}
_FIRST_HALF = {
    "kill a process": partial(kill_one, roles=ROLES),
    "503": _ARCHIVE["503"],
    "kill all": lambda soak: start_again(soak, soak.gateway.kill),
    "hang": _ARCHIVE["hang"],
    "down": archive_down,
    "reload": reload,
    "kill another process": partial(kill_one, roles=ROLES),
    "stop": lambda soak: start_again(soak, soak.gateway.stop),
    "slow": _ARCHIVE["slow"],
}
_SECOND_HALF = {**_ARCHIVE, "kill a receiver": partial(kill_one, roles=ROLES[-1:])}


def disturb(soak: Soak) -> None:
    """Have something go wrong again and again until the time is over."""
    begun = time.monotonic()
    for deck, until in ((_FIRST_HALF, soak.seconds / 2), (_SECOND_HALF, soak.seconds)):
        for name in itertools.cycle(deck):
            if time.monotonic() - begun > until:
                break
            soak.events.append(name)
            print(f"{(time.monotonic() - begun) / 60:5.1f} min: {name}", file=sys.stderr, flush=True)
            deck[name](soak)
            time.sleep(soak.chance.uniform(0.5, soak.longest / 2))


def look_at_page(soak: Soak) -> str:
    """Ask what a browser and Prometheus ask."""
    for path in ("/", "/metrics", "/health/ready"):
        try:
            httpx.get(soak.page + path, trust_env=False, timeout=60)
        except httpx.HTTPError as error:
            raise OSError(path) from error  # it was killed
    return "asked"


# -- the verdict


def faults(soak: Soak, others: Sequence[Peer]) -> Iterator[str]:
    """Name everything that must not be, once the load is over."""
    for peer in others:
        yield from peer.wrong
    spool = Path(soak.gateway.config["spool"]["folder"])
    yield from _awaited("the outbox is not empty", lambda: waiting(spool) == 0)
    for committer in soak.committers:
        yield from _uncommitted(committer)
        yield from _lost(soak.archive.url, committer.sender)
    for sender in soak.senders:
        yield from _lost(soak.archive.url, sender)
    if code := soak.gateway.stop():
        yield f"the gateway ended with exit code {code}"
    if left := [*left_over(spool / "outbox"), *(spool / "outbox" / "incoming").iterdir()]:
        yield f"{len(left)} files are left in the spool"
    yield from (line for line in soak.gateway.log.splitlines() if "Traceback" in line)
    if soak.seconds >= _LONG * 60:
        yield from (f"{life.role} grows" for life in soak.watch.longest() if life.grows())


def _uncommitted(committer: Committer) -> Iterator[str]:
    title = committer.modality.title
    yield from _awaited(f"{title} waits for reports", lambda: not committer.unreported)
    yield from (f"{title} was refused: {report.failed}" for report in committer.modality.reports if report.failed)


def _lost(url: str, sender: Sender) -> Iterator[str]:
    title = f"sender {sender.batch.run} of {sender.called}"
    try:
        check(url, sender)
    except AssertionError:
        yield f"{title}: {traceback.format_exc(limit=-1)}"
    if sender.called == "GATEWAY" and sender.statuses - {0}:
        yield f"{title} had the statuses {sender.statuses}"


def _awaited(what: str, condition: Callable[[], bool]) -> Iterator[str]:
    try:
        processes.await_true(condition, _DRAIN)
    except TimeoutError:
        yield what


def soak(folder: Path, minutes: float, chance: random.Random) -> list[str]:
    """Run it, print what came of it and give the faults."""
    with ExitStack() as stack:
        run = Soak(folder, minutes, chance)
        run.archive.start()
        stack.callback(run.archive.kill)
        stack.enter_context(run.sink)
        for modality, port in run.modalities:
            stack.enter_context(modality.listening(port))
        stack.callback(run.gateway.__exit__, None, None, None)
        start(run)
        stack.enter_context(run.watch)
        others = [*run.peers(), Peer("page", partial(look_at_page, run), 3)]
        sending = [threading.Thread(target=sender.run, name=f"send {at}") for at, sender in enumerate(run.senders)]
        for thread in (*others, *sending):
            thread.start()
        disturb(run)
        for one in (*others, *run.senders):
            one.end()
        stuck = [f"{thread.name} is still waiting" for thread in (*others, *sending) if not _joined(thread)]
        found = [*stuck, *faults(run, others)]
        report(run, others, found)
    return found


def _joined(thread: threading.Thread) -> bool:
    thread.join(_STOP)
    return not thread.is_alive()


def report(run: Soak, others: Sequence[Peer], found: Sequence[str]) -> None:
    for peer in others:
        print(f"{peer.name}: {', '.join(f'{what} {count}' for what, count in peer.outcomes.most_common())}")
    senders = [*run.senders, *(one.sender for one in run.committers)]
    stored = sum(len(sender.acknowledged) for sender in senders)
    committed = sum(len(one.accepted) for one in run.committers)
    events = ", ".join(f"{name} {run.events.count(name)}" for name in dict.fromkeys(run.events))
    print(f"\nWhat went wrong on purpose: {events}.\n")
    print(f"{run.seconds / 60:.0f} minutes: {stored:,} instances acknowledged, {committed:,} commitments reported,")
    print(f"{run.sink.instances:,} instances moved. " + ("Faults:" if found else "Nothing lost, nothing wrong."))
    print("".join(f"- {fault}\n" for fault in found))
    print(table(run.watch.longest()))
    print("\nThe longest life of each process; medians of its first third (without a minute), and of its last.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where everything is written, in place of the system's /tmp")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=given.folder) as folder:
        found = soak(Path(folder), given.minutes, random.Random(given.seed))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
