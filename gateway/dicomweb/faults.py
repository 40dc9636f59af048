"""Turn what HTTP and httpx report into the errors of `gateway.errors`, in this one place."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

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

_BUSY = frozenset((408, 424, 429, 502, 503, 504, 507))
_REFUSALS: Mapping[int, type[ArchiveError]] = {
    401: SignInRefused,
    403: SignInRefused,
    404: NotFound,
    410: NotFound,
    413: TooLarge,
}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_LONGEST_WAIT = 3600.0
_PAUSES = (0.25, 1.0)
_PATIENCE = 3.0
_PASSING = (httpx.NetworkError, httpx.RemoteProtocolError)

T = TypeVar("T")


@contextmanager
def archive_errors(archive: str) -> Iterator[None]:
    """Raise httpx's exceptions as ArchiveError; the text names what failed, never a URL's query."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ArchiveUnreachable(archive, f"no answer in time ({type(error).__name__})") from error
    except httpx.RemoteProtocolError as error:
        if "without sending a response" in str(
            error
        ):  # httpcore names no other way a connection that went away, nor do we
            raise ArchiveUnreachable(archive, "the connection ended before an answer came") from error
        raise AnswerUnreadable(archive, "the answer broke off or is not HTTP") from error
    except httpx.DecodingError as error:
        raise AnswerUnreadable(archive, "the answer's content encoding is broken") from error
    except httpx.LocalProtocolError:
        # not chained: its text may quote a header, and so a credential
        raise RequestRefused(archive, "the request is not HTTP and cannot be sent") from None
    except httpx.TransportError as error:
        raise ArchiveUnreachable(archive, f"the connection failed: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ArchiveUnreachable(archive, f"the request failed ({type(error).__name__})") from error


def patiently(ask: Callable[[], T]) -> T:
    """Ask up to three times while the archive is busy or the connection breaks; only what may be repeated.

    A pause is random and at most a second, or what Retry-After says up to 3 s. What has used up its time-out is
    not repeated: the peer has waited long enough.
    """
    for pause in _PAUSES:
        try:
            return ask()
        except ArchiveBusy as error:
            wait = (error.retry_after or 0) + random.uniform(0, pause)  # noqa: S311 - not a secret
            if wait > _PATIENCE:
                raise
        except ArchiveError as error:
            if not isinstance(error.__cause__, _PASSING):
                raise
            wait = random.uniform(0, pause)  # noqa: S311 - not a secret
        time.sleep(wait)
    return ask()


def check(archive: str, response: httpx.Response) -> None:
    """Raise the ArchiveError that a response's status stands for; a 2xx raises nothing."""
    status = response.status_code
    if 200 <= status < 300:
        return
    raise refusal(archive, response)


def refusal(archive: str, response: httpx.Response) -> ArchiveError:
    """Make the error for an answer that is not a success; a 404 to all studies says that the URL is another one's."""
    error = fault(archive, response.status_code, response.headers.get("Retry-After", ""))
    if isinstance(error, NotFound) and response.request.url.path.endswith("/studies"):
        problem = f"{error.problem}: its URL has to be what comes before /studies"
        return NotFound(archive, problem, http_status=error.http_status)
    return error


def fault(archive: str, status: int, retry_after: str = "") -> ArchiveError:
    """Make the error for an HTTP status that is not a success (RFC 9110 15)."""
    problem = f"HTTP {status} {_PHRASES.get(status, '')}".rstrip()
    if status in _BUSY:
        return ArchiveBusy(archive, problem, http_status=status, retry_after=_seconds(retry_after))
    if status >= 500:
        return ArchiveBroken(archive, problem, http_status=status)
    if status >= 400:
        return _REFUSALS.get(status, RequestRefused)(archive, problem, http_status=status)
    return AnswerUnreadable(archive, f"{problem} where a result was expected", http_status=status)


def skew(date: str) -> float | None:
    """Read how many seconds an answer's Date is ahead of our clock (RFC 9110 6.6.1)."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


def _seconds(value: str) -> float | None:
    """Read Retry-After: seconds or an HTTP date (RFC 9110 10.2.3)."""
    if value.strip().isdecimal():
        return min(float(value), _LONGEST_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), _LONGEST_WAIT)
    except ValueError:
        return None
