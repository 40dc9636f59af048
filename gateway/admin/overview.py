"""Gather what the status page shows, as plain rows."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway import metrics
from gateway.admin.advice import advice
from gateway.admin.chart import MINUTES, Chart, chart
from gateway.admin.health import Check, checks
from gateway.admin.parts import Parts
from gateway.admin.watch import Probe
from gateway.metrics import Key
from gateway.outbox import State, Statistics, StudyState
from gateway.recent import Passed, Refusal

MOST_STUDIES = 50
_MOST_REFUSALS = 20
_NO_FAILURE = frozenset(("0000", "FE00", "0001", "0107", "0116"))  # success, cancel, warnings (PS3.7 C); B... too


@dataclass(frozen=True, slots=True)
class StudyRow:
    """Say where a study stands; `counts` are its instances in words, `actions` what the operator can do."""

    study: str
    archive: str
    state: str
    counts: str
    bytes: int
    last: float
    reason: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerRow:
    """Say what is known of a peer; times in s since 1970, `last` 0 for never."""

    title: str
    address: str
    last: float
    open: int
    operations: int
    failed: int
    services: str
    can_be_called: bool


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """Say how an archive does; `waiting` instances and `bytes` in the outbox, `age` of the oldest in seconds."""

    name: str
    state: str
    detail: str
    circuit: str
    latencies: str
    waiting: int
    set_aside: int
    held: int
    bytes: int
    age: float
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """Add to a refusal the lines for config.yaml."""

    refusal: Refusal
    advice: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Hold all that changes on the page."""

    checks: list[Check]
    archives: list[ArchiveRow]
    studies: list[StudyRow]
    peers: list[PeerRow]
    refusals: list[RefusalRow]
    chart: Chart
    associations: int


def overview(parts: Parts, probes: Mapping[str, Probe]) -> Overview:
    """Look at everything; raises SpoolBroken when the spool cannot be read."""
    totals, now = parts.metrics.total(), int(time.time() // 60)
    found = checks(parts, dict(probes))
    statistics = parts.outbox.statistics()
    associations = sum(value for _, value in metrics.values(totals, metrics.ASSOCIATIONS_OPEN))
    return Overview(
        checks=found,
        archives=list(_archives(parts, found, totals, statistics)),
        studies=_studies(parts),
        peers=_peers(parts, totals),
        refusals=[RefusalRow(one, advice(one, parts.config)) for one in parts.recent.refusals()[:_MOST_REFUSALS]],
        chart=chart(parts.recent.minutes(now - MINUTES), now),
        associations=round(associations),
    )


def _archives(
    parts: Parts, found: list[Check], totals: Mapping[Key, float], statistics: Statistics
) -> Iterator[ArchiveRow]:
    by_name = {check.name: check for check in found}
    circuits = dict(metrics.values(totals, metrics.CIRCUIT_OPEN))
    latencies: dict[str, list[str]] = defaultdict(list)
    for (archive, operation), seconds in sorted(metrics.means(totals, metrics.REQUEST_SECONDS).items()):
        latencies[archive].append(f"{operation} {seconds * 1000:.0f} ms")
    now, holds = time.time(), parts.outbox.holds()
    for name in sorted({*parts.archives, *(total.archive for total in statistics.totals)}):
        check = by_name.get(f"archive {name}", Check(name, "warning", "is not in the configuration any more"))
        counts = dict.fromkeys(State, 0)
        size = 0
        for total in statistics.totals:
            if total.archive == name:
                counts[total.state] += total.entries
                size += total.bytes if total.state is not State.DONE else 0
        yield ArchiveRow(
            name=name,
            state=check.state,
            detail=check.detail,
            circuit="delivery pauses" if circuits.get((name,)) else "delivery runs",
            latencies=", ".join(latencies[name]),
            waiting=counts[State.TODO] + counts[State.LEASED],
            set_aside=counts[State.SET_ASIDE],
            held=counts[State.HELD],
            bytes=size,
            age=max(0.0, now - statistics.oldest.get(name, now)),
            actions=("release",) if ("", name) in holds else ("retry", "hold") if size else ("hold",),
        )


def _studies(parts: Parts) -> list[StudyRow]:
    """List what needs the operator first, then what moved last."""
    rows = [_queued(one) for one in parts.outbox.latest(MOST_STUDIES)]
    rows += [_passed(one) for one in parts.recent.studies()[:MOST_STUDIES]]
    return sorted(rows, key=lambda row: (row.state not in _TROUBLE, -row.last))[:MOST_STUDIES]


_TROUBLE = ("set aside", "held")


def _queued(study: StudyState) -> StudyRow:
    counts = {
        "set aside": study.set_aside,
        "held": study.held,
        "delivering": study.leased,
        "received": study.todo,
        "archived": study.done,
    }
    actions = [
        name
        for name, possible in (
            ("retry", study.set_aside or study.todo),
            ("hold", study.todo),
            ("release", study.held),
        )
        if possible
    ]
    state = next((name for name, count in counts.items() if count), "archived")
    # what is archived in part is on its way, even if no request is under way at this moment
    state = "delivering" if state == "received" and study.done else state
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return StudyRow(study.study, study.archive, state, words, study.bytes, study.last, study.reason, tuple(actions))


def _passed(study: Passed) -> StudyRow:
    words = f"{study.archived} archived" + (f", {study.failed} refused" if study.failed else "")
    state = "archived" if not study.failed else "refused"
    return StudyRow(study.study, study.archive, state, words, study.bytes, study.last, study.reason, ())


def _peers(parts: Parts, totals: Mapping[Key, float]) -> list[PeerRow]:
    contacts = {contact.title: contact for contact in parts.recent.contacts()}
    open_now = dict(metrics.values(totals, metrics.ASSOCIATIONS_OPEN))
    operations: dict[str, float] = defaultdict(float)
    failed: dict[str, float] = defaultdict(float)
    for (title, _, status), count in metrics.values(totals, metrics.OPERATIONS):
        operations[title] += count
        failed[title] += 0 if status in _NO_FAILURE or status.startswith("B") else count
    rows = []
    for title in {**dict.fromkeys(parts.config.peers), **dict.fromkeys(contacts)}:
        peer, contact = parts.config.peers.get(title), contacts.get(title)
        address = contact.address if contact else ""
        if peer is not None and peer.host:
            address = f"{peer.host}:{peer.port}" if peer.port else peer.host
        rows.append(
            PeerRow(
                title=title,
                address=address,
                last=contact.last if contact else 0.0,
                open=round(open_now.get((title,), 0)),
                operations=round(operations[title]),
                failed=round(failed[title]),
                services=", ".join(sorted(peer.allow)) if peer else "not in peers",
                can_be_called=peer is not None and peer.port is not None,
            )
        )
    return sorted(rows, key=lambda row: (-row.last, row.title))
