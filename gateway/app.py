"""Build the whole gateway from its configuration; the order of starting is the reverse order of stopping."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.config import EMBEDDED, Archive, Auth, BasicAuth, BearerAuth, Config
from gateway.dicomweb import auth
from gateway.dicomweb.client import Client
from gateway.dimse.scp import Scp
from gateway.embedded.server import EmbeddedArchive
from gateway.errors import ConfigError, Fault
from gateway.translate.profiles import PROFILES

log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Hold what a running gateway offers to whoever started it."""

    config: Config
    port: int
    archives: Mapping[str, Client]


@contextmanager
def running(config: Config) -> Iterator[Gateway]:
    """Run a gateway inside the context; raises ConfigError when the machine does not allow what it asks for."""
    with ExitStack() as stack:
        incoming = _incoming(stack, config)
        clients: dict[str, Client] = {}
        for name in sorted({called.archive for called in config.ae_titles.values()}):
            if name == EMBEDDED and EMBEDDED not in config.archives:
                archive = _embedded(stack, config)
            else:
                archive = config.archives[name]
            clients[name] = stack.enter_context(connect(name, archive))
        by_title = {title: clients[called.archive] for title, called in config.ae_titles.items()}
        try:
            scp = stack.enter_context(Scp(config, by_title, incoming))
        except OSError as error:
            raise ConfigError("listen", (Fault("listen", f"cannot be used: {error.strerror}"),)) from error
        log.info("listening", host=config.listen.host, port=scp.port, titles=", ".join(config.ae_titles))
        yield Gateway(config, scp.port, by_title)
        log.info("stopping", grace=config.listen.grace)
    log.info("stopped")


def connect(name: str, archive: Archive) -> Client:
    """Make the client of an archive."""
    return Client(
        archive.url,
        name=name,
        profile=PROFILES[archive.profile],
        auth=_sign_in(archive.auth),
        headers={key: value.get_secret_value() for key, value in archive.headers.items()},
        verify=str(archive.ca) if archive.ca is not None else True,
        connections=archive.connections,
        connect_timeout=archive.connect_timeout,
        read_timeout=archive.read_timeout,
        proxy=archive.proxy,
    )


def _sign_in(how: Auth) -> "auth.Auth | None":
    if isinstance(how, BasicAuth):
        password = how.password.get_secret_value() if how.password else _secret(how.password_file)
        return auth.Basic(how.username, password)
    if isinstance(how, BearerAuth):
        if how.token is not None:
            return auth.Bearer(how.token.get_secret_value())
        if how.token_file is not None:
            return auth.TokenFile(how.token_file)
    return None


def _secret(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(str(path), (Fault("password_file", f"cannot be read: {error.strerror}"),)) from error


def _incoming(stack: ExitStack, config: Config) -> Path:
    """Make the folder for instances under way and sweep what a killed process left: none was acknowledged.

    A lock keeps a second gateway out, which would sweep the first one's.
    """
    folder = config.spool.folder / "incoming"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context((config.spool.folder / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for stray in folder.iterdir():
            stray.unlink()
    except BlockingIOError as error:
        fault = Fault("spool.folder", f"{config.spool.folder} is in use by another gateway")
        raise ConfigError("spool", (fault,)) from error
    except OSError as error:
        fault = Fault("spool.folder", f"{folder} cannot be used: {error.strerror}")
        raise ConfigError("spool", (fault,)) from error
    return folder


def _embedded(stack: ExitStack, config: Config) -> Archive:
    embedded = config.embedded
    folder = embedded.folder or config.spool.folder / "archive"
    try:
        server = stack.enter_context(EmbeddedArchive(folder, host=embedded.host, port=embedded.port))
    except OSError as error:
        raise ConfigError("embedded", (Fault("embedded", f"cannot be used: {error.strerror or error}"),)) from error
    return Archive(url=server.url, profile="azure")
