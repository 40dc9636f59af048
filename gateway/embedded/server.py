"""Run the embedded archive on a port of its own, in threads of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
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

    Entering raises OSError when the folder cannot be used or the port cannot be bound.
    """

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", port: int = 0, switches: Switches | None = None
    ) -> None:
        self.switches = switches or Switches()
        self._folder = folder
        self._address = (host, port)
        self._port = port

    @property
    def url(self) -> str:
        """Return the base of the archive's resources, version 2 of the service; valid within the with block."""
        host = self._address[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/v2"

    def __enter__(self) -> Self:
        files = Files(self._folder)
        self._socket = _listen(self._address)
        try:
            self._port = self._socket.getsockname()[1]
            self._index = Index(self._folder / "index.sqlite3")
            files.sweep(self._index.files())
            self._server = _Server(Service(self._index, files, self.switches))
            self._thread = threading.Thread(
                target=self._server.run, args=([self._socket],), name="embedded-archive", daemon=True
            )
            self._thread.start()
            self._server.wait()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._index.close()
        self._socket.close()


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


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # with its protocol named: asyncio leaves Nagle on where it is 0, which costs 40 ms an answer
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
