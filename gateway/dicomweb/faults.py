"""Turn what HTTP and httpx report into the errors of `gateway.errors`, in this one place."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import httpx

from gateway.errors import (
    AnswerUnreadable,
    ArchiveBroken,
    ArchiveBusy,
    ArchiveError,
    ArchiveUnreachable,
    NotFound,
    RequestRefused,
    SignInRefused,
    TooLarge,
)

_BUSY = frozenset((424, 429, 502, 503, 504, 507))
_REFUSALS: Mapping[int, type[ArchiveError]] = {
    401: SignInRefused,
    403: SignInRefused,
    404: NotFound,
    410: NotFound,
    413: TooLarge,
}
_LONGEST_WAIT = 3600.0


@contextmanager
def archive_errors(archive: str) -> Iterator[None]:
    """Raise httpx's exceptions as ArchiveError; the text names what failed, never a URL's query."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ArchiveUnreachable(archive, f"no answer in time ({type(error).__name__})") from error
    except httpx.RemoteProtocolError as error:
        raise AnswerUnreadable(archive, "the answer broke off or is not HTTP") from error
    except httpx.DecodingError as error:
        raise AnswerUnreadable(archive, "the answer's content encoding is broken") from error
    except httpx.TransportError as error:
        raise ArchiveUnreachable(archive, f"the connection failed: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ArchiveUnreachable(archive, f"the request failed ({type(error).__name__})") from error


def check(archive: str, response: httpx.Response) -> None:
    """Raise the ArchiveError that a response's status stands for; a 2xx raises nothing."""
    status = response.status_code
    if 200 <= status < 300:
        return
    raise fault(archive, status, response.headers.get("Retry-After", ""))


def fault(archive: str, status: int, retry_after: str = "") -> ArchiveError:
    """Make the error for an HTTP status that is not a success (RFC 9110 15)."""
    problem = f"HTTP {status}"
    if status in _BUSY:
        return ArchiveBusy(archive, problem, http_status=status, retry_after=_seconds(retry_after))
    if status >= 500:
        return ArchiveBroken(archive, problem, http_status=status)
    if status >= 400:
        return _REFUSALS.get(status, RequestRefused)(archive, problem, http_status=status)
    return AnswerUnreadable(archive, f"{problem} where a result was expected", http_status=status)


def _seconds(value: str) -> float | None:
    """Read Retry-After: seconds or an HTTP date (RFC 9110 10.2.3)."""
    if value.strip().isdigit():
        return min(float(value), _LONGEST_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), _LONGEST_WAIT)
    except ValueError:
        return None
