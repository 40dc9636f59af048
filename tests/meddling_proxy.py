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

    `kind` stands in place of the answer's Content-Type. What changes, deletes or shall fail is not passed on when it
    gets a `status`. `explicit` is given where Explicit VR Little Endian is asked for.
    """

    wait: float = 0
    status: int | None = None
    retry_after: str = ""
    kind: str = ""
    change: Change = bytes
    cut_after: int | None = None
    explicit: bytes | None = None


@dataclass
class Proxy:
    """A running proxy; `rule` decides by the path, with DELETE before it, and may be replaced at any time.

    `store_rule` is that of every POST.
    """

    url: str = ""
    rule: Callable[[str], Rule] = lambda _: Rule()
    store_rule: Rule = field(default_factory=Rule)
    paths: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


def _send(handler: BaseHTTPRequestHandler, rule: Rule, status: int, kind: str, body: bytes) -> None:
    status, body = rule.status or status, rule.change(body)
    handler.send_response(status)
    handler.send_header("Content-Type", rule.kind or kind)
    if rule.retry_after:
        handler.send_header("Retry-After", rule.retry_after)
    if status == 204:
        handler.end_headers()
        return
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: rule.cut_after])
    if rule.cut_after is not None:
        handler.close_connection = True


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
                _send(self, Rule(), 200, "application/dicom", rule.explicit)
                return
            if rule.status is not None and rule.status >= 400:
                _send(self, rule, rule.status, "text/plain", b"")
                return
            answer = client.get(url + path, headers={"Accept": self.headers["Accept"]})
            _send(self, rule, answer.status_code, answer.headers.get("Content-Type", ""), answer.content)

        def do_POST(self) -> None:
            headers = {name: self.headers[name] for name in ("Accept", "Content-Type")}
            body = self.rfile.read(int(self.headers["Content-Length"]))
            rule = proxy.store_rule
            if rule.status:
                _send(self, rule, rule.status, "text/plain", b"")
                return
            answer = client.post(url + self.path.removeprefix("/v2"), content=body, headers=headers)
            _send(self, rule, answer.status_code, answer.headers.get("Content-Type", ""), answer.content)

        def do_DELETE(self) -> None:
            path = self.path.removeprefix("/v2")
            proxy.paths.append(f"DELETE {path}")
            rule = proxy.rule(f"DELETE {path}")
            _send(self, rule, rule.status or client.delete(url + path).status_code, "text/plain", b"")

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
