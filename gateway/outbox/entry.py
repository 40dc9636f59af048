"""What the outbox holds and says: its rows, their states, and the answers to an arrival."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from gateway.extent import Extent

Duplicates = Literal["keep", "replace", "reject"]
"""What happens to another object that arrives under the UIDs of one that the outbox knows."""


class State(StrEnum):
    """Say where an entry stands; `due` is the time (s since 1970) that belongs to each state."""

    TODO = "todo"  # due: from when it may be delivered
    LEASED = "leased"  # due: when the lease runs out
    SET_ASIDE = "set aside"  # waits for the operator; due: since when
    HELD = "held"  # by the operator; due: since when
    DONE = "done"  # the archive has it; due: since when


class Receipt(StrEnum):
    """Answer an arrival; only after QUEUED, DUPLICATE, KEPT and REPLACED is Success the truth."""

    QUEUED = "queued"  # a new entry
    DUPLICATE = "duplicate"  # the same object is there, or was delivered a short while ago
    KEPT = "kept"  # another object stays under these UIDs, this one was dropped
    REPLACED = "replaced"  # this one took the other's place
    REJECTED = "rejected"  # this one was dropped, the peer is to be told

    @property
    def is_taken(self) -> bool:
        """Say whether the bytes that arrived are wanted."""
        return self in (Receipt.QUEUED, Receipt.REPLACED)


class Arrival(NamedTuple):
    """Describe a received instance: for which archive, from whom, and what it is."""

    archive: str
    study: str
    series: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    peer: str = ""
    called: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Say how much the outbox takes; lengths in bytes, times in seconds, None for no limit.

    `high_water` is the share of the disk that may be used. `repeat_window` is for how long a delivered entry
    answers for a repeat: later the archive decides, which may have lost or deleted it. `keep_done` and
    `keep_done_entries` bound how long delivered entries can be listed.
    """

    high_water: float = 0.9
    quota: int | None = None
    peer_quota: int | None = None
    repeat_window: float = 3600
    keep_done: float = 86_400
    keep_done_entries: int = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Describe one instance in the outbox; times in seconds since 1970, `size` of the whole file in bytes.

    `digest` is one over the data set without group 2. `attempts` counts the present one. `replaces` says that
    the archive may hold another object under these UIDs, whose place this one is to take.
    """

    id: int
    archive: str
    study: str
    series: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    peer: str
    called: str
    size: int
    digest: bytes
    received: float
    state: State
    due: float
    attempts: int
    reason: str
    owner: int
    replaces: bool
    extent: Extent


@dataclass(frozen=True, slots=True)
class Total:
    """Count the entries of one archive, peer and state, and their bytes."""

    archive: str
    peer: str
    state: State
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sum up the outbox; `oldest` maps an archive to when its oldest undelivered entry was received."""

    totals: tuple[Total, ...]
    oldest: dict[str, float]

    @property
    def entries(self) -> int:
        """Count the undelivered entries."""
        return sum(total.entries for total in self.totals if total.state is not State.DONE)

    @property
    def bytes(self) -> int:
        """Sum the bytes of the undelivered entries."""
        return sum(total.bytes for total in self.totals if total.state is not State.DONE)


@dataclass(frozen=True, slots=True)
class StudyState:
    """Sum up what the outbox knows of a study on its way to an archive; times in seconds since 1970.

    `due` is when the next that is to do may be tried, 0 for none. `reason` is of one that is set aside, else of one
    that failed before.
    """

    archive: str
    study: str
    first: float
    last: float
    bytes: int
    todo: int
    leased: int
    set_aside: int
    held: int
    done: int
    due: float
    reason: str


class Place(NamedTuple):
    """Say where the bytes of an entry are; `segment` is 0 for a file of its own, as former versions made them."""

    id: int
    segment: int
    position: int
    size: int
