"""Prove who we are, and learn who calls, by TLS 1.2 and 1.3 with forward secrecy (PS3.15 B.12, BCP 195)."""

import hashlib
import os
import ssl
import threading
from pathlib import Path

import structlog

from gateway.config import ClientTls, ServerTls
from gateway.errors import ConfigError, Fault

log = structlog.get_logger("gateway.dimse")

# RFC 9325 4.2 for TLS 1.2, which leaves no NULL, RC4, 3DES, CBC or static key exchange; 1.3 has nothing else
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
_GROUP = str(Path(__file__).with_name("ffdhe3072.pem"))  # RFC 7919; without a group no DHE suite is ever agreed on
FINGERPRINT = "sha256:"

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Hold the port's certificate, key and authorities, and take up new ones once their files have changed.

    Raises ConfigError when they cannot be used at first; later such files are logged and the old ones stay in use.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._turn = threading.Lock()
        self._stamp = _stamp(tls)
        try:
            self._context = server_context(tls)
        except OSError as error:
            fault = Fault("listen.tls", f"certificate, key or ca cannot be used: {_words(error)}")
            raise ConfigError("listen.tls", (fault,)) from error

    def context(self) -> ssl.SSLContext:
        """Give what the next handshake is done with; safe from any thread."""
        with self._turn:
            stamp = _stamp(self._tls)
            if stamp != self._stamp:
                self._renew(stamp)
            return self._context

    def _renew(self, stamp: _Stamp) -> None:
        self._stamp = stamp  # whoever renews may be half through: the next change is looked at again
        try:
            self._context = server_context(self._tls)
        except OSError as error:
            log.error("renewed certificate cannot be used; the old one stays", reason=_words(error))
        else:
            log.info("certificate renewed", certificate=str(self._tls.certificate))


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make the context of a listening port; with `ca` it demands client certificates. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_dh_params(_GROUP)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the context for a call to a peer, whose certificate and name are checked. Raises OSError.

    The files are read for each call: renewed ones are in use at once.
    """
    context = ssl.create_default_context(cafile=tls.ca)
    _restrict(context)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def names_of(sock: object) -> frozenset[str]:
    """Give what a caller's verified certificate proves: subject common names, alternative names, fingerprint.

    In lower case, the fingerprint as `sha256:` and hexadecimal digits; empty without a certificate or TLS.
    """
    if not isinstance(sock, ssl.SSLSocket):
        return frozenset()
    certificate, encoded = sock.getpeercert(), sock.getpeercert(binary_form=True)
    if not certificate or encoded is None:
        return frozenset()
    alternative: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())  # type: ignore[assignment]
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())  # type: ignore[assignment]
    common = [value for part in subject for kind, value in part if kind == "commonName"]
    names = {value.lower() for value in (*common, *(value for _, value in alternative))}
    return frozenset({*names, FINGERPRINT + hashlib.sha256(encoded).hexdigest()})


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION


def _stamp(tls: ServerTls) -> _Stamp:
    return tuple(_of_file(path) for path in (tls.certificate, tls.key, tls.ca) if path is not None)


def _of_file(path: Path) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - the link's target, as a renewal replaces it
    except OSError:
        return (0, 0, 0)  # between two renames, perhaps
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _words(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
