"""Send the reports of storage commitments over the association that asked for them (PS3.4 J.3.3)."""

import math
import time
import uuid

import structlog

from gateway.commitment import SOP_CLASS, SOP_INSTANCE, Outcome, Register, Request, Transaction
from gateway.commitment.transaction import encode_report, pause
from gateway.dimse import commands
from gateway.dimse.association import Association, Context, Message
from gateway.dimse.commands import number
from gateway.errors import GatewayError, PeerError

log = structlog.get_logger("gateway.dimse")

LEASE = 60.0
"""Seconds after which a report that was claimed and neither delivered nor postponed is tried by someone else."""
_FIRST, _LONGEST = 5.0, 600.0  # seconds between two attempts to deliver a report
_QUIET = 0.25  # seconds without a request before a report is sent: a peer may not expect one in the midst of its own
_HOLD = 10.0  # seconds; a killed process or an association that is never quiet keeps no report for longer


def send_report(association: Association, context: Context, transaction: Transaction) -> int:
    """Send N-EVENT-REPORT in a context and give its Message ID; raises PeerError."""
    message_id = association.next_message_id()
    command: dict[str, int | str] = {
        "CommandField": commands.N_EVENT_REPORT_RQ,
        "MessageID": message_id,
        "AffectedSOPClassUID": SOP_CLASS,
        "AffectedSOPInstanceUID": SOP_INSTANCE,
        "EventTypeID": transaction.event_type,
    }
    association.send(context, command, encode_report(transaction, context.transfer_syntax))
    return message_id


def is_taken(status: int) -> bool:
    """Say whether a response to N-EVENT-REPORT means that the peer has the report: success or a warning."""
    return status in (0x0000, 0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF


def settle(register: Register, transaction: Transaction, failure: str, chance: float, *, way: str) -> None:
    """Note how the delivery of a report went; `failure` says why it was not taken, empty when it was."""
    fields = {
        "transaction": transaction.uid,
        "calling": transaction.calling,
        "called": transaction.called,
        "way": way,
        "committed": len(transaction.references) - transaction.failed,
        "failed": transaction.failed,
    }
    if not failure:
        register.end(transaction, Outcome.DELIVERED)
        log.info("N-EVENT-REPORT", **fields)
        return
    wait = pause(transaction.attempts, chance, first=_FIRST, longest=_LONGEST)
    register.postpone(transaction, wait, failure)
    log.warning("N-EVENT-REPORT not delivered", **fields, reason=failure, again_in=round(wait))


class Reports:
    """Hold the transactions that one association has asked for; used by its thread."""

    def __init__(self, association: Association, register: Register, *, timeout: float) -> None:
        self._association = association
        self._register = register
        self._timeout = timeout
        self._holder = uuid.uuid4().hex
        self._context: Context | None = None  # of the last request; none: nothing has been asked for
        self._sent: tuple[Transaction, int, float] | None = None  # with Message ID and time
        self._held_until = 0.0

    def add(self, request: Request, context: Context, *, calling: str, called: str, archive: str) -> None:
        """Take responsibility for a transaction; raises CommitmentRefused, SpoolFull, SpoolBroken."""
        self._register.add(request, calling=calling, called=called, archive=archive, holder=self._holder, hold=_HOLD)
        self._context = context
        self._held_until = time.monotonic() + _HOLD

    def quiet(self, seconds: float) -> float:
        """Send what is due after so many seconds without a request; say after how many to call again.

        Raises PeerError.
        """
        if self._context is None:
            return math.inf
        if seconds >= _QUIET:
            try:
                self._look(self._context)
            except PeerError:
                raise
            except GatewayError as error:  # it waits, and the association has done nothing wrong
                log.error("commitment interrupted", reason=str(error))
        return _QUIET

    def responded(self, message: Message) -> bool:
        """Take a response to N-EVENT-REPORT; tell whether it was due."""
        if self._sent is None or self._sent[1] != number(message.command, "MessageIDBeingRespondedTo"):
            return False
        status = commands.status(message.command)
        self._settle("" if is_taken(status) else f"the peer answered {status:04X}H")
        return True

    def close(self) -> None:
        """Leave what is not delivered to the reporter."""
        if self._context is None:
            return
        try:
            if self._sent is not None:
                self._settle("the association ended before the response")
            self._register.let_go(self._holder)
        except GatewayError as error:  # the leases run out by themselves
            log.error("commitment interrupted", reason=str(error))

    def _look(self, context: Context) -> None:
        now = time.monotonic()
        if self._sent is not None:
            if now - self._sent[2] > self._timeout:
                self._settle("the peer did not answer")
            return
        if self._held_until - now < _HOLD / 2:
            self._held_until = now + _HOLD
            if not self._register.keep(self._holder, _HOLD):
                self._context = None  # all were delivered
                return
        transaction = self._register.claim_here(self._holder, LEASE + self._timeout)
        if transaction is not None:
            self._sent = (transaction, send_report(self._association, context, transaction), now)

    def _settle(self, failure: str) -> None:
        if self._sent is not None:
            transaction, self._sent = self._sent[0], None
            settle(self._register, transaction, failure, 0, way="same association")
            if failure:  # once is enough here: a new association may do better
                self._register.hand_over(transaction)
