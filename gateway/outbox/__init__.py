"""The durable queue of instances on their way to an archive: files beside an SQLite database."""

from gateway.outbox.entry import (
    Arrival,
    Duplicates,
    Entry,
    Limits,
    Receipt,
    State,
    Statistics,
    StudyState,
    Total,
)
from gateway.outbox.export import Exported, export
from gateway.outbox.incoming import Incoming
from gateway.outbox.ledger import Ledger
from gateway.outbox.outbox import Outbox
from gateway.outbox.queue import FILE_LOST

__all__ = [
    "FILE_LOST",
    "Arrival",
    "Duplicates",
    "Entry",
    "Exported",
    "Incoming",
    "Ledger",
    "Limits",
    "Outbox",
    "Receipt",
    "State",
    "Statistics",
    "StudyState",
    "Total",
    "export",
]
