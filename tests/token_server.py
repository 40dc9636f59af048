"""A real token server and an archive that only opens to its tokens, over HTTP or TLS, on one port."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import trustme

CLIENT, SECRET = "gateway", "s3cret/with+signs"
_BASIC = "Basic " + base64.b64encode(f"{CLIENT}:s3cret%2Fwith%2Bsigns".encode()).decode()  # RFC 6749 2.3.1


@dataclass
class Keeper:
    """Issue tokens, know which are good, and remember what was asked; `life` and `delay` are in seconds."""

    url: str = ""
    life: float = 3600
    status: int = 200
    delay: float = 0
    issued: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    federated: str = ""  # the assertion of a cluster that is believed

    def issue(self) -> str:
        token = f"token-{len(self.issued) + 1}"
        self.issued.append(token)
        self.good.add(token)
        return token

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer a request for a token."""
        self.forms.append(form)
        time.sleep(self.delay)
        known = (
            authorization == _BASIC
            or (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
            or "assertion" in form  # a service account's, signed with its key
            or (self.federated and form.get("client_assertion") == self.federated)
        )
        if self.status != 200 or not known:
            status = self.status if self.status != 200 else 401
            return status, {"error": "invalid_client", "error_description": f"AADSTS7000215: {SECRET}"}
        return 200, {"access_token": self.issue(), "token_type": "Bearer", "expires_in": self.life}

    def discovery(self, tenant: str) -> dict[str, str]:
        """Answer what Azure's library asks of an authority."""
        base = f"{self.url}/{tenant}"
        endpoints = {"token_endpoint": "token", "authorization_endpoint": "authorize"}
        return {"issuer": f"{base}/v2.0"} | {key: f"{base}/oauth2/v2.0/{end}" for key, end in endpoints.items()}


def _handler(keeper: Keeper) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            self.answer(*keeper.token(form, self.headers.get("Authorization", "")))

        def do_GET(self) -> None:
            if self.path.endswith("/.well-known/openid-configuration"):
                self.answer(200, keeper.discovery(self.path.split("/")[1]))
            else:
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self.answer(204 if token in keeper.good else 401, None)

        def answer(self, status: int, document: Any) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, keeper: Keeper, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _handler(keeper))
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread."""
        try:
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError:  # a client that does not trust us, or that we do not trust, is what is tested
            pass
        finally:
            request.close()


@contextmanager
def keeping(
    keeper: Keeper, *, authority: trustme.CA | None = None, folder: Path | None = None, ask_clients: bool = False
) -> Iterator[Keeper]:
    """Run it; with an authority it speaks TLS, and with `ask_clients` only to whom that authority knows."""
    context = None
    if authority is not None:
        assert folder is not None
        authority.cert_pem.write_to_path(folder / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        if ask_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            authority.configure_trust(context)
    server = _Server(keeper, context)
    keeper.url = f"http{'s' if authority else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield keeper
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
