"""Sign in with tokens that expire: fetched when needed, renewed ahead of time, by one thread for all."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any
from urllib.parse import quote_plus

import httpx
import structlog

from gateway.dicomweb.auth import Authorization, bearer
from gateway.dicomweb.faults import archive_errors, fault
from gateway.errors import AnswerUnreadable, ArchiveError, SignInRefused

_NAME = "sign-in"
_EARLIEST = 300.0  # seconds before the end of a token's life at which another one is fetched
_SHARE = 0.2  # or this share of a short life
_PATIENCE = 10.0  # seconds between two attempts while the old token still holds
_LIFE = 3600.0  # of a token whose server does not say
_TIMEOUT = 10.0
_REFUSALS = frozenset(  # RFC 6749 5.2; any other text of a token server is not repeated
    (
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    )
)


@dataclass(frozen=True, slots=True)
class Token:
    """Hold a token and how many seconds it lives from when it was fetched."""

    value: str
    life: float


class Refreshing(Authorization):
    """Sign in with the token that `fetch` gives, which raises ArchiveError; `clock` counts seconds."""

    def __init__(self, fetch: Callable[[], Token], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._header = ""
        self._due = self._end = 0.0

    def header(self) -> str:
        """Give the header's value; raises ArchiveError when no token is to be had."""
        now = self._clock()
        if now >= self._end:
            with self._lock:
                if self._clock() >= self._end:  # no other thread was faster
                    self._take()
        elif now >= self._due and self._lock.acquire(blocking=False):
            try:  # the others go on with the token that still holds
                self._take()
            except ArchiveError as error:
                self._due = now + _PATIENCE
                structlog.get_logger("gateway").warning("sign-in not renewed yet", reason=str(error))
            finally:
                self._lock.release()
        return self._header

    def renew(self, refused: str) -> bool:
        """Fetch another token unless another thread has; say whether it is another one."""
        with self._lock:
            if self._header == refused:
                self._take()
            return self._header != refused

    def _take(self) -> None:
        begun = self._clock()
        token = self._fetch()
        self._header = bearer(token.value, "the token server's token")
        self._end = begun + token.life
        self._due = self._end - min(_EARLIEST, token.life * _SHARE)


def client_credentials(  # noqa: PLR0913 - all by keyword, each an option of the configuration
    url: str,
    client_id: str,
    secret: Callable[[], str],
    *,
    scope: str | None = None,
    audience: str | None = None,
    in_body: bool = False,
    verify: bool | SSLContext = True,
    proxy: str | None = None,
) -> Callable[[], Token]:
    """Make a `fetch` for `Refreshing` by OAuth 2 client credentials (RFC 6749 4.4); `in_body`: not by Basic."""

    def fetch() -> Token:
        form = {"grant_type": "client_credentials", "scope": scope, "audience": audience}
        if in_body:
            form |= {"client_id": client_id, "client_secret": secret()}
            basic = None
        else:
            basic = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret()))  # RFC 6749 2.3.1
        sent = {key: value for key, value in form.items() if value}
        with (
            archive_errors(_NAME),
            httpx.Client(verify=verify, proxy=proxy, auth=basic, trust_env=False, timeout=_TIMEOUT) as client,
        ):
            answer = client.post(url, data=sent, headers={"Accept": "application/json"})
        return _token(answer)

    return fetch


def _token(answer: httpx.Response) -> Token:
    try:
        document = answer.json()
    except ValueError:
        document = None
    found: dict[str, Any] = document if isinstance(document, dict) else {}
    if answer.status_code in (400, 401, 403):
        reason = found.get("error")
        told = reason if reason in _REFUSALS else f"HTTP {answer.status_code}"
        raise SignInRefused(_NAME, f"the token server refuses the client: {told}", http_status=answer.status_code)
    if answer.status_code != 200:
        raise fault(_NAME, answer.status_code, answer.headers.get("Retry-After", ""))
    value, life = found.get("access_token"), found.get("expires_in", _LIFE)
    try:
        return Token(str(value), float(life)) if value else _no_token()
    except (TypeError, ValueError) as error:
        raise AnswerUnreadable(_NAME, "the token server does not say how long its token lives") from error


def _no_token() -> Token:
    raise AnswerUnreadable(_NAME, "the token server's answer has no token")
