"""Examine both DIMSE sides: does the gateway listen, do the C-MOVE destinations answer C-ECHO."""

from collections.abc import Iterator

from gateway.config import ClientTls, Config, Peer
from gateway.dimse.scu import echo
from gateway.doctor.finding import Finding, fault, note, ok
from gateway.doctor.machine import Proof, listens, own_certificate, shown_certificate
from gateway.errors import DestinationUnreachable

_TIMEOUT = 5.0


def own_side(config: Config) -> Iterator[Finding]:
    """Examine the port on which peers call."""
    listen, title = config.listen, next(iter(config.ae_titles))
    host = "127.0.0.1" if listen.host in ("0.0.0.0", "::") else listen.host
    if listen.tls:
        yield own_certificate("listen", "listen.tls.certificate", listen.tls.certificate, listen.tls.key)
    if not listens(host, listen.port or 1):
        yield note("listen", f"nobody listens on {host}:{listen.port}", "start the gateway: dicom-gateway serve")
        return
    if listen.tls:
        yield ok("listen", f"somebody listens on {host}:{listen.port}, with TLS")
        return
    calling = next(iter(config.peers), "DOCTOR")
    try:
        echo(title, Peer(host=host, port=listen.port), calling=calling, timeout=_TIMEOUT)
    except DestinationUnreachable as error:
        if "result 1, source 1, reason 3" in error.problem:
            yield ok("listen", f"{title} listens on {host}:{listen.port} and rejects whom it does not know")
        else:
            advice = "see whether another program has the port, and the gateway's log"
            yield fault(
                "listen", f"{host}:{listen.port} is no gateway of this configuration: {error.problem}", advice
            )
        return
    yield ok("listen", f"{title} answers C-ECHO on {host}:{listen.port}")


def destinations(config: Config) -> Iterator[Finding]:
    """Send C-ECHO to every peer with host and port."""
    calling = next(iter(config.ae_titles))
    for title, peer in config.peers.items():
        about = f"peer {title}"
        if peer.host is None or peer.port is None:
            yield ok(about, "only calls; there is nothing to reach")
            continue
        if peer.tls is not None:
            yield from _certificates(title, peer.host, peer.port, peer.tls)
        try:
            echo(title, peer, calling=calling, timeout=_TIMEOUT)
        except DestinationUnreachable as error:
            advice = f"start it, correct peers.{title}.host and port, or let {calling} call there"
            yield fault(about, f"{peer.host}:{peer.port} {error.problem}", advice)
        else:
            yield ok(about, f"answers C-ECHO on {peer.host}:{peer.port}")


def _certificates(title: str, host: str, port: int, tls: ClientTls) -> Iterator[Finding]:
    """Examine what a peer's TLS port shows, and what we show it."""
    about, option = f"peer {title}", f"peers.{title}.tls"
    if tls.certificate is not None:
        yield own_certificate(about, f"{option}.certificate", tls.certificate, tls.key)
    files = Proof(option, tls.ca, tls.certificate, tls.key)
    yield shown_certificate(about, (host, port), files, server_name=tls.server_name or host)
