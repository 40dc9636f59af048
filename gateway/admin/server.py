"""Serve the pages on a port, in a thread of this process."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from gateway.config import Admin
from gateway.errors import ConfigError, Fault

_GRACE = 2  # seconds for running requests at the stop
_MOST_REQUESTS = 100  # at the same time; more are answered 503


@contextmanager
def serving(application: ASGIApp, settings: Admin, listener: socket.socket) -> Iterator[None]:
    """Serve inside the context; raises ConfigError when TLS cannot be had as it is configured."""
    tls = settings.tls
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_MOST_REQUESTS,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.ca) if tls and tls.ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.ca else ssl.CERT_NONE,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigError("admin", (Fault("admin.tls", f"cannot be used: {error.strerror or error}"),)) from error
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="admin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """Leave the signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
