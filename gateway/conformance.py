"""Write the DICOM Conformance Statement (PS3.2) of a configured gateway, from the tables that it works by."""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated

import typer
from pydicom.uid import UID

from gateway.commitment import SOP_CLASS as STORAGE_COMMITMENT
from gateway.config import Config, Peer
from gateway.console import OUT, ConfigFile, configuration
from gateway.dimse.negotiation import (
    CALLED_TITLE_UNKNOWN,
    CALLING_TITLE_UNKNOWN,
    CONGESTION,
    FIND_EXTENSIONS,
    FIND_MODELS,
    GET_MODELS,
    LOCAL_LIMIT,
    MESSAGE_SYNTAXES,
    MOVE_MODELS,
    STANDARD_STORAGE,
    VERIFICATION,
)
from gateway.dimse.tls import CIPHERS
from gateway.errors import GatewayError
from gateway.status import SUCCESS, TABLE, Service
from gateway.translate.charset import defined_terms
from gateway.translate.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_EXTENSIONS = (
    "relational queries",
    "combined date-time matching",
    "fuzzy semantic matching of person names",
    "timezone query adjustment",
    "enhanced multi-frame image conversion",
    "empty value matching",
    "multiple value matching",
)
"""What the bytes of SOP Class Extended Negotiation stand for (PS3.4 C.5.1.1.1)."""


class Form(StrEnum):
    """Name the forms in which a statement is written."""

    MARKDOWN = "markdown"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Heading:
    """Begin a section; `number` is that of PS3.2's template, 1.2.3."""

    number: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a table; its cells are text with `code`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Table | str
"""A part of a statement; a text is a paragraph."""


def conformance(
    config: ConfigFile = None,
    form: Annotated[Form, typer.Option("--format", help="How it is written.")] = Form.MARKDOWN,
) -> None:
    """Print the DICOM Conformance Statement of the gateway as it is configured."""
    write = markdown if form is Form.MARKDOWN else page
    OUT.print(write(list(statement(configuration(config)))), markup=False, end="")


def statement(config: Config) -> Iterator[Block]:
    """Give the statement, section by section (PS3.2 Annex A)."""
    yield from _overview(config)
    yield from _introduction()
    yield Heading("3", "Networking")
    yield from _model(config)
    yield from _policies(config)
    yield from _acceptance(config)
    yield from _services()
    yield from _initiation(config)
    yield from _configuration(config)
    yield Heading("4", "Media interchange")
    yield "Media are not read or written."
    yield from _characters()
    yield from _security(config)


def _overview(config: Config) -> Iterator[Block]:
    yield Heading("1", "Conformance statement overview")
    yield (
        "The gateway is the SCP of DIMSE services on the hospital's side, and a user agent of DICOMweb "
        "(PS3.18) on the archive's. It keeps instances only until the archive has them."
    )
    rows = [_service(VERIFICATION, "no", "yes"), (f"Storage, {len(STANDARD_STORAGE)} SOP classes", "yes", "yes")]
    rows += [_service(uid, "no", "yes") for uid in (*FIND_MODELS, *MOVE_MODELS, *GET_MODELS)]
    rows.append(_service(STORAGE_COMMITMENT, "no", "yes"))
    yield Table(("Network service", "User (SCU)", "Provider (SCP)"), tuple(rows))
    uses = sorted({archive.profile for archive in config.archives.values()})
    yield (
        "Of DICOMweb it uses Store (STOW-RS), Search (QIDO-RS) and Retrieve (WADO-RS), as user agent"
        f"{' towards archives of these profiles: ' + ', '.join(f'`{use}`' for use in uses) if uses else ''}."
    )


def _service(uid: str, user: str, provider: str) -> tuple[str, str, str]:
    return (UID(uid).name, user, provider)


def _introduction() -> Iterator[Block]:
    yield Heading("2", "Introduction")
    yield (
        f"This statement is of dicom-gateway {version('dicom-gateway')}, and was written by "
        "`dicom-gateway conformance` from its configuration and the tables that it works by. Conformance does not "
        "guarantee that two systems work together; it has to be tried."
    )


def _model(config: Config) -> Iterator[Block]:
    yield Heading("3.1", "Implementation model")
    yield (
        "Each called AE title stands for an archive. C-STORE becomes STOW-RS; C-FIND becomes QIDO-RS, whose answers "
        "are matched again here by PS3.4 C.2.2.2; C-MOVE and C-GET become QIDO-RS and WADO-RS, and C-STORE "
        "sub-operations. Storage commitment is judged by what waits here and what QIDO-RS finds."
    )
    yield Table(
        ("AE title", "Archive", "Success of a C-STORE means"),
        tuple(
            (f"`{title}`", f"`{called.archive}`", _ACKNOWLEDGED[called.acknowledge])
            for title, called in config.ae_titles.items()
        ),
    )


_ACKNOWLEDGED = {
    "archived": "the archive has confirmed the instance",
    "spooled": "the instance is stored here and survives a power failure; it is delivered later",
}


def _policies(config: Config) -> Iterator[Block]:
    listen = config.listen
    yield Heading("3.2", "Association policies")
    yield Table(
        ("Policy", "Value"),
        (
            ("Application context name", "`1.2.840.10008.3.1.1.1`"),
            ("Maximum PDU length received, bytes", str(listen.max_pdu)),
            ("Associations at the same time", str(listen.max_associations)),
            ("Associations at the same time of one calling AE title", str(listen.max_associations_per_peer)),
            ("Asynchronous operations", "not supported: one operation at a time is negotiated"),
            ("Time for the association request, seconds", f"{listen.negotiation_timeout:g}"),
            ("Time for a PDU, seconds", f"{listen.network_timeout:g}"),
            ("Time that an association may be idle, seconds", f"{listen.idle_timeout:g}"),
            ("Implementation class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation version name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ),
    )
    yield "An association is rejected with:"
    yield Table(
        ("Result, source, reason", "When"),
        tuple(
            (" / ".join(map(str, code)), when)
            for code, when in (
                (CALLED_TITLE_UNKNOWN, "the called AE title is not in 3.1"),
                (CALLING_TITLE_UNKNOWN, "the calling AE title, its address or its certificate is not known"),
                (LOCAL_LIMIT, "there are too many associations"),
                (CONGESTION, "it is for storage alone and the disk is full, or the gateway stops"),
            )
        ),
    )


def _acceptance(config: Config) -> Iterator[Block]:
    yield Heading("3.3", "Association acceptance")
    every = ", ".join(f"{UID(syntax).name} `{syntax}`" for syntax in MESSAGE_SYNTAXES)
    yield (
        "For storage the first transfer syntax that the requestor proposes is accepted, whichever it is; for the "
        f"other SOP classes the first of these that it proposes: {every}."
    )
    queries = [
        (UID(uid).name, f"`{uid}`", _granted() if uid in FIND_MODELS else "relational retrieval")
        for uid in (*FIND_MODELS, *MOVE_MODELS, *GET_MODELS)
    ]
    other = [(UID(uid).name, f"`{uid}`", "none") for uid in (VERIFICATION, STORAGE_COMMITMENT)]
    yield Table(("SOP class", "UID", "Extended negotiation"), tuple(other + queries))
    yield (
        "Storage SOP classes (role SCP; SCU by role selection, for C-GET). UIDs that the standard gives no other "
        "service are taken for storage classes as well, private and retired ones among them."
    )
    names = sorted((UID(uid).name, f"`{uid}`") for uid in STANDARD_STORAGE)
    yield Table(("SOP class", "UID"), tuple(names))
    if config.peers:
        yield "What each calling AE title may use:"
        yield Table(
            ("Calling AE title", "Services"),
            tuple((f"`{title}`", ", ".join(sorted(peer.allow)) or "none") for title, peer in config.peers.items()),
        )
    unknown = "is rejected" if config.unknown_peers == "reject" else "may use every service"
    yield f"A calling AE title that is not configured {unknown}."


def _granted() -> str:
    granted = [name for name, works in zip(_EXTENSIONS, FIND_EXTENSIONS, strict=True) if works]
    return "; ".join(granted)


def _services() -> Iterator[Block]:
    yield Heading("3.4", "Status codes")
    yield "Success is `0000`, a cancelled operation `FE00`. A failure has an Error Comment (0000,0902) and one of:"
    for service in Service:
        rows = tuple(
            (f"`{codes[service]:04X}`", _meaning(kind))
            for kind, codes in TABLE.items()
            if codes.get(service, SUCCESS) != SUCCESS
        )
        yield Heading(f"3.4.{list(Service).index(service) + 1}", service.value)
        yield Table(("Status", "When"), rows)


def _meaning(kind: type[GatewayError]) -> str:
    """Read what a class of errors stands for off its docstring."""
    sentence = " ".join((kind.__doc__ or "").split())
    text = re.split(r";|\. |\.$| \(PS3", sentence)[0]
    text = re.sub(r"^Report (that |an |a )?", "", text)
    return "anything else" if kind is GatewayError else text


def _initiation(config: Config) -> Iterator[Block]:
    yield Heading("3.5", "Association initiation")
    yield (
        "Associations are opened for C-STORE sub-operations of a C-MOVE, with one presentation context for each SOP "
        "class and transfer syntax needed, for N-EVENT-REPORT of storage commitment in the role of SCP, and for "
        "C-ECHO when somebody asks for it. An instance is converted to another transfer syntax only when the "
        "destination accepts none that it is stored in."
    )
    called = {title: peer for title, peer in config.peers.items() if peer.port is not None}
    if called:
        yield Table(("AE title", "Host", "Port", "TLS"), tuple(_destination(*item) for item in called.items()))
    else:
        yield "No destination is configured."


def _destination(title: str, peer: Peer) -> tuple[str, str, str, str]:
    return (f"`{title}`", str(peer.host), str(peer.port), "yes" if peer.tls is not None else "no")


def _configuration(config: Config) -> Iterator[Block]:
    listen = config.listen
    yield Heading("3.6", "Network interfaces and configuration")
    yield "TCP/IP, IPv4 and IPv6. Everything in this statement that depends on the site stands in one file."
    port = f"port {listen.port}" if listen.tls is None or listen.tls_port is not None else "no port"
    secured = listen.tls_port if listen.tls_port is not None else listen.port
    yield f"In the clear: {port}. With TLS: {'no port' if listen.tls is None else f'port {secured}'}."


def _characters() -> Iterator[Block]:
    yield Heading("5", "Support of character sets")
    terms = ", ".join(f"`{term}`" for term in defined_terms())
    yield (
        "Instances pass unchanged, whatever their character set. Identifiers are read in, and a peer may be "
        f"configured to be answered in, these defined terms of Specific Character Set (0008,0005): {terms}. Without "
        "configuration a query is answered in `ISO_IR 192`."
    )


def _security(config: Config) -> Iterator[Block]:
    yield Heading("6", "Security")
    yield Heading("6.1", "Secure transport connection")
    suites = ", ".join(f"`{suite}`" for suite in CIPHERS.split(":"))
    yield (
        "BCP 195 (PS3.15 B.12), as acceptor and as requestor: TLS 1.2 with cipher suites of OpenSSL's groups "
        f"{suites}, and TLS 1.3."
    )
    tls = config.listen.tls
    asked = "not configured" if tls is None else "asked for" if tls.ca is not None else "not asked for"
    yield f"Certificates of callers: {asked}."
    yield Heading("6.2", "Audit trail")
    yield (
        "Audit messages of PS3.15 A.5: Application Activity, DICOM Instances Accessed and Transferred, DICOM "
        "Study Deleted, Query, Security Alert; to files, and by syslog over TLS (A.6) or UDP (A.7). "
        f"The audit trail is {'off' if config.audit is None else 'on'} in this configuration."
    )


def markdown(blocks: Sequence[Block]) -> str:
    """Write a statement as Markdown."""
    parts = ["# DICOM Conformance Statement: dicom-gateway"]
    for block in blocks:
        match block:
            case Heading(number, text):
                parts.append(f"{'#' * (number.count('.') + 2)} {number} {text}")
            case Table(header, rows):
                lines = [header, ("---",) * len(header), *rows]
                parts.append(
                    "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
                )
            case _:
                parts.append(block)
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")


def page(blocks: Sequence[Block]) -> str:
    """Write a statement as a page of HTML that needs nothing else."""
    title = "DICOM Conformance Statement: dicom-gateway"
    parts = [
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>',
        _STYLE,
        f"<h1>{title}</h1>",
    ]
    for block in blocks:
        match block:
            case Heading(number, text):
                level = number.count(".") + 2
                parts.append(f"<h{level}>{number} {html.escape(text)}</h{level}>")
            case Table(header, rows):
                parts.append(f"<table>{_line(header, 'th')}{''.join(_line(row, 'td') for row in rows)}</table>")
            case _:
                parts.append(f"<p>{_inline(block)}</p>")
    return "\n".join(parts) + "\n</html>\n"


_STYLE = (
    "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}th,td{border:1px solid #bbb;padding:.2em .6em;text-align:left}</style>"
)


def _line(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>\n"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
