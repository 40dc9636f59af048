"""Judge transactions: wait for the outbox, then ask the archive, whose silence is no verdict on an instance."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from gateway.commitment.lookup import PARALLEL, Lookup, Place
from gateway.commitment.register import Register
from gateway.commitment.transaction import (
    NO_SUCH_OBJECT,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    Transaction,
    pause,
    verdict,
)
from gateway.dicomweb.client import Client
from gateway.errors import ArchiveBroken, ArchiveBusy, ArchiveError, ArchiveUnreachable, GatewayError
from gateway.outbox import Entry, Outbox, State

log = structlog.get_logger("gateway.commitment")

_TICK = 0.25  # seconds until a transaction of another process is seen
_REST = 1.0  # seconds after the register or the outbox failed
_LEASE = 60.0
_FIRST, _LONGEST = 0.5, 30.0  # seconds between two looks at the same transaction
_LAG = 10.0  # seconds after its delivery in which an archive may not list an instance yet
_TRANSIENT = (ArchiveUnreachable, ArchiveBusy, ArchiveBroken)


class _NotYet(GatewayError):
    """Say why a transaction cannot be judged now, and what it becomes when time is over."""

    def __init__(self, reason: str, failure: int) -> None:
        self.failure = failure
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class _Held:
    """Say what the outbox knows of the instances of a transaction."""

    waiting: frozenset[str]
    set_aside: frozenset[str]
    delivered: Mapping[str, float]  # when
    places: Mapping[str, Place]


class Judge:
    """Judge what waits in the register, one thread per archive; use as a context manager.

    After `patience` seconds what is still undecided fails, with 0213 or 0110. The clients are used by CONNECTIONS
    threads at most. Instances that are `rejected` for a transaction are not there.
    """

    CONNECTIONS = PARALLEL

    def __init__(
        self,
        register: Register,
        outbox: Outbox,
        archives: Mapping[str, Client],
        *,
        patience: float,
        rejected: Callable[[Transaction, Sequence[str]], Collection[str]] = lambda _, __: (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._register = register
        self._outbox = outbox
        self._archives = archives
        self._patience = patience
        self._rejected = rejected
        self._clock = clock
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(client,), name=f"judge-{name}", daemon=True)
            for name, client in archives.items()
        ]

    def start(self) -> None:
        """Start the threads; what waits for an archive that is not configured any more fails at once."""
        for transaction in self._register.waiting_for_others(self._archives):
            reason = f"archive {transaction.archive} is not configured any more"
            self._settle(transaction, [PROCESSING_FAILURE] * len(transaction.references), reason)
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float = 5.0) -> None:
        """Let running searches end within `grace` seconds; what is not judged is judged after the next start."""
        self._stopping.set()
        self._register.wake()
        until = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work(self, client: Client) -> None:
        while not self._stopping.is_set():
            try:
                transaction = self._register.claim_waiting(client.name, _LEASE)
                if transaction is None:
                    self._register.wait(_TICK)
                else:
                    self._attend(transaction, client)
            except GatewayError as error:
                log.error("commitment interrupted", archive=client.name, reason=str(error))
                self._stopping.wait(_REST)

    def _attend(self, transaction: Transaction, client: Client) -> None:
        overdue = self._clock() >= transaction.received + self._patience
        try:
            self._settle(transaction, self._verdicts(transaction, client, overdue=overdue), "")
        except _Stopped:
            self._register.give_back(transaction)
        except _NotYet as reason:
            if overdue:
                failed = [reason.failure] * len(transaction.references)
                self._settle(transaction, failed, str(reason))
                return
            chance = random.random()  # noqa: S311 - only a delay
            wait = pause(transaction.attempts, chance, first=_FIRST, longest=_LONGEST)
            self._register.postpone(transaction, wait, str(reason))
            write = log.info if transaction.attempts == 1 else log.debug
            write("commitment waits", **_names(transaction), reason=str(reason))
        except GatewayError:
            raise
        except Exception as error:
            log.exception("commitment failed", **_names(transaction))
            self._register.postpone(transaction, _LONGEST, type(error).__name__)

    def _verdicts(self, transaction: Transaction, client: Client, *, overdue: bool) -> list[int]:
        """Judge every reference, or raise _NotYet."""
        instances = [reference.sop_instance for reference in transaction.references]
        held = _held(self._outbox.of_instances(client.name, instances))
        if held.waiting and not overdue:
            raise _NotYet(f"{len(held.waiting)} instances are still in the outbox", RESOURCE_LIMITATION)
        rejected = self._rejected(transaction, instances)
        asked = [uid for uid in instances if uid not in held.waiting | held.set_aside and uid not in rejected]
        try:
            # the log line of its N-ACTION names the transaction, so that it leads from the request to these
            classes = Lookup(client.correlated(transaction.uid), held.places, self._step(transaction)).classes(asked)
        except ArchiveError as error:
            transient = isinstance(error, _TRANSIENT)
            raise _NotYet(str(error), RESOURCE_LIMITATION if transient else PROCESSING_FAILURE) from error
        verdicts = []
        for reference in transaction.references:
            uid = reference.sop_instance
            found = NO_SUCH_OBJECT
            if uid in held.set_aside:
                found = PROCESSING_FAILURE
            elif uid in held.waiting:
                found = RESOURCE_LIMITATION
            else:
                found = verdict(classes.get(uid), reference)
            awaited = uid not in rejected and not overdue
            if found == NO_SUCH_OBJECT and awaited and self._clock() - held.delivered.get(uid, 0) < _LAG:
                raise _NotYet("the archive does not list yet what it has taken", NO_SUCH_OBJECT)
            verdicts.append(found)
        return verdicts

    def _step(self, transaction: Transaction) -> Callable[[], None]:
        """Make what goes before each search: keep the claim, and heed the stop."""
        renewed = time.monotonic()

        def step() -> None:
            nonlocal renewed
            if self._stopping.is_set():
                raise _Stopped
            if time.monotonic() - renewed > _LEASE / 3:
                renewed = time.monotonic()
                self._register.renew(transaction, _LEASE)

        return step

    def _settle(self, transaction: Transaction, verdicts: Sequence[int], reason: str) -> None:
        self._register.judge(transaction, verdicts)
        failed = [found for found in verdicts if found]
        log.info(
            "commitment judged",
            **_names(transaction),
            committed=len(verdicts) - len(failed),
            failed=", ".join(f"{failed.count(code)} x {code:04X}H" for code in sorted(set(failed))),
            **({"reason": reason} if reason else {}),
        )


class _Stopped(Exception):
    """End a look-up because the gateway stops."""


def _names(transaction: Transaction) -> dict[str, str]:
    return {"transaction": transaction.uid, "calling": transaction.calling, "archive": transaction.archive}


def _held(entries: Sequence[Entry]) -> _Held:
    """Sort what the outbox has; what waits decides before what is set aside, and that before what was delivered."""
    by_state: dict[State, set[str]] = defaultdict(set)
    for entry in entries:
        by_state[entry.state].add(entry.sop_instance)
    waiting = by_state[State.TODO] | by_state[State.LEASED] | by_state[State.HELD]
    delivered = [entry for entry in entries if entry.state is State.DONE]
    return _Held(
        waiting=frozenset(waiting),
        set_aside=frozenset(by_state[State.SET_ASIDE] - waiting),
        delivered={entry.sop_instance: entry.due for entry in delivered},
        places={entry.sop_instance: Place(entry.study, entry.series) for entry in delivered},
    )
