"""What a service knows of the association it works for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import structlog

from gateway.cache import RecentObjects
from gateway.config import Config, Peer
from gateway.delivery import Uploader
from gateway.dicomweb.client import Client
from gateway.dimse.association import Association, Message
from gateway.dimse.auditing import Account
from gateway.dimse.backlog import Backlog
from gateway.dimse.records import Records
from gateway.dimse.rejecting import Rejecting
from gateway.dimse.reports import Reports
from gateway.dimse.scratch import Scratch
from gateway.dimse.shares import Shares
from gateway.outbox import Duplicates, Outbox
from gateway.translate.search import Negotiated, Search

log = structlog.get_logger("gateway.dimse")


@dataclass(frozen=True, slots=True)
class Route:
    """Say what a called AE title stands for: the archive `name`, how it is asked, and how instances get there."""

    name: str
    client: Client
    uploader: Uploader
    acknowledge: Literal["archived", "spooled"]
    duplicates: Duplicates
    max_scanned: int
    recent: RecentObjects
    rejecting: Rejecting | None = None
    """What rejection notes do here; None where they do nothing."""


@dataclass(frozen=True, slots=True)
class Session:
    """Hold an established association with its parties, where it leads and what was negotiated."""

    association: Association
    config: Config
    calling: str
    called: str
    address: str
    peer: Peer
    route: Route
    outbox: Outbox
    negotiated: Mapping[str, Negotiated]
    reports: Reports
    shares: Shares
    account: Account
    records: Records
    name: str

    @property
    def correlation(self) -> str:
        """Name the association, and within an operation that one, in the log and towards the archive."""
        number = self.association.operation
        return self.name if number is None else f"{self.name}.{number}"

    @property
    def archive(self) -> Client:
        """Give the archive's client, whose requests name this session."""
        return self.route.client.correlated(self.correlation)

    @property
    def uploader(self) -> Uploader:
        """Give what stores in the archive, with requests that name this session."""
        return self.route.uploader.correlated(self.correlation)

    def scratch(self) -> Scratch:
        """Give room for instances on their way."""
        return Scratch(self.outbox.scratch, self.shares.places)

    def backlog(self, search: Search) -> Backlog:
        """Give what a search finds of what waits for the archive."""
        rejecting = self.route.rejecting
        return Backlog(
            self.outbox,
            self.shares.headers,
            self.route.name,
            search,
            self.route.max_scanned,
            hidden=rejecting.hidden if rejecting is not None else None,
        )

    def negotiated_for(self, message: Message) -> Negotiated:
        """Give what was negotiated for the message's SOP class; baseline when nothing was."""
        return self.negotiated.get(message.context.abstract_syntax, Negotiated())


Handler = Callable[[Session, Message], None]


class Report:
    """Collect what the log line of one operation says."""

    def __init__(self) -> None:
        self.fields: dict[str, str | int | float] = {}

    def note(self, **fields: str | float) -> None:
        """Add fields; never patient data."""
        self.fields.update(fields)


@contextmanager
def operation(session: Session, service: str) -> Iterator[Report]:
    """Log one line at the end of an operation: who, what, how it ended and how long it took."""
    report, begun = Report(), monotonic()
    try:
        yield report
    finally:
        status = report.fields.pop("status", None)
        failed = isinstance(status, int) and status not in (0x0000, 0xFE00)
        seconds = monotonic() - begun
        word = "none" if status is None else f"{status:04X}"
        session.records.operation(session.calling, service, word, seconds, int(report.fields.get("bytes", 0)))
        write = log.warning if failed or status is None else log.info
        write(
            service,
            calling=session.calling,
            called=session.called,
            address=session.address,
            status=word if status is None else f"{word}H",
            seconds=round(seconds, 3),
            **report.fields,
        )
