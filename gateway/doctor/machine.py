"""Examine what the machine gives: disk, names, certificates."""

import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from gateway.app import uses_embedded
from gateway.config import Archive, Config
from gateway.doctor.finding import Finding, fault, note, ok

_DAY = 86_400
_SOON = 30  # days before a certificate's end from which on it is told
_TIMEOUT = 5.0
_ROOM = 5_000_000_000  # bytes


def disk(config: Config) -> Iterator[Finding]:
    """Examine the folders in which instances rest: are they there, may we write, is there room."""
    yield _folder("spool", "spool.folder", config.spool.folder, config.spool.high_water)
    if config.embedded.folder is not None and uses_embedded(config):
        yield _folder("archive embedded", "embedded.folder", config.embedded.folder, 1.0)


def _folder(about: str, option: str, folder: Path, high_water: float) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            total, used, free = shutil.disk_usage(folder)
    except OSError as error:
        advice = f"make it, give it to the user that runs the gateway, or name another in {option}"
        return fault(about, f"{folder} cannot be used: {error.strerror}", advice)
    left = min(total * high_water - used, free)
    if left <= 0:
        return fault(about, f"{used / total:.0%} of the disk are used, storing is refused", "make room")
    if left < _ROOM:
        return note(about, f"{left / 1e9:.1f} GB until storing is refused", "make room, or raise spool.high_water")
    return ok(about, f"{folder} can be written, {free / 1e9:.0f} GB free")


def names(name: str, archive: Archive) -> Iterator[Finding]:
    """Examine whether the archive's host has an address, unless it is one."""
    host, about = urlsplit(archive.url).hostname or "", f"archive {name}"
    with suppress(ValueError):
        ip_address(host)
        return
    try:
        found = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, None)})
    except OSError:
        yield fault(about, f"{host} has no address", "correct archives.*.url, or the machine's name server")
        return
    yield ok(about, f"{host} is {', '.join(found)}")


def listens(host: str, port: int) -> bool:
    """Say whether somebody listens on a port."""
    try:
        socket.create_connection((host, port), _TIMEOUT).close()
    except OSError:
        return False
    return True


def certificate_of(name: str, archive: Archive) -> Iterator[Finding]:
    """Examine the certificate that the archive shows; through a proxy it is not looked at."""
    parts = urlsplit(archive.url)
    if parts.scheme == "https" and not archive.proxy:
        files = Proof(f"archives.{name}", archive.ca, archive.certificate, archive.key)
        host = parts.hostname or ""
        yield shown_certificate(f"archive {name}", (host, parts.port or 443), files, server_name=host)


@dataclass(frozen=True, slots=True)
class Proof:
    """Name the files with which the other side of a connection is believed and with which we prove ourselves."""

    option: str
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def context(self) -> ssl.SSLContext:
        """Make the client's TLS context; raises OSError when a file cannot be used."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def shown_certificate(about: str, address: tuple[str, int], files: Proof, *, server_name: str) -> Finding:
    """Examine the certificate that is shown at an address, and whether the files believe it."""
    try:
        context = files.context()
    except OSError as error:
        reason = _reason(error)
        return fault(
            about,
            f"its certificate files cannot be used: {reason}",
            f"correct ca, certificate and key of {files.option}",
        )
    try:
        with (
            socket.create_connection(address, _TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as secure,
        ):
            return _life(about, "its certificate", secure.getpeercert())
    except ssl.SSLCertVerificationError as error:
        advice = f"name the authority's PEM file in {files.option}.ca, or have the certificate renewed"
        return fault(about, f"its certificate is not believed: {error.verify_message}", advice)
    except OSError as error:
        advice = "see whether host, port and firewall are right"
        return fault(about, f"no TLS connection: {_reason(error)}", advice)


def _reason(error: OSError) -> str:
    """Word an error of the system or of TLS; the latter has no text of the system's."""
    return str(error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or error)


def own_certificate(about: str, option: str, certificate: Path, key: Path | None) -> Finding:
    """Examine a certificate of ours: a handshake with ourselves, which believes just this certificate."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        server.load_cert_chain(certificate, key)
        client.load_verify_locations(certificate)
        shown = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        return fault(about, f"{certificate}: {error.verify_message}", f"renew the certificate in {option}")
    except OSError as error:
        return fault(about, f"{certificate} cannot be used: {_reason(error)}", f"correct {option} and its key")
    return _life(about, str(certificate), shown)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object] | None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up)
    for side in (theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return dict(theirs.getpeercert() or {})


def _life(about: str, what: str, shown: object) -> Finding:
    end = shown.get("notAfter") if isinstance(shown, dict) else None
    if not isinstance(end, str):
        return note(about, f"{what} does not say when it ends", "look at it with openssl x509")
    days = int((ssl.cert_time_to_seconds(end) - time.time()) / _DAY)
    if days < _SOON:
        return note(about, f"{what} ends in {days} days", "have it renewed")
    return ok(about, f"{what} is good for {days} days")
