"""Serve the pages on a port, in a thread of this process."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from gateway.admin import password
from gateway.admin.access import Access, local_names
from gateway.admin.pages import Pages
from gateway.admin.parts import Parts
from gateway.admin.watch import Watch
from gateway.config import Admin, ServerTls
from gateway.errors import ConfigError, Fault

_GRACE = 2  # seconds for running requests at the stop
_MOST_REQUESTS = 100  # at the same time; more are answered 503


@contextmanager
def serving(parts: Parts, settings: Admin, listener: socket.socket) -> Iterator[None]:
    """Watch and serve inside the context; raises ConfigError when a file it needs is not what it should be."""
    secret = _secret(settings.password_file)
    hosts = local_names(settings.host) if settings.is_open else ()
    with Watch(parts) as watch:
        guarded = Access(Pages(parts, watch).application(), secret=secret, hosts=hosts)
        with _served(guarded, settings.tls, listener):
            yield


def _secret(path: Path | None) -> str:
    """Read the line of the password file, "" for none."""
    if path is None:
        return ""
    try:
        line = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}"
        raise ConfigError("admin", (Fault("admin.password_file", problem),)) from error
    if not password.is_hash(line):
        problem = f"{path} has no line from 'dicom-gateway admin-password'"
        raise ConfigError("admin", (Fault("admin.password_file", problem),))
    return line


@contextmanager
def _served(application: ASGIApp, tls: ServerTls | None, listener: socket.socket) -> Iterator[None]:
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
