"""Run the embedded archive on a port of its own, in threads of this process."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

import uvicorn

from gateway.embedded.files import Files
from gateway.embedded.index import Index
from gateway.embedded.service import Service
from gateway.embedded.switches import Switches

_IDLE: Final = 300  # longer than clients keep an idle connection, so that none is closed under a request
_GRACE: Final = 5
"""Seconds that running requests have to finish when the archive stops."""


class EmbeddedArchive:
    """Serve a folder as a DICOMweb archive for the length of a with block; port 0 takes any free one.

    Instead of an address it takes a `listener`, from `listen`. Entering raises OSError when the folder cannot be
    used, another archive is using it, or the port is taken.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listener: socket.socket | None = None,
        switches: Switches | None = None,
    ) -> None:
        self.switches = switches or Switches()
        self._folder = folder
        self._address = (host, port)
        self._port = port
        self._listener = listener
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Return the base of the archive's resources, version 2 of the service; valid within the with block."""
        host = self._address[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/v2"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Open the folder and serve it; raises OSError when either fails."""
        with ExitStack() as stack:
            listener = self._listener or stack.enter_context(listen(*self._address))
            self._port = listener.getsockname()[1]
            files = Files(self._folder)
            stack.callback(files.close)
            try:
                index = Index(self._folder / "index.sqlite3")
                stack.callback(index.close)
                with index.reading() as lookup:
                    files.sweep(lookup.files())
            except sqlite3.Error as error:
                raise OSError(f"the index in {self._folder} cannot be used: {error}") from error
            server = _Server(Service(index, files, self.switches))
            thread = threading.Thread(target=server.run, args=([listener],), name="embedded-archive", daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            server.wait()
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Take no more requests, let running ones finish for a few seconds, and close the folder."""
        self._running.close()


class _Server(uvicorn.Server):
    """Leave the signals to the process that the archive is embedded in, and say when it listens."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                service.application(),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_GRACE,
                server_header=False,
                timeout_keep_alive=_IDLE,
                ws="none",
            )
        )
        self._up = threading.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self._up.set()

    def wait(self) -> None:
        self._up.wait()
        if not self.started:
            raise OSError("the embedded archive did not start")


def listen(host: str, port: int) -> socket.socket:
    """Open the port that the archive listens on; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that name their protocol only: 40 ms an answer otherwise
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
