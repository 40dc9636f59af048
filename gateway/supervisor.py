"""Run the gateway as processes: the embedded archive, the status page, one that delivers, N that receive.

They share the listening socket, the outbox and what they count, nothing else. This process has no threads, so that
it can fork at any time, and does nothing but start again what ends; what a dead process had under way, the outbox
knows.
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from typing import Any

import structlog

from gateway import audit, metrics, signals
from gateway.app import (
    ADMIN,
    Gateway,
    administering,
    audit_folder,
    audit_source,
    counting,
    delivering,
    embedded,
    log_ports,
    open_admin_port,
    open_embedded_port,
    receiving,
    spool,
    take_ports,
    uses_embedded,
)
from gateway.child import DRAIN, FIRST_PAUSE, STOP, Child
from gateway.config import EMBEDDED, Archive, Config
from gateway.dimse.census import Census
from gateway.dimse.ports import Ports
from gateway.errors import ConfigError, Fault
from gateway.metrics import Metrics
from gateway.reload import ConfigSource

log = structlog.get_logger("gateway")

SUPERVISOR = "supervisor"
ARCHIVE = "archive"

_LOOK = 2.0  # seconds between two looks at the configuration file
_SETTLED = 10.0  # seconds after which a start counts as a success
_LONGEST_START = 300.0  # seconds until a process has to serve: a large spool on a slow disk is looked through first
_LONGEST_PAUSE = 30.0
_RELUCTANCE = 10.0  # seconds beyond the grace time


class Supervisor:
    """Start processes, watch over them, and stop them in the reverse order.

    `came` is a descriptor of `signals` for SIGHUP and those at which it stops.
    """

    def __init__(self, grace: float, counts: Metrics, came: int) -> None:
        self._grace = grace
        self._came = came
        self._signals: set[int] = set()  # that came and were not followed yet
        self._metrics = counts
        self._recorder = counts.of(SUPERVISOR)
        self._children: list[Child] = []
        self._leaving: list[Child] = []

    def add(self, child: Child) -> Any:
        """Run a part in a process of its own and return what it gives; raises the ConfigError that it raised.

        Those of the highest rank are stopped first, together.
        """
        answer = self._start(child)
        if isinstance(answer, ConfigError):
            raise answer
        self._children.append(child)
        return answer

    def replace(self, children: Sequence[Child], grace: float) -> None:
        """Start processes, then let all former ones end but the lasting: what is under way there goes on.

        When one cannot start, the ConfigError that it raised is raised and everything is as before.
        """
        fresh: list[Child] = []
        try:
            for child in children:
                answer = self._start(child)
                if isinstance(answer, ConfigError):
                    self._let_go([child, *fresh], STOP)
                    for unused in children[len(fresh) + 1 :]:
                        self._metrics.give_back(unused.recorder)
                    raise answer
                fresh.append(child)
            old = [child for child in self._children if not child.lasting]
            self._children = [child for child in self._children if child.lasting] + fresh
            self._grace = max(grace, self._grace)
            self._let_go(old, DRAIN)
        finally:
            self._tell_who_is_up()

    def _tell_who_is_up(self) -> None:
        up = {child.name: child.process is not None for child in self._children}
        for (name,), _ in metrics.values(self._recorder.read(), metrics.PROCESS_UP):
            if name in up:
                self._recorder.set(metrics.PROCESS_UP, name, value=float(up[name]))
            else:
                self._recorder.forget(metrics.PROCESS_UP, name)

    def watch(self, reload: "Reload | None" = None) -> None:
        """Start again whatever ends, and reload at SIGHUP, until another signal comes."""
        while not self._signals - {signal.SIGHUP}:
            if reload is not None and (self._signals or reload.is_due()):
                self._signals.clear()
                reload.now()
            for child in self._children:
                self._look_after(child)
            self._wait(self._patience(reload))

    def _look_after(self, child: Child) -> None:
        """Start it again, or give it up, when it is time for that."""
        now = time.monotonic()
        if child.process is None:
            if child.again_at <= now:
                self._begin(child)
        elif child.answer is not None and child.begun + _LONGEST_START <= now:
            log.error("a process does not start and is killed", process=child.name, seconds=_LONGEST_START)
            child.process.kill()

    def _wait(self, seconds: float | None) -> None:
        """Wait for a signal, an answer or an end, and take note of it."""
        everybody = (*self._children, *self._leaving)
        running = {child.process.sentinel: child for child in everybody if child.process is not None}
        starting = {child.answer: child for child in everybody if child.answer is not None}
        for what in connection.wait([self._came, *starting, *running], 0 if self._signals else seconds):
            if what == self._came:
                self._signals |= signals.read(self._came)
            elif isinstance(what, connection.Connection):
                self._note_start(starting[what])
            else:
                self._note_end(running[what])  # type: ignore[index]

    def _patience(self, reload: "Reload | None") -> float | None:
        now = time.monotonic()
        until = [child.again_at - now for child in self._children if child.process is None]
        until += [child.begun + _LONGEST_START - now for child in self._children if child.answer is not None]
        if reload is not None and reload.looks:
            until.append(_LOOK)
        return max(0.0, min(until)) if until else None

    def _let_go(self, children: Sequence[Child], how: signal.Signals) -> None:
        for child in children:
            if child.process is None:  # it has ended already, and is not started again
                self._metrics.give_back(child.recorder)
                continue
            if child.process.is_alive() and child.process.pid is not None:
                os.kill(child.process.pid, how)
            self._leaving.append(child)

    def stop(self) -> None:
        """Stop the processes, those of the highest rank first; each has its grace time and a little more."""
        everybody = (*self._children, *self._leaving)
        for rank in sorted({child.rank for child in everybody}, reverse=True):
            processes = [child.process for child in everybody if child.rank == rank and child.process is not None]
            for process in processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, STOP)
            until = time.monotonic() + self._grace + _RELUCTANCE
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
                if process.is_alive():
                    log.error("a process does not stop and is killed", process=process.name)
                    process.kill()
                    process.join()

    def _start(self, child: Child) -> Any:
        """Run a part and give what it gives, or the ConfigError that kept it from that."""
        process, answer = self._begin(child)
        reason = "a signal came before its process had started"
        while not self._signals - {signal.SIGHUP}:
            ready = connection.wait([answer, self._came], child.begun + _LONGEST_START - time.monotonic())
            if answer in ready:
                return child.hear()
            if not ready:
                reason = f"its process does not start; it was given {_LONGEST_START:.0f} s"
                break
            self._signals |= signals.read(self._came)
        process.kill()
        process.join()
        child.hear()
        return ConfigError(child.name, (Fault(child.name, reason),))

    def _begin(self, child: Child) -> "tuple[ForkProcess, connection.Connection]":
        begun = child.begin()
        self._recorder.add(metrics.PROCESS_STARTS, child.name)
        self._recorder.set(metrics.PROCESS_UP, child.name, value=1)
        return begun

    def _note_start(self, child: Child) -> None:
        answer = child.hear()
        if isinstance(answer, ConfigError):
            log.error("a process cannot be started", process=child.name, reason=str(answer))

    def _note_end(self, child: Child) -> None:
        process, child.process = child.process, None
        if process is None:
            return
        process.join()
        self._note_start(child)  # unless it had answered
        if child in self._leaving:
            self._leaving.remove(child)
            self._metrics.give_back(child.recorder)
            log.info(
                "a process of the former configuration has ended", process=child.name, exit_code=process.exitcode
            )
            return
        self._recorder.set(metrics.PROCESS_UP, child.name, value=0)
        child.recorder.end()
        child.pause = FIRST_PAUSE if time.monotonic() - child.begun > _SETTLED else child.pause * 2
        child.again_at = time.monotonic() + min(child.pause, _LONGEST_PAUSE)
        log.error("a process ended and is started again", process=child.name, exit_code=process.exitcode)


class Reload:
    """Have a running gateway go over to a changed configuration; what cannot be taken up changes nothing."""

    def __init__(
        self, source: ConfigSource, supervisor: Supervisor, config: Config, parts: Callable[[Config], list[Child]]
    ) -> None:
        self._source = source
        self._supervisor = supervisor
        self._config = config
        self._parts = parts

    @property
    def looks(self) -> bool:
        """Say whether the file is looked at without being asked."""
        return self._config.reload_on_change

    def is_due(self) -> bool:
        """Say whether the file has changed and is to be taken up by itself."""
        return self.looks and self._source.has_changed()

    def now(self) -> None:
        """Take the file up for new associations, or log why not."""
        try:
            wanted = self._source.read(self._config)
            self._supervisor.replace(self._parts(wanted), wanted.listen.grace)
        except ConfigError as error:
            log.error("configuration not taken up; the former stays", reason=str(error))
            return
        self._config = wanted
        log.info("configuration taken up", file=str(self._source.path))
        if wanted.audit is not None:
            here = audit_source(wanted)
            write = partial(
                audit.alerted, kind=audit.Alert.CONFIGURATION, culprit=here.node, words="configuration changed"
            )
            audit.append(audit_folder(wanted), here, write)


@contextmanager
def supervised(config: Config, source: ConfigSource, came: int) -> Iterator[tuple[Gateway, Supervisor, Reload]]:
    """Run a gateway in processes, with a descriptor of `signals`.

    Raises ConfigError when the machine does not allow what it asks for.
    """
    with ExitStack() as stack:
        stack.enter_context(spool(config))
        ports = stack.enter_context(take_ports(config))
        census = stack.enter_context(counting(config))
        counts = Metrics([SUPERVISOR, ARCHIVE])
        gc.collect()
        gc.freeze()  # the collector writes to what it looks at, and would unshare the children's memory
        supervisor = Supervisor(config.listen.grace, counts, came)
        stack.callback(supervisor.stop)
        own: dict[str, Archive] = {}
        if uses_embedded(config):
            listener = stack.enter_context(open_embedded_port(config))
            child = Child(ARCHIVE, partial(embedded, config, listener), 0, counts.of(ARCHIVE), lasting=True)
            own[EMBEDDED] = supervisor.add(child)
        door = stack.enter_context(open_admin_port(config.admin)) if config.admin is not None else None
        common = _Common(own, ports, census, counts, door)
        for child in common.parts(config):
            supervisor.add(child)
        page = config.admin.url(door.getsockname()[1]) if config.admin and door else ""
        if page:
            log.info("status page", url=page)
        log_ports(config, ports)
        stack.enter_context(_audited(config))
        reload = Reload(source, supervisor, config, common.parts)
        yield Gateway(config, ports.port, ports.tls_port, page), supervisor, reload
        log.info("stopping", grace=config.listen.grace)
        ports.shut()  # for every process that has them
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Common:
    """Hold what all generations of processes have in common: the embedded archive, ports, counts."""

    own: Mapping[str, Archive]
    ports: Ports
    census: Census
    counts: Metrics
    door: socket.socket | None

    def parts(self, config: Config) -> list[Child]:
        """Give the processes that follow a configuration."""
        of = config.embedded
        changed = {"max_scanned": of.max_scanned, "duplicates": of.duplicates, "delivery": of.delivery}
        own = {name: archive.model_copy(update=changed) for name, archive in self.own.items()}
        archives = {**own, **config.archives}
        parts = []
        if config.admin is not None and self.door is not None:
            recorder = self.counts.lend()
            page = partial(administering, config, config.admin, archives, self.counts, recorder, self.door)
            parts.append(Child(ADMIN, page, 0, recorder))
        recorder = self.counts.lend()
        parts.append(Child("delivery", partial(delivering, config, archives, recorder), 1, recorder))
        for number in range(config.listen.workers):
            recorder = self.counts.lend()
            receive = partial(receiving, config, archives, recorder, self.ports, self.census)
            parts.append(Child(f"receiver-{number + 1}", receive, 2, recorder))
        return parts


@contextmanager
def _audited(config: Config) -> Iterator[None]:
    """Write start and stop into the audit trail (PS3.15 A.5.3.1)."""
    if config.audit is None:
        yield
        return
    folder, source = audit_folder(config), audit_source(config)
    audit.append(folder, source, partial(audit.activity, what=audit.Activity.START))
    try:
        yield
    finally:
        audit.append(folder, source, partial(audit.activity, what=audit.Activity.STOP))
