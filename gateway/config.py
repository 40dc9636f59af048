"""The configuration: frozen models, read from one YAML file, every fault reported at once."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from gateway.audit_options import Audit
from gateway.callers import certificate, network
from gateway.credentials import Auth, NoAuth
from gateway.document import read
from gateway.errors import ConfigError, Fault
from gateway.retrieve_options import Retrieve

EMBEDDED = "embedded"
"""The name of the archive that is used when the configuration names none."""


def _no_backslash(title: str) -> str:
    if "\\" in title or not title.isprintable() or not title.isascii():
        raise ValueError("an AE title is 1 to 16 printable ASCII characters without backslash (PS3.5 6.2)")
    return title


def _service_root(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s?#@]+", url):
        raise ValueError(
            "is not the root of a service: http:// or https://, a host, a path; no query, user name or space"
        )
    return url


AeTitle = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=16),
    AfterValidator(_no_backslash),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[float, Field(gt=0, le=2_592_000)]  # in seconds
Service = Literal["echo", "store", "find", "move", "get", "commit", "reject"]
QueryLevel = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
ProfileName = Literal["standard", "azure", "embedded", "google", "orthanc", "dcm4chee", "aws"]
_ALONE = "ISO_IR (6|13|100|101|109|110|126|127|138|144|148|166|203|192)|GB18030|GBK"
_EXTENDED = "ISO 2022 IR (6|13|100|101|109|110|126|127|138|144|148|166|203|58|149|87|159)"
_DEFINED_TERMS = re.compile(rf"({_ALONE})|({_EXTENDED})?(\\({_EXTENDED}))*")  # PS3.3 Tables C.12-2 to C.12-5


def _defined_terms(value: str) -> str:
    if not _DEFINED_TERMS.fullmatch(value):
        raise ValueError("not defined terms of Specific Character Set, such as ISO_IR 100 (PS3.3 C.12.1.1.2)")
    return value


def _answer_set(value: str) -> str:
    return value if value == "request" else _defined_terms(value)


CharacterSet = Annotated[str, AfterValidator(_defined_terms)]
AnswerCharacterSet = Annotated[str, AfterValidator(_answer_set)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerTls(_Model):
    """Say with what the DIMSE port proves itself; with `ca` it demands client certificates."""

    certificate: Path
    key: Path
    ca: Path | None = None


class ClientTls(_Model):
    """Say how a peer's TLS port is checked, and with what we prove ourselves to it."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


class Listen(_Model):
    """Say where DIMSE peers call and what one of them may take; times in seconds, lengths in bytes."""

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    max_associations: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_associations_per_peer: Annotated[int, Field(ge=1, le=10_000)] = 50
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    max_identifier: Annotated[int, Field(ge=4096, le=67_108_864)] = 4_194_304
    negotiation_timeout: Seconds = 30
    network_timeout: Seconds = 60
    idle_timeout: Seconds = 600
    grace: Annotated[float, Field(ge=0, le=3600)] = 30
    tls: ServerTls | None = None
    tls_port: Annotated[int, Field(ge=0, le=65535)] | None = None

    @model_validator(mode="after")
    def _tls_for_its_port(self) -> "Listen":
        if self.tls_port is not None and self.tls is None:
            raise ValueError("tls_port needs tls: give certificate and key")
        if self.tls_port is not None and self.tls_port == self.port != 0:
            raise ValueError("port and tls_port are the same; leave tls_port out for a gateway with TLS alone")
        return self


class DeliveryPace(_Model):
    """Say how the outbox is delivered: requests at once, and how long to wait after a failure, in seconds.

    The wait begins at up to `retry_first` and doubles up to `retry_longest`.
    """

    connections: Annotated[int, Field(ge=1, le=64)] = 4
    retry_first: Seconds = 2
    retry_longest: Seconds = 300


class _Storing(_Model):
    """Say what every archive has: how much a query may read, and how instances get there."""

    max_scanned: Annotated[int, Field(ge=1)] = 100_000
    duplicates: Literal["keep", "replace", "reject"] = "reject"
    delivery: DeliveryPace = DeliveryPace()


class Archive(_Storing):
    """Say where an archive is, what kind it is and how to sign in; times in seconds."""

    url: Annotated[str, AfterValidator(_service_root)]
    profile: ProfileName = "standard"
    auth: Auth = NoAuth(kind="none")
    headers: dict[str, SecretStr] = {}
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    retrieve_early: bool = False
    connect_timeout: Seconds = 5
    read_timeout: Seconds = 30


class Rejection(_Model):
    """Say by document title what a rejection note does to the instances that it names (IHE RAD TF-2 4.66)."""

    quality: Literal["keep", "hide", "delete"] = "keep"
    safety: Literal["keep", "hide", "delete"] = "keep"
    worklist: Literal["keep", "hide", "delete"] = "keep"
    retention: Literal["keep", "hide", "delete"] = "keep"


class CalledTitle(_Model):
    """Say which archive a called AE title stands for, when an instance is acknowledged, what rejection notes do."""

    archive: str = EMBEDDED
    acknowledge: Literal["archived", "spooled"] = "archived"
    rejection: Rejection = Rejection()


class Peer(_Model):
    """Say who a DIMSE node is: its AE title is the key; with host and port it can be called.

    `report_to` is the AE title, among the peers, that takes its storage commitment reports; itself when None.
    """

    host: str | None = None
    port: Port | None = None
    addresses: list[Annotated[str, AfterValidator(network)]] = []
    certificates: list[Annotated[str, AfterValidator(certificate)]] = []
    allow: frozenset[Service] = frozenset(("echo", "store", "find", "move", "get", "commit"))
    character_set: CharacterSet = ""
    answer_character_set: AnswerCharacterSet = "ISO_IR 192"
    default_level: QueryLevel | None = None
    lenient: bool = False
    max_moves: Annotated[int, Field(ge=1, le=1000)] = 4
    tls: ClientTls | None = None
    report_to: AeTitle | None = None

    @model_validator(mode="after")
    def _host_with_port(self) -> "Peer":
        if self.port is not None and self.host is None:
            raise ValueError("a port needs a host: add host, or leave both out for a peer that only calls")
        return self


class Spool(_Model):
    """Say where instances rest on their way, and how much of them in bytes, in all and from one peer.

    At `high_water` (share of the disk used) no more are taken.
    """

    folder: Path = Path("/var/lib/dicom-gateway")
    high_water: Annotated[float, Field(gt=0, le=1)] = 0.9
    quota: Annotated[int, Field(ge=1)] | None = None
    peer_quota: Annotated[int, Field(ge=1)] | None = None


class Commitment(_Model):
    """Say for how long a storage commitment waits to be judged, and then for the peer to take the report; seconds."""

    patience: Days = 86_400
    report_for: Days = 259_200


class Embedded(_Storing):
    """Say where the embedded archive keeps its files and listens; port 0 takes any free one."""

    folder: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class Admin(_Model):
    """Say where status page, metrics and health are served and who may see them; `probe` in seconds."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    password_file: Path | None = None
    tls: ServerTls | None = None
    probe: Seconds = 30

    def url(self, port: int) -> str:
        """Give the page's address for somebody on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def is_open(self) -> bool:
        """Say whether whoever reaches the port may see and do everything."""
        return self.password_file is None and (self.tls is None or self.tls.ca is None)

    @model_validator(mode="after")
    def _local_unless_closed(self) -> "Admin":
        if self.is_open and not _is_local(self.host):
            raise ValueError(
                "for other machines it needs password_file, or tls with ca; else leave host at 127.0.0.1"
            )
        return self


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Log(_Model):
    """Say how much is logged and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Config(_Model):
    """Hold the whole configuration of a gateway."""

    listen: Listen = Listen()
    archives: dict[str, Archive] = {}
    ae_titles: Annotated[dict[AeTitle, CalledTitle], Field(min_length=1)] = {"GATEWAY": CalledTitle()}
    peers: dict[AeTitle, Peer] = {}
    unknown_peers: Literal["reject", "accept"] = "reject"
    spool: Spool = Spool()
    retrieve: Retrieve = Retrieve()
    commitment: Commitment = Commitment()
    embedded: Embedded = Embedded()
    admin: Admin | None = Admin()
    audit: Audit | None = Audit()
    reload_on_change: bool = False
    log: Log = Log()


def load(path: Path) -> Config:
    """Read a configuration file; `${NAME}` in a value stands for that environment variable.

    Raises ConfigError with every fault found.
    """
    document = read(path)
    return parse(document if document is not None else {}, str(path))


def parse(document: Any, source: str) -> Config:
    """Turn a parsed YAML document into a Config; raises ConfigError with every fault found."""
    faults: list[Fault] = []
    filled = _fill(document, "", faults)
    try:
        config = Config.model_validate(filled)
    except ValidationError as error:
        faults += [Fault(_path(item["loc"]), _problem(item)) for item in error.errors()]
    else:
        faults += _unprovable(config)
    faults += _dangling(filled) + _unreachable(filled)
    if faults:
        raise ConfigError(source, tuple(faults))
    return config


def _dangling(document: Any) -> list[Fault]:
    """Find called AE titles whose archive is not configured, whatever else is wrong with the document."""
    titles, archives = (
        (section if isinstance(section := document.get(key, {}), dict) else {} for key in ("ae_titles", "archives"))
        if isinstance(document, dict)
        else ({}, {})
    )
    known = sorted({*map(str, archives), EMBEDDED})
    return [
        Fault(f"ae_titles.{title}.archive", f"{name!r} is not one of: {', '.join(known)}")
        for title, called in titles.items()
        if isinstance(called, dict) and (name := called.get("archive", EMBEDDED)) not in known
    ]


def _unreachable(document: Any) -> list[Fault]:
    """Find peers whose storage commitment reports are to go to a title that is no peer."""
    peers = document.get("peers", {}) if isinstance(document, dict) else {}
    peers = peers if isinstance(peers, dict) else {}
    return [
        Fault(f"peers.{title}.report_to", f"{name!r} is not in peers")
        for title, peer in peers.items()
        if isinstance(peer, dict) and (name := peer.get("report_to")) is not None and name not in peers
    ]


def _unprovable(config: Config) -> list[Fault]:
    """Find peers that are to show a certificate where nobody is asked for one."""
    if config.listen.tls is not None and config.listen.tls.ca is not None:
        return []
    problem = "needs listen.tls with ca: without it no caller is asked for its certificate"
    return [
        Fault(f"peers.{title}.certificates", problem) for title, peer in config.peers.items() if peer.certificates
    ]


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _fill(value: Any, path: str, faults: list[Fault]) -> Any:
    """Replace `${NAME}` by the environment's value, noting each name that is not set."""
    if isinstance(value, dict):
        return {key: _fill(item, f"{path}.{key}".lstrip("."), faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, f"{path}.{number}", faults) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    faults += [
        Fault(path, f"the environment variable {name} is not set")
        for name in _VARIABLE.findall(value)
        if name not in os.environ
    ]
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value)


def _path(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location if part != "[key]"]
    if len(parts) > 3 and parts[2] == "auth":
        del parts[3]  # pydantic names the kind of sign-in there, the file does not
    return ".".join(parts) or "(file)"


def _problem(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "is not an option; see config.yaml for all of them"
    return str(item["msg"]).removeprefix("Value error, ")
