"""Storage Commitment (PS3.4 Annex J): transactions that survive a restart, and the verdict on what they ask for."""

from gateway.commitment.judge import Judge
from gateway.commitment.register import Register
from gateway.commitment.request import SOP_CLASS, SOP_INSTANCE, Reference, Request, read_request
from gateway.commitment.transaction import Outcome, State, Transaction

__all__ = [
    "SOP_CLASS",
    "SOP_INSTANCE",
    "Judge",
    "Outcome",
    "Reference",
    "Register",
    "Request",
    "State",
    "Transaction",
    "read_request",
]
