"""Deliver the reports of storage commitments over associations of our own (PS3.4 J.3.3, PS3.7 D.3.3.4)."""

import random
import threading
import time
from typing import Self

import structlog

from gateway.commitment import SOP_CLASS, Register, Transaction
from gateway.config import Config, Peer
from gateway.dimse import commands
from gateway.dimse.association import Association, Context
from gateway.dimse.negotiation import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from gateway.dimse.reports import LEASE, is_taken, send_report, settle
from gateway.dimse.scu import associate
from gateway.errors import DestinationError, DestinationUnreachable, GatewayError, PeerError

log = structlog.get_logger("gateway.dimse")

_TICK = 0.25  # seconds until a report of another process is seen
_REST = 1.0  # seconds after the register failed
_MOST_PEERS = 8  # that are called at the same time
_MOST_REPORTS = 20  # over one association
_SYNTAXES = (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE)
_SCP_ROLE = (False, True)


class Reporter:
    """Call peers that have not got their reports, each by one thread at a time; use as a context manager."""

    def __init__(self, config: Config, register: Register) -> None:
        self._config = config
        self._register = register
        self._timeout = config.listen.network_timeout
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str], threading.Thread] = {}
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)

    def start(self) -> None:
        """Start; what was left over by an earlier process is tried at once."""
        self._register.hurry()
        self._thread.start()

    def stop(self, grace: float = 5.0) -> None:
        """Let running calls end within `grace` seconds; what is not delivered is tried after the next start."""
        self._stopping.set()
        self._register.wake()
        until = time.monotonic() + grace
        self._thread.join(grace)
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            call.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                for transaction in self._register.expire(self._config.commitment.report_for):
                    log.error(
                        "N-EVENT-REPORT given up",
                        transaction=transaction.uid,
                        calling=transaction.calling,
                        reason="nobody took it for commitment.report_for seconds",
                    )
                for pair in self._register.reports_due():
                    self._call(pair)
                self._register.wait(_TICK)
            except GatewayError as error:
                log.error("commitment interrupted", reason=str(error))
                self._stopping.wait(_REST)

    def _call(self, pair: tuple[str, str]) -> None:
        with self._lock:
            if pair in self._calls or len(self._calls) >= _MOST_PEERS:
                return
            name = f"report-{pair[0]}"
            self._calls[pair] = threading.Thread(target=self._deliver, args=pair, name=name, daemon=True)
            self._calls[pair].start()

    def _deliver(self, calling: str, called: str) -> None:
        """Deliver what is due to one peer."""
        try:
            lease = LEASE + self._timeout * (_MOST_REPORTS + 3)
            transactions = self._register.claim_reports(calling, called, lease, _MOST_REPORTS)
            if not transactions:
                return
            title, peer = self._destination(calling)
            if peer.host is None or peer.port is None:
                self._keep(transactions, title)
            else:
                self._report(title, peer, transactions)
        except GatewayError as error:
            log.error("commitment interrupted", calling=calling, reason=str(error))
        except Exception:
            log.exception("fault in the gateway", calling=calling)
        finally:
            with self._lock:
                self._calls.pop((calling, called), None)
            self._register.wake()

    def _destination(self, calling: str) -> tuple[str, Peer]:
        peers = self._config.peers
        title = peers.get(calling, Peer()).report_to or calling
        return title, peers.get(title, Peer())

    def _keep(self, transactions: list[Transaction], title: str) -> None:
        """Wait for a configuration that says where the peer is, which takes a restart."""
        reason = f"the association has ended; to report on a new one, set host and port of peers.{title}"
        for transaction in transactions:
            self._register.postpone(transaction, self._config.commitment.report_for, reason)
            log.warning(
                "N-EVENT-REPORT not delivered",
                transaction=transaction.uid,
                calling=transaction.calling,
                reason=reason,
            )

    def _report(self, title: str, peer: Peer, transactions: list[Transaction]) -> None:
        """Send the reports over one association; if it fails they all wait."""
        failure = ""
        association: Association | None = None
        try:
            association, context = self._associate(title, peer, transactions[0].called)
            while transactions and not self._stopping.is_set():
                status = self._send(association, context, transactions[0])
                self._settle(transactions.pop(0), "" if is_taken(status) else f"the peer answered {status:04X}H")
            association.release(self._timeout)
        except (PeerError, DestinationError) as error:
            failure = str(error)
            if association is not None:
                association.abort()
        for transaction in transactions:
            if failure:
                self._settle(transaction, failure)
            else:
                self._register.give_back(transaction)

    def _associate(self, title: str, peer: Peer, called: str) -> tuple[Association, Context]:
        association = associate(
            title,
            peer,
            calling=called,
            proposals=[(SOP_CLASS, syntax) for syntax in _SYNTAXES],
            timeout=self._timeout,
            roles={SOP_CLASS: _SCP_ROLE},
        )
        for context in association.contexts.values():
            if context.peer_is_scp:
                return association, context
        association.abort()
        raise DestinationUnreachable(title, "takes no storage commitment reports (its context or role is refused)")

    def _send(self, association: Association, context: Context, transaction: Transaction) -> int:
        message_id = send_report(association, context, transaction)
        return commands.status(association.response_to(message_id, self._timeout).command)

    def _settle(self, transaction: Transaction, failure: str) -> None:
        chance = random.random()  # noqa: S311 - only a delay
        settle(self._register, transaction, failure, chance, way="new association")
