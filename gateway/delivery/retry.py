"""When an instance is tried again: a pure function of the error, the attempts and chance."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway import errors
from gateway.errors import ArchiveBusy, GatewayError, InstanceRefused
from gateway.translate.stow_outcomes import Disposition, failed, refused

ATTEMPTS: Mapping[type[GatewayError], int] = {
    errors.ArchiveBroken: 100,
    errors.AnswerUnreadable: 100,
    errors.ArchiveError: 1_000_000_000,  # an outage lasts as long as it lasts
    errors.GatewayError: 20,
}
"""After how many attempts the instance itself must be the cause, and is set aside; the nearest class decides."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Say how long to wait, in seconds: up to `first`, doubled each time up to `longest`.

    `most_patience` bounds what a Retry-After may ask for.
    """

    first: float = 2.0
    longest: float = 300.0
    most_patience: float = 3600.0


def delay(error: GatewayError, attempts: int, chance: float, policy: RetryPolicy) -> float | None:
    """Return after how many seconds to try again, None to set aside; `attempts` from 1, `chance` from 0 to 1.

    The wait is any share of the doubled time (full jitter), so that many instances do not come back at once; a
    Retry-After is waited for first (RFC 9110 10.2.3).
    """
    if not may_retry(error) or attempts >= _most_attempts(error):
        return None
    waited = chance * min(policy.longest, policy.first * 2.0 ** min(attempts - 1, 32))
    if isinstance(error, ArchiveBusy) and error.retry_after is not None:
        return min(error.retry_after, policy.most_patience) + chance * policy.first
    return waited


def may_retry(error: GatewayError) -> bool:
    """Tell whether trying again can help."""
    verdict = refused(error.archive, error.reason, "") if isinstance(error, InstanceRefused) else failed(error)
    return verdict.disposition is Disposition.RETRY


def _most_attempts(error: GatewayError) -> int:
    return next(ATTEMPTS[kind] for kind in type(error).__mro__ if kind in ATTEMPTS)
