"""Carry requests to one archive: sign-in, redirects, patience, and no error of httpx left over."""

import copy
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx

from gateway.dicomweb.auth import Auth, Basic, Request
from gateway.dicomweb.carrier import carrier
from gateway.dicomweb.faults import archive_errors, check, patiently
from gateway.dicomweb.observation import Observe, observed
from gateway.errors import AnswerUnreadable, ArchiveError, ArchiveUnreachable, ConfigError, Fault, MultipartError

JSON = "application/dicom+json"

_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_SAFE = "-._~,:@!$'()*/"  # literal in a query (RFC 3986 3.4), so that plain servers understand them
_SMALL = 65_536
_MOST_REDIRECTS = 5


class Transport:
    """Send requests below one base URL; safe to use from several threads. Times in seconds."""

    def __init__(  # noqa: PLR0913 - all by keyword, each an option of the configuration
        self,
        url: str,
        *,
        name: str,
        auth: Auth | None,
        headers: Mapping[str, str],
        verify: bool | ssl.SSLContext,
        connections: int,
        connect_timeout: float,
        read_timeout: float,
        proxy: str | None,
        observe: Observe,
    ) -> None:
        self.name = name
        self.connections = connections
        self._url = url.rstrip("/")
        self._auth = auth or _named_in(url)
        self._observe = observe
        self._correlation: Mapping[str, str] = MappingProxyType({})
        # Not its client but for the headers: its layers for what is done here, or not at all, cost 70 us a request
        self._carrier = carrier(url, verify=verify, connections=connections, proxy=proxy)
        self._headers = httpx.Client(headers=dict(headers), transport=self._carrier, trust_env=False).headers
        timeout = httpx.Timeout(read_timeout, connect=connect_timeout, pool=read_timeout)
        self._patience = {"timeout": timeout.as_dict()}
        self._cookies = httpx.Cookies()  # by which some balancers lead the next request to the same server
        self._closed = threading.Event()

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        self._carrier.close()

    def correlated(self, request_id: str) -> "Transport":
        """Give this transport, on the same connections, with an X-Request-ID on every request."""
        twin = copy.copy(self)
        twin._correlation = {"X-Request-ID": _NOT_VISIBLE.sub("_", request_id)[:64]}  # noqa: SLF001 - its own class
        return twin

    def json(self, path: str, parameters: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Get a list of DICOM JSON objects, none for 204; asks again when a short trouble keeps it from coming."""
        target = _target(path, parameters)
        content = patiently(lambda: self._content(target))
        if content is None:
            return []
        try:
            page = parsed(content)
        except ValueError as error:
            raise AnswerUnreadable(self.name, "the answer is not JSON") from error
        if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
            raise AnswerUnreadable(self.name, "the answer is not a list of DICOM JSON objects")
        return page

    def address(self, path: str, parameters: Sequence[tuple[str, str]]) -> str:
        """Give the URL that `json` would ask."""
        return f"{self._url}/{_target(path, parameters)}"

    def get(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        """Send a GET and give its answer if it is a success, the body still to come; asks again as `json` does."""
        return patiently(lambda: self._checked(path, headers))

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: httpx.SyncByteStream | None = None
    ) -> httpx.Response:
        """Send a request, once more after a 401 if the sign-in can be renewed, and along same-origin redirects."""
        url, renewed = f"{self._url}/{path}", False
        for _ in range(_MOST_REDIRECTS):
            signed = self._auth.headers(Request(method, url, headers, body)) if self._auth else {}
            response = self._exchange(method, url, {**headers, **signed, **self._correlation}, body)
            if response.status_code == 401 and self._auth and not renewed:
                response.close()
                if not self._auth.renew(signed.get("Authorization", "")):
                    return response
                renewed = True
            elif response.status_code in (307, 308):
                response.close()
                url = self._redirected(url, response.headers.get("Location", ""))
            else:
                return response
        raise AnswerUnreadable(self.name, "too many redirects")

    def read(self, response: httpx.Response) -> bytes:
        """Read the body of an answer to its end."""
        with archive_errors(self.name):
            return response.read()

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Raise what goes wrong while a body is taken apart as ArchiveError."""
        with archive_errors(self.name):
            try:
                yield
            except MultipartError as error:
                raise AnswerUnreadable(self.name, str(error)) from error

    def _content(self, path: str) -> bytes | None:
        """Get a JSON body, None for 204."""
        with closing(self._checked(path, {"Accept": JSON})) as response:
            return None if response.status_code == 204 else self.read(response)

    def _checked(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        response = self.send("GET", path, headers)
        try:
            check(self.name, response)
        except ArchiveError:
            response.close()
            raise
        return response

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: httpx.SyncByteStream | None
    ) -> httpx.Response:
        if self._closed.is_set():
            raise ArchiveUnreachable(self.name, "the gateway is stopping")
        with observed(self._observe, method, url) as note, archive_errors(self.name):
            response = self._answer(self._request(method, url, headers, body))
            note(response.status_code)
            length = response.headers.get("Content-Length", "")
            if response.status_code == 204 or (
                response.status_code >= 300 and length.isdecimal() and int(length) <= _SMALL
            ):
                response.read()  # a connection is kept only when its answer has been read to the end
        return response

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: httpx.SyncByteStream | None
    ) -> httpx.Request:
        merged = self._headers.copy()
        merged.update(headers)
        request = httpx.Request(method, url, headers=merged, extensions=self._patience)
        if self._cookies:
            self._cookies.set_cookie_header(request)
        if body is not None:
            request.stream = body  # which can be read again when the request is repeated
        return request

    def _answer(self, request: httpx.Request) -> httpx.Response:
        response = self._carrier.handle_request(request)
        response.request = request
        if "Set-Cookie" in response.headers:
            self._cookies.extract_cookies(response)
        return response

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            leads_away = urlsplit(target)[:2] != urlsplit(url)[:2]
        except ValueError as error:
            raise AnswerUnreadable(self.name, "a redirect leads to what is no URL") from error
        if leads_away:
            raise AnswerUnreadable(self.name, "a redirect leads to another server; set its URL in archives")
        return target


def tls(
    url: str, name: str, authorities: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | bool:
    """Make the terms of TLS: whom to believe, and what to prove ourselves with; False for a URL without TLS.

    Without `authorities` those that the system or certifi knows; without `key` it is in the certificate's file.
    Raises ConfigError when a file cannot be used.
    """
    if not url.startswith("https:") and authorities is None and certificate is None:
        return False  # there is nobody to believe, and no redirect leads there; to read certifi's list takes 30 ms
    context = httpx.create_ssl_context(trust_env=False)
    option, path = "ca", authorities
    try:
        if authorities is not None:
            context = ssl.create_default_context(cafile=str(authorities))
        if certificate is not None:
            option, path = "certificate", certificate
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError too
        reason = error.strerror if not isinstance(error, ssl.SSLError) else (error.reason or "not PEM")
        fault = Fault(f"archives.{name}.{option}", f"{path} cannot be used: {reason}")
        raise ConfigError(f"archive {name}", (fault,)) from error
    return context


def _named_in(url: str) -> Auth | None:
    """Give the sign-in that a URL brings along, as in http://user:password@host."""
    named = httpx.URL(url)
    return Basic(named.username, named.password) if named.userinfo else None


def _target(path: str, parameters: Sequence[tuple[str, str]]) -> str:
    query = "&".join(f"{quote(key, safe=_SAFE)}={quote(value, safe=_SAFE)}" for key, value in parameters)
    return f"{path}?{query}" if query else path


def parsed(content: bytes) -> Any:
    """Read JSON; raises ValueError for all that is wrong with it."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
