"""A real HTTP proxy before an archive: it delays, refuses or changes what a test's rules say, and counts requests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Rule:
    """What becomes of a request: answered after `wait` seconds, with `status`, with a changed body, or cut.

    `explicit` is given where Explicit VR Little Endian is asked for.
    """

    wait: float = 0
    status: int | None = None
    change: Change = bytes
    cut_after: int | None = None
    explicit: bytes | None = None


@dataclass
class Proxy:
    """A running proxy; `rule` decides by the path, with DELETE before it, and may be replaced at any time."""

    url: str = ""
    rule: Callable[[str], Rule] = lambda _: Rule()
    paths: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def meddling(url: str) -> Iterator[Proxy]:
    """Run a proxy before the archive at `url`."""
    proxy = Proxy()
    client = httpx.Client(timeout=30, limits=httpx.Limits(max_connections=32))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/v2")
            proxy.paths.append(path)
            rule = proxy.rule(path)
            if proxy.over.wait(rule.wait):
                self.close_connection = True
                return
            if rule.explicit is not None and self.headers["Accept"].endswith("=1.2.840.10008.1.2.1"):
                self._send(200, "application/dicom", rule.explicit, None)
                return
            answer = client.get(url + path, headers={"Accept": self.headers["Accept"]})
            kind = answer.headers.get("Content-Type", "")
            self._send(rule.status or answer.status_code, kind, rule.change(answer.content), rule.cut_after)

        def do_POST(self) -> None:
            """Pass it on."""
            headers = {name: self.headers[name] for name in ("Accept", "Content-Type")}
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = client.post(url + self.path.removeprefix("/v2"), content=body, headers=headers)
            self._send(answer.status_code, answer.headers.get("Content-Type", ""), answer.content, None)

        def do_DELETE(self) -> None:
            path = self.path.removeprefix("/v2")
            proxy.paths.append(f"DELETE {path}")
            refused = proxy.rule(f"DELETE {path}").status
            self._send(refused or client.delete(url + path).status_code, "text/plain", b"", None)

        def _send(self, status: int, kind: str, body: bytes, cut_after: int | None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut_after])
            if cut_after is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}/v2"
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
