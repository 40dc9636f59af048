"""Exchange requests for answers over `http.client`: httpx's own way copies each byte four times more."""

import http.client
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http import HTTPStatus

import httpx

from gateway.dicomweb.writing import write

_PIECE = 262_144  # bytes read at once
_IDLE = 30.0  # seconds that a connection is kept: a new one costs a far archive three round trips
_UNREADABLE = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)


def carrier(url: str, *, verify: bool | ssl.SSLContext, connections: int, proxy: str | None) -> httpx.BaseTransport:
    """Make what carries requests to the server of `url`; through a proxy it is httpx's own."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE)
    if proxy:
        return httpx.HTTPTransport(verify=verify, trust_env=False, limits=limits, proxy=proxy)
    return Carrier(url, verify=verify, connections=connections)


class Carrier(httpx.BaseTransport):
    """Send requests over connections to one server; safe from any thread.

    What fails is raised as httpx raises it. At most `connections` at a time.
    """

    def __init__(self, url: str, *, verify: bool | ssl.SSLContext, connections: int) -> None:
        self._server = httpx.URL(url)
        self._tls = verify if isinstance(verify, ssl.SSLContext) else None
        self._places = threading.Semaphore(connections)
        self._changing = threading.Lock()
        self._idle: deque[tuple[http.client.HTTPConnection, float]] = deque()
        self._busy: dict[socket.socket, _Body | None] = {}
        self._ended = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and give its answer, the body still to come."""
        seconds = request.extensions["timeout"]
        if not self._places.acquire(timeout=seconds["pool"]):
            raise httpx.PoolTimeout("no connection is free", request=request)
        try:
            return self._exchanged(request, seconds)
        except BaseException:
            self._places.release()
            raise

    def close(self) -> None:
        """Close all connections, those too on which an answer comes."""
        with self._changing:
            self._ended = True
            idle, self._idle = self._idle, deque()
            busy = dict(self._busy)
        for connection, _ in idle:
            connection.close()
        for sock, body in busy.items():
            if body is not None:
                body.stopped = True  # the end that its reader will see is not the answer's
            with suppress(OSError):  # the server may have been first
                sock.shutdown(socket.SHUT_RDWR)
            if body is not None:
                body.close()

    def _exchanged(self, request: httpx.Request, seconds: Mapping[str, float]) -> httpx.Response:
        """Exchange a request for an answer; a GET once more when a kept connection turns out to be closed."""
        while True:
            connection = self._kept()
            is_kept = connection is not None
            try:
                if connection is None:
                    connection = self._connected(seconds["connect"])
                return self._asked(connection, request, seconds)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if not is_kept or request.method != "GET":
                    raise

    def _asked(
        self, connection: http.client.HTTPConnection, request: httpx.Request, seconds: Mapping[str, float]
    ) -> httpx.Response:
        sock = connection.sock
        with self._changing:
            self._busy[sock] = None
        try:
            sock.settimeout(seconds["write"])
            is_sent = _sent(connection, request)
            sock.settimeout(seconds["read"])
            with _errors(httpx.ReadTimeout, httpx.ReadError):
                answer = connection.getresponse()
                if any(isinstance(defect, _UNREADABLE) for defect in answer.msg.defects):
                    answer.close()
                    raise httpx.RemoteProtocolError("a line of the headers cannot be read")
        except BaseException:
            self._over(connection, sock, keep=False)
            raise

        def ended(whole: bool) -> None:  # noqa: FBT001 - it is the answer to one question
            self._over(connection, sock, keep=whole and is_sent and not answer.will_close)
            self._places.release()

        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
        body = _Body(answer, ended)
        with self._changing:
            self._busy[sock] = body
        return httpx.Response(answer.status, headers=headers, stream=body)

    def _kept(self) -> http.client.HTTPConnection | None:
        """Take the connection that was used last, if the server left it open."""
        while True:
            with self._changing:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if time.monotonic() - since < _IDLE and not poll.poll(0):
                return connection
            connection.close()

    def _connected(self, seconds: float) -> http.client.HTTPConnection:
        if self._ended:
            raise httpx.ConnectError("the client is closed")
        host, port = self._server.raw_host.decode("ascii"), self._server.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=seconds)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=seconds, context=self._tls)
        )
        connection.response_class = _Answer
        with _errors(httpx.ConnectTimeout, httpx.ConnectError):
            connection.connect()
        return connection

    def _over(self, connection: http.client.HTTPConnection, sock: socket.socket, *, keep: bool) -> None:
        """Keep a connection for the next request, or close it."""
        with self._changing:
            self._busy.pop(sock, None)
            keep = keep and not self._ended
            if keep:
                self._idle.append((connection, time.monotonic()))
        if not keep:
            connection.close()


class _Answer(http.client.HTTPResponse):
    """Pass over interim answers, all of them (RFC 9110 15.2)."""

    def begin(self) -> None:
        """Read up to the body of the final answer."""
        super().begin()
        while 100 < self.status < 200 and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment] # it reads no further as long as it has some
            super().begin()


def _sent(connection: http.client.HTTPConnection, request: httpx.Request) -> bool:
    """Send a request; tell whether all of it: who refuses one may close at once, and its answer still counts."""
    with _errors(httpx.WriteTimeout, httpx.WriteError):
        target = request.url.raw_path.decode("ascii")
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.raw:
            connection.putheader(name.decode("ascii"), value)
        connection.endheaders()
    try:
        with _errors(httpx.WriteTimeout, httpx.WriteError):
            write(connection.sock, request.stream)
    except httpx.WriteError:
        return False
    return True


class _Body(httpx.SyncByteStream):
    """Read a body as it comes; whoever closes it early closes its connection."""

    def __init__(self, answer: http.client.HTTPResponse, ended: Callable[[bool], None]) -> None:
        self._answer = answer
        self._ended = ended
        self.stopped = False
        self._whole = False
        self._closed = False
        self._using = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        """Yield what has come, as soon as it has; a body that breaks off closes its connection."""
        try:
            with _errors(httpx.ReadTimeout, httpx.ReadError):
                while piece := self._piece():
                    yield piece
                if self._answer.length or self.stopped:
                    raise httpx.RemoteProtocolError("the connection ended before the body")
        except BaseException:
            self.close()
            raise
        self._whole = True

    def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        with self._using:
            if self._closed:
                return
            self._closed = True
            self._answer.close()
        self._ended(self._whole)

    def _piece(self) -> bytes:
        """Read what has come, nothing at the end."""
        with self._using:
            if self._closed:
                raise httpx.ReadError("the client is closed")
            return self._answer.read1(_PIECE)


@contextmanager
def _errors(late: type[httpx.TimeoutException], broken: type[httpx.NetworkError]) -> Iterator[None]:
    """Raise as httpx's what sockets and `http.client` raise."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except http.client.RemoteDisconnected as error:
        raise httpx.RemoteProtocolError("closed without sending a response") from error
    except OSError as error:
        raise broken(str(error)) from error
    except http.client.HTTPException as error:
        raise httpx.RemoteProtocolError("the answer is not HTTP, or broke off") from error
    except ValueError as error:
        raise httpx.LocalProtocolError("a header cannot be sent") from error
