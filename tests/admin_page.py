"""The status page of a running gateway, by HTTP: as Prometheus, an orchestrator or a browser asks for it."""

from dataclasses import dataclass
from typing import Any

import httpx
from gateway_process import GatewayProcess
from processes import free_port
from prometheus_client.parser import text_string_to_metric_families

FROM_PAGE = {"HX-Request": "true"}


def admin(**settings: Any) -> dict[str, Any]:
    """Give the section of the configuration, with any free port."""
    return {"host": "127.0.0.1", "port": free_port(), "probe": 0.2, **settings}


@dataclass(frozen=True)
class AdminPage:
    """Ask the status page of a gateway that was given a section of `admin`."""

    gateway: GatewayProcess

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.config['admin']['port']}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=20, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", trust_env=False, timeout=20, **{"headers": FROM_PAGE, **options})

    def findings(self) -> dict[str, tuple[str, str]]:
        """Give what readiness says: name -> state and detail."""
        return {one["name"]: (one["state"], one["detail"]) for one in self.get("/health/ready").json()["checks"]}

    def is_ready(self) -> bool:
        return self.get("/health/ready").status_code == 200

    def metrics(self, name: str) -> dict[tuple[str, ...], float]:
        """Give the samples of that name: label values, in the order of the labels' names -> value."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }
