"""The options of the audit trail."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SyslogServer(_Model):
    """Say which server takes the audit trail, how its certificate is checked and with what we prove ourselves."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    transport: Literal["tls", "udp"] = "tls"
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


class Audit(_Model):
    """Say where the audit trail goes and what it says; `keep` in days."""

    folder: Path | None = None
    keep: Annotated[float, Field(gt=0)] | None = None
    patients: bool = True
    source: Annotated[str, StringConstraints(min_length=1, max_length=48)] = "dicom-gateway"
    site: str = ""
    syslog: SyslogServer | None = None
