"""Take connections from the listening ports, and give each a thread of its own."""

import errno
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import structlog

from gateway.dimse.ports import Ports

log = structlog.get_logger("gateway.dimse")

_BACKLOG = 256

Serve = Callable[[socket.socket, str, bool], None]
"""Serves a connection: its socket, the caller's IP address, whether it came to the port with TLS."""

Listening = Callable[[], AbstractContextManager[None]]
"""Is entered while connections are taken."""


class Acceptor:
    """Run `serve` in a thread for each connection; beyond `most` of them they are closed at once.

    Of one address, no more than `most_strangers` at a time may be without an association: a caller that only
    connects and is silent cannot take the room of all others.
    """

    def __init__(self, ports: Ports, serve: Serve, listening: Listening, *, most: int, most_strangers: int) -> None:
        self._ports = ports
        self._serve = serve
        self._listening = listening
        self._listens = ExitStack()
        self._most = most
        self._most_strangers = most_strangers
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._accept, name="acceptor", daemon=True)
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, str] = {}
        self._strangers: Counter[str] = Counter()
        self._stopping = False
        self._idle = os.eventfd(0, os.EFD_CLOEXEC)

    def start(self) -> None:
        """Open the ports; `listening` has been entered when this returns."""
        for listener in self._ports.sockets:
            listener.listen(_BACKLOG)  # not before: whoever can connect is served
        self._listens.enter_context(self._listening())  # not in the thread: who is told of the start may count on it
        self._thread.start()

    def stop(self) -> None:
        """Take no further connection in this process; a second call does nothing."""
        if self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        self._ports.close()
        with self._lock:
            self._note_idle()

    def close(self) -> None:
        """Let go of what `wait_idle` needs."""
        with self._lock:
            os.close(self._idle)
            self._idle = -1

    def introduce(self) -> None:
        """Count the connection of the calling thread as an association from now on."""
        with self._lock:
            self._introduce(threading.current_thread())

    def running(self) -> list[threading.Thread]:
        """Give the threads of connections that have not ended."""
        with self._lock:
            return list(self._threads)

    def wait_idle(self, other: int) -> None:
        """Wait, after `stop`, until no connection is left or the descriptor `other` can be read."""
        ready = select.poll()
        ready.register(self._idle, select.POLLIN)
        ready.register(other, select.POLLIN)
        ready.poll()

    def _accept(self) -> None:
        with self._listens:
            self._accept_until_stopped()

    def _accept_until_stopped(self) -> None:
        ready = select.poll()
        ready.register(self._wake, select.POLLIN)
        listeners = {listener.fileno(): listener for listener in self._ports.sockets}
        for descriptor in listeners:
            ready.register(descriptor, select.POLLIN)
        while not self._stopping:
            for descriptor, _ in ready.poll():
                if descriptor != self._wake and not self._accept_one(listeners[descriptor]):
                    return

    def _accept_one(self, listener: socket.socket) -> bool:
        """Take one connection; False when the ports were shut."""
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            return True  # another process was faster, or it is time to stop
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            log.error("cannot accept a connection", problem=str(error))
            time.sleep(0.1)  # out of descriptors: let some be closed
            return True
        sock.setblocking(True)
        caller = str(address[0])
        arguments = (sock, caller, listener is self._ports.secured)
        thread = threading.Thread(target=self._serve_one, args=arguments, daemon=True)
        with self._lock:  # together: a thread that is not started yet cannot be joined
            if len(self._threads) < self._most and self._strangers[caller] < self._most_strangers:
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no thread left: this peer's loss, not everybody's
                    log.error("cannot serve a connection", address=caller, problem=str(error))
                else:
                    self._threads[thread] = caller
                    self._strangers[caller] += 1
                    return True
        sock.close()
        return True

    def _serve_one(self, sock: socket.socket, caller: str, secured: bool) -> None:  # noqa: FBT001 - a thread's target
        try:
            self._serve(sock, caller, secured)
        finally:
            with self._lock:
                thread = threading.current_thread()
                self._introduce(thread)
                del self._threads[thread]
                self._note_idle()

    def _note_idle(self) -> None:
        if self._stopping and not self._threads and self._idle >= 0:
            os.eventfd_write(self._idle, 1)

    def _introduce(self, thread: threading.Thread) -> None:
        caller = self._threads[thread]
        if caller:
            self._threads[thread] = ""
            self._strangers[caller] -= 1
            if not self._strangers[caller]:
                del self._strangers[caller]  # else every address that ever called would be kept
