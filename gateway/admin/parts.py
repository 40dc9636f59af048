"""What the pages look at: handed in by whoever builds the gateway."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.config import Config
from gateway.dicomweb.client import Client
from gateway.metrics import Metrics
from gateway.outbox import Outbox
from gateway.recent import Recent
from gateway.rejection import Tombstones


@dataclass(frozen=True, slots=True)
class Parts:
    """Hold the running gateway's parts; `echo` sends C-ECHO to a configured peer and raises GatewayError."""

    config: Config
    metrics: Metrics
    outbox: Outbox
    recent: Recent
    tombstones: Tombstones | None
    archives: Mapping[str, Client]
    echo: Callable[[str], None]
