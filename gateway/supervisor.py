"""Run the gateway as processes: the embedded archive, the status page, one that delivers, N that receive.

They share the listening socket, the outbox and what they count, nothing else. This process has no threads, so that
it can fork at any time, and does nothing but start again what ends; what a dead process had under way, the outbox
knows.
"""

import ctypes
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess
from typing import Any

import structlog

from gateway import metrics, signals
from gateway.app import (
    ADMIN,
    Gateway,
    administering,
    counting,
    delivering,
    embedded,
    open_admin_port,
    open_embedded_port,
    open_port,
    receiving,
    spool,
    uses_embedded,
)
from gateway.config import EMBEDDED, Config
from gateway.errors import ConfigError, Fault
from gateway.metrics import Metrics

log = structlog.get_logger("gateway")

Part = Callable[[], AbstractContextManager[Any]]

SUPERVISOR = "supervisor"

_STOP = signal.SIGUSR1  # not SIGTERM, which a service manager sends to every process at once
_SETTLED = 10.0  # seconds after which a start counts as a success
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_RELUCTANCE = 10.0  # seconds beyond the grace time
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Child:
    """Hold a part of the gateway and the process that runs it; times in seconds."""

    name: str
    part: Part
    rank: int
    process: ForkProcess | None = None
    begun: float = 0.0
    pause: float = _FIRST_PAUSE
    again_at: float = field(default=0.0)


class Supervisor:
    """Start processes, watch over them, and stop them in the reverse order."""

    def __init__(self, grace: float, counts: Metrics) -> None:
        self._grace = grace
        self._metrics = counts
        self._recorder = counts.of(SUPERVISOR)
        self._children: list[_Child] = []

    def add(self, name: str, part: Part, *, rank: int) -> Any:
        """Run a part in a process of its own and return what it gives; raises the ConfigError that it raised.

        Those of the highest `rank` are stopped first, together.
        """
        child = _Child(name, part, rank)
        answer = self._start(child)
        if isinstance(answer, ConfigError):
            raise answer
        self._children.append(child)
        return answer

    def watch(self, stop: int) -> None:
        """Start again whatever ends, until the descriptor `stop` can be read."""
        while True:
            running = {child.process.sentinel: child for child in self._children if child.process is not None}
            waiting = [child.again_at for child in self._children if child.process is None]
            timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
            ready = connection.wait([stop, *running], timeout)
            if stop in ready:
                return
            for sentinel in ready:
                self._note_end(running[sentinel])  # type: ignore[index]
            for child in self._children:
                if child.process is None and child.again_at <= time.monotonic():
                    self._start_again(child)

    def stop(self) -> None:
        """Stop the processes, those of the highest rank first; each has its grace time and a little more."""
        for rank in sorted({child.rank for child in self._children}, reverse=True):
            processes = [
                child.process for child in self._children if child.rank == rank and child.process is not None
            ]
            for process in processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, _STOP)
            until = time.monotonic() + self._grace + _RELUCTANCE
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
                if process.is_alive():
                    log.error("a process does not stop and is killed", process=process.name)
                    process.kill()
                    process.join()

    def _start(self, child: _Child) -> Any:
        ours, theirs = connection.Pipe(duplex=False)
        child.begun = time.monotonic()
        arguments = (child.part, theirs, os.getpid())
        child.process = get_context("fork").Process(target=_run, args=arguments, name=child.name)
        child.process.start()
        self._recorder.add(metrics.PROCESS_STARTS, child.name)
        self._recorder.set(metrics.PROCESS_UP, child.name, value=1)
        theirs.close()
        try:
            return ours.recv()
        except EOFError:
            return ConfigError(child.name, (Fault(child.name, "its process ended while it started; see the log"),))
        finally:
            ours.close()

    def _note_end(self, child: _Child) -> None:
        process, child.process = child.process, None
        if process is None:
            return
        process.join()
        self._recorder.set(metrics.PROCESS_UP, child.name, value=0)
        self._metrics.of(child.name).end()
        child.pause = _FIRST_PAUSE if time.monotonic() - child.begun > _SETTLED else child.pause * 2
        child.again_at = time.monotonic() + min(child.pause, _LONGEST_PAUSE)
        log.error("a process ended and is started again", process=child.name, exit_code=process.exitcode)

    def _start_again(self, child: _Child) -> None:
        answer = self._start(child)
        if isinstance(answer, ConfigError):
            log.error("a process cannot be started", process=child.name, reason=str(answer))


def _run(part: Part, answer: "connection.Connection", parent: int) -> None:
    """Be the child: run a part until told to stop, or until the parent is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stop = signals.descriptor(_STOP)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _STOP)
    if os.getppid() != parent:
        return
    try:
        with part() as given:
            answer.send(given)
            answer.close()
            os.read(stop, 1)
    except ConfigError as error:
        answer.send(error)


@contextmanager
def supervised(config: Config) -> Iterator[tuple[Gateway, Supervisor]]:
    """Run a gateway in processes; raises ConfigError when the machine does not allow what it asks for."""
    with ExitStack() as stack:
        stack.enter_context(spool(config))
        listener = stack.enter_context(open_port(config))
        port = listener.getsockname()[1]
        census = stack.enter_context(counting(config))
        receivers = [f"receiver-{number + 1}" for number in range(config.listen.workers)]
        counts = Metrics([SUPERVISOR, "archive", ADMIN, "delivery", *receivers])
        gc.collect()
        gc.freeze()  # the collector writes to what it looks at, and would unshare the children's memory
        supervisor = Supervisor(config.listen.grace, counts)
        stack.callback(supervisor.stop)
        archives = dict(config.archives)
        if uses_embedded(config):
            own = stack.enter_context(open_embedded_port(config))
            archives[EMBEDDED] = supervisor.add("archive", partial(embedded, config, own), rank=0)
        page = ""
        if config.admin is not None:
            door = stack.enter_context(open_admin_port(config.admin))
            page = config.admin.url(door.getsockname()[1])
            part = partial(administering, config, config.admin, archives, counts, door)
            supervisor.add(ADMIN, part, rank=0)
            log.info("status page", url=page)
        supervisor.add("delivery", partial(delivering, config, archives, counts.of("delivery")), rank=1)
        for name in receivers:
            supervisor.add(name, partial(receiving, config, archives, counts.of(name), listener, census), rank=2)
        log.info("listening", host=config.listen.host, port=port, titles=", ".join(config.ae_titles))
        yield Gateway(config, port, page), supervisor
        log.info("stopping", grace=config.listen.grace)
        listener.shutdown(socket.SHUT_RDWR)  # for every process that has it: no new connection from now on
    log.info("stopped")
