"""Let nobody in who may not: password, name of the host, requests that another site's page had the browser send."""

import asyncio
import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin import password

log = structlog.get_logger("gateway.admin")

_SAFE = frozenset(("GET", "HEAD"))
_OPEN = frozenset(("/health/live", "/health/ready"))  # for orchestrators, which cannot sign in
_PENALTY = 1.0  # seconds after a wrong password
_MOST_KNOWN = 16
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Access:
    """Guard an application; `secret` is the line of the password file, "" for none.

    `hosts` are the names under which the page may be asked for, none given for any: a page that everybody on this
    machine may use must not answer to a name that some other site had resolved to us (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, secret: str, hosts: Collection[str]) -> None:
        self._app = app
        self._secret = secret
        self._hosts = hosts
        self._known: list[bytes] = []
        self._guessing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = await self._refusal(str(scope["method"]), str(scope["path"]), Headers(scope=scope))
        await (refusal or self._app)(scope, receive, guarded)

    async def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return PlainTextResponse("This name is not the gateway's; see admin.password_file.", 421)
        if path not in _OPEN and not await self._is_known(headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="dicom-gateway", charset="UTF-8"'}
            return PlainTextResponse("A password is needed.", 401, challenge)
        if method not in _SAFE and not _is_from_here(headers, host):
            return PlainTextResponse("This request does not come from the gateway's own page.", 403)
        return None

    async def _is_known(self, authorization: str) -> bool:
        """Check the password (RFC 7617), one guess at a time; what was right once is known by its digest."""
        if not self._secret:
            return True
        digest = hashlib.sha256(authorization.encode()).digest()
        if digest in self._known:
            return True
        given = _password(authorization)
        if not given:
            return False
        async with self._guessing:
            if await asyncio.to_thread(password.fits, given, self._secret):
                self._known = [*self._known, digest][-_MOST_KNOWN:]
                return True
            log.warning("wrong password for the status page")
            await asyncio.sleep(_PENALTY)
        return False


def _password(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_from_here(headers: Headers, host: str) -> bool:
    """Say whether our own script sent a request: no other site's page can add its header without asking us first."""
    origin = headers.get("origin")
    return (
        headers.get("hx-request") == "true"
        and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        and (origin is None or urlsplit(origin).netloc == host)
    )


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def local_names(host: str) -> frozenset[str]:
    """Give the names of this machine for itself, `host` among them."""
    try:
        own = str(ipaddress.ip_address(host))
    except ValueError:
        own = host
    return frozenset((own, "localhost", "127.0.0.1", "::1"))
