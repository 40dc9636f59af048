"""Examine what the machine gives: disk, names, certificates."""

import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import Archive, Config
from gateway.doctor.finding import Finding, fault, note, ok

_DAY = 86_400
_SOON = 30  # days before a certificate's end from which on it is told
_TIMEOUT = 5.0
_ROOM = 5_000_000_000  # bytes


def disk(config: Config) -> Iterator[Finding]:
    """Examine the spool's folder: is it there, may we write, is there room below the high-water mark."""
    folder = config.spool.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            total, used, free = shutil.disk_usage(folder)
    except OSError as error:
        advice = "make it, give it to the user that runs the gateway, or name another in spool.folder"
        yield fault("spool", f"{folder} cannot be used: {error.strerror}", advice)
        return
    left = total * config.spool.high_water - used
    if left <= 0:
        yield fault("spool", f"{used / total:.0%} of the disk are used, storing is refused", "make room")
    elif left < _ROOM:
        yield note("spool", f"{left / 1e9:.1f} GB until storing is refused", "make room, or raise spool.high_water")
    else:
        yield ok("spool", f"{folder} can be written, {free / 1e9:.0f} GB free")


def names(name: str, archive: Archive) -> Iterator[Finding]:
    """Examine whether the archive's host has an address."""
    host, about = urlsplit(archive.url).hostname or "", f"archive {name}"
    try:
        found = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, None)})
    except OSError:
        yield fault(about, f"{host} has no address", "correct archives.*.url, or the machine's name server")
        return
    yield ok(about, f"{host} is {', '.join(found)}")


def certificate_of(name: str, archive: Archive) -> Iterator[Finding]:
    """Examine the certificate that the archive shows; through a proxy it is not looked at."""
    parts, about = urlsplit(archive.url), f"archive {name}"
    if parts.scheme != "https" or archive.proxy:
        return
    context = ssl.create_default_context(cafile=str(archive.ca) if archive.ca else None)
    if archive.certificate:
        context.load_cert_chain(archive.certificate, archive.key)
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), _TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            yield _life(about, "its certificate", secure.getpeercert())
    except ssl.SSLCertVerificationError as error:
        advice = "name the authority's PEM file in archives.*.ca, or have the certificate renewed"
        yield fault(about, f"its certificate is not believed: {error.verify_message}", advice)
    except OSError as error:
        yield fault(
            about, f"no TLS connection: {error.strerror or error}", "see whether host, port and firewall are right"
        )


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
        reason = error.strerror if not isinstance(error, ssl.SSLError) else error.reason
        return fault(about, f"{certificate} cannot be used: {reason}", f"correct {option} and its key")
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
