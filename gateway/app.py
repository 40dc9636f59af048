"""Build the parts of the gateway from its configuration; they run in one process here, in several under `supervisor`.

Each part is a context manager, started when it is entered and stopped when it is left.
"""

import fcntl
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from gateway import metrics, recent
from gateway.admin import Parts, serving
from gateway.audit import Keeper, Source, Trail
from gateway.audit_options import Audit
from gateway.cache import RecentObjects, emptied
from gateway.commitment import Judge, Register, Transaction
from gateway.config import EMBEDDED, Admin, Archive, CalledTitle, Config
from gateway.connecting import cache, cache_folder, connect, recent_objects
from gateway.delivery import Breaker, Circuit, Delivery, RetryPolicy, Settings, Uploader, stop_all
from gateway.dicomweb.client import Client
from gateway.dimse import echo
from gateway.dimse.census import Census
from gateway.dimse.ports import Ports, open_ports
from gateway.dimse.records import Records
from gateway.dimse.rejecting import Rejecting
from gateway.dimse.reporter import Reporter
from gateway.dimse.scp import Scp
from gateway.dimse.session import Route
from gateway.embedded import server as embedded_server
from gateway.embedded.server import EmbeddedArchive
from gateway.errors import ConfigError, Fault, GatewayError
from gateway.metrics import Metrics, Recorder
from gateway.outbox import Entry, Limits, Outbox, State
from gateway.recent import Recent
from gateway.rejection import Action, Auditor, Rejector, Tombstones
from gateway.translate.rejection_note import TITLES
from gateway.translate.stow_outcomes import Verdict

log = structlog.get_logger("gateway")

Archives = Mapping[str, Archive]

ADMIN = "admin"
"""The name of the process that serves the status page."""

_ECHO_TIMEOUT = 10.0  # seconds for each step


@dataclass(frozen=True, slots=True)
class Gateway:
    """Hold what a running gateway offers to whoever started it; `page` is the status page's URL, "" for none."""

    config: Config
    port: int
    tls_port: int | None = None
    page: str = ""


@contextmanager
def running(config: Config) -> Iterator[Gateway]:
    """Run a gateway in this process; raises ConfigError when the machine does not allow what it asks for."""
    with ExitStack() as stack:
        stack.enter_context(spool(config))
        archives = dict(config.archives)
        if uses_embedded(config):
            archives[EMBEDDED] = stack.enter_context(embedded(config, open_embedded_port(config)))
        ports = stack.enter_context(take_ports(config))
        census = stack.enter_context(counting(config))
        recorder = Recorder()
        stack.enter_context(delivering(config, archives, recorder))
        stack.enter_context(receiving(config, archives, recorder, ports, census))
        log_ports(config, ports)
        yield Gateway(config, ports.port, ports.tls_port)
        log.info("stopping", grace=config.listen.grace)
    log.info("stopped")


@contextmanager
def spool(config: Config) -> Iterator[None]:
    """Keep a second gateway out of the spool: each of them knows its own archives only."""
    folder = config.spool.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError("spool", (Fault("spool.folder", f"{folder} cannot be used: {error.strerror}"),)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fault = Fault("spool.folder", f"{folder} is in use by another gateway")
            raise ConfigError("spool", (fault,)) from error
        recent.prepare(_recent_file(config))
        with emptied(cache_folder(config)):
            yield


@contextmanager
def counting(config: Config) -> Iterator[Census]:
    """Count associations, in this process and in those that it forks."""
    with closing(Census(config.listen.max_associations)) as census:
        yield census


def uses_embedded(config: Config) -> bool:
    """Say whether the embedded archive is wanted: by a title, under the name that no other archive took."""
    return EMBEDDED not in config.archives and any(called.archive == EMBEDDED for called in config.ae_titles.values())


def open_embedded_port(config: Config) -> socket.socket:
    """Open the port of the embedded archive."""
    try:
        return embedded_server.listen(config.embedded.host, config.embedded.port)
    except OSError as error:
        raise ConfigError("embedded", (Fault("embedded", f"cannot listen: {error.strerror}"),)) from error


@contextmanager
def embedded(config: Config, listener: socket.socket) -> Iterator[Archive]:
    """Run the embedded archive and describe it as any other."""
    settings = config.embedded
    folder = settings.folder or config.spool.folder / "archive"
    with ExitStack() as stack:
        try:
            server = stack.enter_context(EmbeddedArchive(folder, host=settings.host, listener=listener))
        except OSError as error:
            fault = Fault("embedded", f"cannot be used: {error.strerror or error}")
            raise ConfigError("embedded", (fault,)) from error
        yield Archive(
            url=server.url,
            profile="embedded",
            max_scanned=settings.max_scanned,
            duplicates=settings.duplicates,
            delivery=settings.delivery,
        )


def log_ports(config: Config, ports: Ports) -> None:
    """Log where peers may call from now on."""
    listen = config.listen
    log.info(
        "listening", host=listen.host, port=ports.port, tls_port=ports.tls_port, titles=", ".join(config.ae_titles)
    )


def take_ports(config: Config) -> Ports:
    """Take the ports of the DIMSE side; they open when somebody serves them."""
    try:
        return open_ports(config.listen)
    except OSError as error:
        raise ConfigError("listen", (Fault("listen", f"cannot be used: {error.strerror}"),)) from error


@contextmanager
def receiving(config: Config, archives: Archives, recorder: Recorder, ports: Ports, census: Census) -> Iterator[Scp]:
    """Serve associations on ports that other processes may serve as well."""
    with ExitStack() as stack:
        outbox = stack.enter_context(_outbox(config))
        kept = recent_objects(config, archives, recorder)
        clients = {
            name: stack.enter_context(connect(name, archives[name], recorder, changed=kept[name].forget))
            for name in {called.archive for called in config.ae_titles.values()}
        }
        tombstones = _tombstones(stack, config)
        routes = {
            title: _route(called, archives[called.archive], clients[called.archive], outbox, kept, tombstones)
            for title, called in config.ae_titles.items()
        }
        seen = stack.enter_context(Recent(_recent_file(config)))
        records = Records(recorder, seen, config.peers, _trail(stack, config))
        yield stack.enter_context(Scp(config, routes, outbox, _register(stack, config), census, ports, records))


@contextmanager
def delivering(config: Config, archives: Archives, recorder: Recorder) -> Iterator[None]:
    """Deliver what the outbox holds, to every archive that is configured."""
    with ExitStack() as stack:
        outbox = stack.enter_context(_outbox(config))
        stack.enter_context(cache(config).tended())
        kept = recent_objects(config, archives, recorder)
        deliveries = []
        for name, archive in archives.items():
            pace = archive.delivery
            client = stack.enter_context(
                connect(name, archive, recorder, connections=pace.connections, changed=kept[name].forget)
            )
            settings = Settings(
                workers=pace.connections,
                duplicates=archive.duplicates,
                retry=RetryPolicy(first=pace.retry_first, longest=pace.retry_longest),
            )
            breaker = Breaker(observe=partial(_note_circuit, recorder, name))
            observe = partial(_note_delivery, recorder)
            deliveries.append(Delivery(outbox, client, settings, breaker=breaker, observe=observe))
        stack.callback(stop_all, deliveries, config.listen.grace)
        for delivery in deliveries:
            delivery.start()
        if config.audit is not None:
            stack.enter_context(Keeper(audit_folder(config), config.audit.syslog, config.audit.keep))
        _warn_of_orphans(outbox, archives)
        _commit(stack, config, archives, outbox, recorder)
        yield


def _commit(stack: ExitStack, config: Config, archives: Archives, outbox: Outbox, recorder: Recorder) -> None:
    """Judge storage commitments and report on them, act upon rejection notes; one process of a gateway does."""
    register = _register(stack, config)
    tombstones = _tombstones(stack, config)
    # Connections of its own: neither does a question wait for a backlog, nor an instance for a thousand questions
    kept = recent_objects(config, archives, recorder)
    connections = Judge.CONNECTIONS + Rejector.CONNECTIONS
    clients = {
        name: stack.enter_context(
            connect(name, archive, recorder, connections=connections, changed=kept[name].forget)
        )
        for name, archive in archives.items()
    }
    stack.enter_context(Reporter(config, register))

    def rejected(transaction: Transaction, instances: Sequence[str]) -> Collection[str]:
        called = config.ae_titles.get(transaction.called)
        if tombstones is None or called is None or not _actions(called):
            return ()
        return tombstones.hidden(transaction.archive, instances)

    judge = Judge(register, outbox, clients, patience=config.commitment.patience, rejected=rejected)
    stack.enter_context(judge)
    if tombstones is not None:
        _warn_of_powerless(config)
        auditor = Auditor(_trail(stack, config), patients=config.audit is not None and config.audit.patients)
        stack.enter_context(Rejector(tombstones, outbox, clients, auditor))


def open_admin_port(settings: Admin) -> socket.socket:
    """Open the port of the status page."""
    try:
        return embedded_server.listen(settings.host, settings.port)
    except OSError as error:
        raise ConfigError("admin", (Fault("admin", f"cannot listen: {error.strerror}"),)) from error


@contextmanager
def administering(
    config: Config,
    settings: Admin,
    archives: Archives,
    counts: Metrics,
    recorder: Recorder,
    listener: socket.socket,
) -> Iterator[None]:
    """Serve the status page, the metrics and the health of a gateway that counts in `counts`."""
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(connect(name, archive, recorder, connections=1))
            for name, archive in archives.items()
        }
        own = next(iter(config.ae_titles))
        parts = Parts(
            config=config,
            metrics=counts,
            outbox=stack.enter_context(_outbox(config)),
            recent=stack.enter_context(Recent(_recent_file(config))),
            tombstones=_tombstones(stack, config),
            archives=clients,
            echo=lambda title: echo.ask(title, config.peers[title], calling=own, timeout=_ECHO_TIMEOUT),
        )
        stack.enter_context(serving(parts, settings, listener))
        yield


def outbox_folder(config: Config) -> Path:
    """Say where the outbox lies."""
    return config.spool.folder / "outbox"


def audit_folder(config: Config) -> Path:
    """Say where the audit trail lies."""
    folder = config.audit.folder if config.audit is not None else None
    return folder or config.spool.folder / "audit"


def audit_source(config: Config) -> Source:
    """Say who reports to the audit trail: this process of this gateway."""
    audit = config.audit or Audit()
    return Source(audit.source, audit.site, tuple(config.ae_titles), os.getpid(), socket.gethostname())


def _trail(stack: ExitStack, config: Config) -> Trail | None:
    if config.audit is None:
        return None
    return stack.enter_context(Trail(audit_folder(config), audit_source(config)))


def _note_delivery(recorder: Recorder, entry: Entry, verdict: Verdict) -> None:
    recorder.add(metrics.INSTANCES_SENT, entry.archive, str(verdict.disposition))


def _note_circuit(recorder: Recorder, archive: str, circuit: Circuit) -> None:
    recorder.set(metrics.CIRCUIT_OPEN, archive, value=float(circuit is not Circuit.CLOSED))


def _route(
    called: CalledTitle,
    archive: Archive,
    client: Client,
    outbox: Outbox,
    kept: Mapping[str, RecentObjects],
    tombstones: Tombstones | None,
) -> Route:
    actions = _actions(called)
    return Route(
        name=called.archive,
        client=client,
        uploader=Uploader(client, outbox.scratch, duplicates=archive.duplicates),
        acknowledge=called.acknowledge,
        duplicates=archive.duplicates,
        max_scanned=archive.max_scanned,
        recent=kept[called.archive],
        rejecting=Rejecting(client, tombstones, actions) if tombstones is not None and actions else None,
    )


def _actions(called: CalledTitle) -> Mapping[str, Action]:
    """Give what a called AE title has done by rejection notes, by the code of their title."""
    policies = {code: getattr(called.rejection, title.option) for code, title in TITLES.items()}
    return {code: action for code, action in policies.items() if action != "keep"}


def _outbox(config: Config) -> Outbox:
    limits = Limits(high_water=config.spool.high_water, quota=config.spool.quota, peer_quota=config.spool.peer_quota)
    try:
        return Outbox(outbox_folder(config), limits, make_room=cache(config).give_way)
    except ConfigError:
        raise
    except GatewayError as error:
        raise ConfigError("spool", (Fault("spool.folder", str(error)),)) from error


def _register(stack: ExitStack, config: Config) -> Register:
    try:
        return stack.enter_context(Register(config.spool.folder))
    except GatewayError as error:
        raise ConfigError("spool", (Fault("spool.folder", str(error)),)) from error


def _tombstones(stack: ExitStack, config: Config) -> Tombstones | None:
    """Open the table of rejections where a called AE title acts upon notes; else nobody looks anything up."""
    if not any(_actions(called) for called in config.ae_titles.values()):
        return None
    try:
        return stack.enter_context(Tombstones(config.spool.folder))
    except GatewayError as error:
        raise ConfigError("spool", (Fault("spool.folder", str(error)),)) from error


def _warn_of_powerless(config: Config) -> None:
    if not any("reject" in peer.allow for peer in config.peers.values()):
        log.warning("no rejection note will be heeded: no peer has reject in its allow")


def _warn_of_orphans(outbox: Outbox, archives: Archives) -> None:
    waiting = {total.archive for total in outbox.statistics().totals if total.state is not State.DONE}
    for name in sorted(waiting - archives.keys()):
        log.error("instances wait for an archive that is not configured; add it to archives", archive=name)


def _recent_file(config: Config) -> Path:
    return config.spool.folder / "recent.db"
