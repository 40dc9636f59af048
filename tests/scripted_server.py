"""A real HTTP server on a socket: it answers from a script and remembers what it was sent."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False  # promise more than is sent
    wait: float = 0
    drop: bool = False  # close the connection instead of answering
    reset: bool = False  # reset the connection in the middle of the request's body


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # the port it came from
    when: float = field(default_factory=time.monotonic)


class Script:
    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.requests: list[Request] = []
        self.url = ""
        self.over = threading.Event()


@contextmanager
def scripted(
    *answers: Answer, keep: int = 1 << 62, dated: bool = True, tls: ssl.SSLContext | None = None
) -> Iterator[Script]:
    """Answer from a script, the last answer for ever; of each body `keep` bytes are remembered.

    Without `dated` an answer has no Date but its own; with `tls` the server speaks TLS.
    """
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            left, body = int(self.headers.get("Content-Length", 0)), bytearray()
            if answer.reset:
                left //= 2
            while left and (piece := self.rfile.read(min(left, 1 << 20))):
                left -= len(piece)
                body += piece[: max(0, keep - len(body))]
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.requests.append(Request(self.command, self.path, headers, bytes(body), self.client_address[1]))
            script.over.wait(answer.wait)
            if answer.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if answer.drop or answer.reset:
                self.close_connection = True
                return
            self.send_response(answer.status) if dated else self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body) + (100 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(answer.body)
            if answer.cut:
                self.close_connection = True

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"{_scheme(server, tls)}://127.0.0.1:{server.server_address[1]}/v2"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield script
    finally:
        script.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _scheme(server: ThreadingHTTPServer, tls: ssl.SSLContext | None) -> str:
    """Have the server speak TLS if it is to, and say what its URLs begin with."""
    if tls is None:
        return "http"
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return "https"
