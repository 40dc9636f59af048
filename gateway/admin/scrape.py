"""Collect what Prometheus scrapes: what the processes counted, and the outbox, the spool and the archives now."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from gateway.admin.parts import Parts
from gateway.admin.watch import Watch
from gateway.errors import GatewayError, SignInRefused
from gateway.metrics import families
from gateway.outbox import State, Statistics
from gateway.rejection import Stage, Tombstones

_UNDELIVERED = [state for state in State if state is not State.DONE]


class Scrape:
    """Be a collector of prometheus_client for one gateway."""

    def __init__(self, parts: Parts, watch: Watch) -> None:
        self._parts = parts
        self._watch = watch
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def written(self, accept: str) -> tuple[bytes, str]:
        """Give the metrics in the format that an Accept header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from families(self._parts.metrics.total())
        yield from self._archives()
        yield from self._spool()

    def _archives(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dicom_gateway_archive_up", "1 when an archive answered last.", labels=["archive"])
        refused = GaugeMetricFamily(
            "dicom_gateway_archive_sign_in_refused", "1 when an archive did not let us in last.", labels=["archive"]
        )
        for name, probe in list(self._watch.probes.items()):
            up.add_metric([name], float(probe.error is None))
            refused.add_metric([name], float(isinstance(probe.error, SignInRefused)))
        yield up
        yield refused

    def _spool(self) -> Iterator[Metric]:
        outbox, takes, readable = self._parts.outbox, 1.0, 1.0
        try:
            outbox.check_room("")
        except GatewayError:
            takes = 0.0
        try:
            yield from _outbox(outbox.statistics(), list(self._parts.archives))
            if self._parts.tombstones is not None:
                yield _rejected(self._parts.tombstones, list(self._parts.archives))
        except GatewayError:
            readable = 0.0
        disk = os.statvfs(self._parts.config.spool.folder)
        for name, value, words in (
            ("free_bytes", disk.f_bavail * disk.f_frsize, "Room left on the spool's disk."),
            ("size_bytes", disk.f_blocks * disk.f_frsize, "Size of the spool's disk."),
            ("takes_instances", takes, "0 while C-STORE is refused for want of room."),
            ("readable", readable, "0 while a database of the spool cannot be read; its metrics are missing then."),
        ):
            yield GaugeMetricFamily(f"dicom_gateway_spool_{name}", words, value)


def _rejected(tombstones: Tombstones, archives: list[str]) -> Metric:
    rejected = GaugeMetricFamily(
        "dicom_gateway_rejected_instances",
        "Instances that rejection notes named, by what became of them.",
        labels=["archive", "state"],
    )
    found = tombstones.counts()
    for archive in sorted({*archives, *(archive for archive, _ in found)}):
        for stage in Stage:
            rejected.add_metric([archive, str(stage)], found.get((archive, stage), 0))
    return rejected


def _outbox(found: Statistics, archives: list[str]) -> Iterator[Metric]:
    labels = ["archive", "state"]
    entries = GaugeMetricFamily("dicom_gateway_outbox_instances", "Instances that wait.", labels=labels)
    size = GaugeMetricFamily("dicom_gateway_outbox_bytes", "Bytes of the instances that wait.", labels=labels)
    age = GaugeMetricFamily(
        "dicom_gateway_outbox_oldest_undelivered_seconds",
        "How long ago the oldest instance that an archive does not have yet was received; 0 without any.",
        labels=["archive"],
    )
    counts: dict[tuple[str, State], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for total in found.totals:
        before = counts[total.archive, total.state]
        counts[total.archive, total.state] = (before[0] + total.entries, before[1] + total.bytes)
    now = time.time()
    for archive in sorted({*archives, *(archive for archive, _ in counts)}):
        for state in _UNDELIVERED:
            entries.add_metric([archive, str(state)], counts[archive, state][0])
            size.add_metric([archive, str(state)], counts[archive, state][1])
        age.add_metric([archive], max(0.0, now - found.oldest.get(archive, now)))
    yield from (entries, size, age)
