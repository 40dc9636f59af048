"""Count what the gateway does, over all of its processes, and write it as Prometheus metrics.

Each process has memory of its own to count in, a part of a file in memory, so that the others can read it at any time
and what a dead process had counted stays counted. No lock is shared, nothing is on the disk.
"""

import math
import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Key = tuple[str, ...]
"""A series' name, which part of it, and the values of its labels."""

_ROOM = 8 << 20  # bytes for each process, taken from the machine as they are used
_END = struct.Struct("=I")  # where the next row goes; written last, so that a row is there as a whole or not at all
_VALUE = struct.Struct("=d")
_LENGTH = struct.Struct("=H")
_ROW_HEAD = _VALUE.size + _LENGTH.size
_SEPARATOR = "\x1f"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Series:
    """Define a metric; what is counted under it has one value for each label, in their order."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


OPERATIONS = Series(
    "dicom_gateway_operations",
    "counter",
    "DIMSE operations that ended, by their final status in hex.",
    ("peer", "service", "status"),
)
OPERATION_BYTES = Series(
    "dicom_gateway_operation_bytes",
    "counter",
    "Bytes of data sets that were stored, or sent for a C-MOVE or C-GET.",
    ("peer", "service"),
)
OPERATION_SECONDS = Series(
    "dicom_gateway_operation_duration_seconds",
    "histogram",
    "From a request to its final response.",
    ("peer", "service"),
)
ASSOCIATIONS = Series("dicom_gateway_associations", "counter", "Associations accepted.", ("peer",))
ASSOCIATIONS_OPEN = Series("dicom_gateway_associations_open", "gauge", "Associations now.", ("peer",))
REJECTIONS = Series("dicom_gateway_associations_rejected", "counter", "Associations rejected.", ("reason",))
LISTENING = Series("dicom_gateway_listening", "gauge", "Processes that accept associations.")
REQUESTS = Series(
    "dicom_gateway_archive_requests",
    "counter",
    "HTTP requests to an archive, by the status of the answer or why there was none.",
    ("archive", "operation", "outcome"),
)
REQUEST_SECONDS = Series(
    "dicom_gateway_archive_request_duration_seconds",
    "histogram",
    "From an HTTP request to the head of its answer.",
    ("archive", "operation"),
)
INSTANCES_SENT = Series(
    "dicom_gateway_instances_sent",
    "counter",
    "Instances sent to an archive, again and again if need be, by what came of it.",
    ("archive", "outcome"),
)
RETRIEVED = Series(
    "dicom_gateway_cache_instances",
    "counter",
    "Instances for a C-MOVE or C-GET: hit from the cache, miss from the archive while the cache is in use.",
    ("archive", "outcome"),
)
RETRIEVED_BYTES = Series("dicom_gateway_cache_bytes", "counter", "Bytes of these.", ("archive", "outcome"))
CIRCUIT_OPEN = Series(
    "dicom_gateway_archive_circuit_open", "gauge", "1 while delivery leaves an archive alone.", ("archive",)
)
PROCESS_UP = Series("dicom_gateway_process_up", "gauge", "1 while the process runs.", ("process",))
PROCESS_STARTS = Series("dicom_gateway_process_starts", "counter", "Starts of the process.", ("process",))
UNCOUNTED = Series(
    "dicom_gateway_uncounted", "counter", "Counts that were lost since there was no room for another series."
)

_SERIES: Mapping[str, Series] = {
    series.name: series
    for series in (
        OPERATIONS,
        OPERATION_BYTES,
        OPERATION_SECONDS,
        ASSOCIATIONS,
        ASSOCIATIONS_OPEN,
        REJECTIONS,
        LISTENING,
        REQUESTS,
        REQUEST_SECONDS,
        INSTANCES_SENT,
        RETRIEVED,
        RETRIEVED_BYTES,
        CIRCUIT_OPEN,
        PROCESS_UP,
        PROCESS_STARTS,
        UNCOUNTED,
    )
}

_SPARE = (UNCOUNTED.name, "")  # the first row of all, for what finds no room


class Recorder:
    """Count for one process, from any of its threads; survives that process, and a successor goes on with it."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = memory or mmap.mmap(-1, _ROOM)
        self._rows: dict[Key, int] = {}
        self._seen = _END.size
        self._turn = threading.Lock()

    def add(self, series: Series, *labels: str, amount: float = 1) -> None:
        """Add to a counter or a gauge."""
        with self._turn:
            self._add((series.name, "", *labels), amount)

    def set(self, series: Series, *labels: str, value: float) -> None:
        """Set a gauge."""
        with self._turn:
            _VALUE.pack_into(self._memory, self._row((series.name, "", *labels)), value)

    def forget(self, series: Series, *labels: str) -> None:
        """Have a gauge be there no more until it is set again."""
        self.set(series, *labels, value=math.nan)

    def observe(self, series: Series, *labels: str, seconds: float) -> None:
        """Count a duration in a histogram."""
        with self._turn:
            self._add((series.name, str(bisect_left(_SECONDS, seconds)), *labels), 1)
            self._add((series.name, "sum", *labels), seconds)

    def read(self) -> dict[Key, float]:
        """Give what was counted until now."""
        with self._turn:
            self._look()
            values = {key: _VALUE.unpack_from(self._memory, row)[0] for key, row in self._rows.items()}
        return {key: value for key, value in values.items() if not math.isnan(value)}

    def end(self) -> None:
        """Take note that the process has ended: what only holds while it runs, holds no more."""
        with self._turn:
            self._look()
            for key, row in self._rows.items():
                if _SERIES[key[0]].kind == "gauge":
                    _VALUE.pack_into(self._memory, row, 0.0)

    def _add(self, key: Key, amount: float) -> None:
        row = self._row(key)
        _VALUE.pack_into(self._memory, row, _VALUE.unpack_from(self._memory, row)[0] + amount)

    def _row(self, key: Key) -> int:
        """Give the place of a value, a new one at need; what finds no room is counted as such."""
        row = self._rows.get(key)
        if row is not None:
            return row
        self._look()
        if key in self._rows:
            return self._rows[key]
        if not self._rows and key != _SPARE:
            self._row(_SPARE)
        text = _SEPARATOR.join(key).encode()
        row, end = self._seen, self._seen + -(-(_ROW_HEAD + len(text)) // 8) * 8
        if end > len(self._memory):
            return self._rows[_SPARE]
        _LENGTH.pack_into(self._memory, row + _VALUE.size, len(text))
        self._memory[row + _ROW_HEAD : row + _ROW_HEAD + len(text)] = text
        _END.pack_into(self._memory, 0, end)
        self._look()
        return row

    def _look(self) -> None:
        """Learn of the rows that a predecessor or another process wrote."""
        end = _END.unpack_from(self._memory)[0]
        while self._seen < end:
            start = self._seen + _ROW_HEAD
            length = _LENGTH.unpack_from(self._memory, self._seen + _VALUE.size)[0]
            self._rows[tuple(self._memory[start : start + length].decode().split(_SEPARATOR))] = self._seen
            self._seen += -(-(_ROW_HEAD + length) // 8) * 8


class Metrics:
    """Hold the recorders of all processes, of which the first have names; make it before they fork.

    One process lends; the others, when they sum up, learn of what it lent since they were forked.
    """

    def __init__(self, processes: Iterable[str]) -> None:
        self._file = os.memfd_create("metrics")
        self._recorders: list[Recorder] = []
        self._looking = threading.Lock()
        self._named = {name: self._new() for name in processes}
        self._free: list[Recorder] = []

    def of(self, process: str) -> Recorder:
        """Give the recorder of a process."""
        return self._named[process]

    def lend(self) -> Recorder:
        """Give a recorder that no process uses, for one to be forked; what it has counted goes on."""
        return self._free.pop() if self._free else self._new()

    def give_back(self, recorder: Recorder) -> None:
        """Take note that the process with a lent recorder has ended for good."""
        recorder.end()
        self._free.append(recorder)

    def _new(self) -> Recorder:
        os.ftruncate(self._file, (len(self._recorders) + 1) * _ROOM)
        self._look()
        return self._recorders[-1]

    def _look(self) -> None:
        """Learn of the recorders that another process made."""
        with self._looking:  # one that was found by two threads would count twice
            for start in range(len(self._recorders) * _ROOM, os.fstat(self._file).st_size, _ROOM):
                self._recorders.append(Recorder(mmap.mmap(self._file, _ROOM, offset=start)))

    def total(self) -> dict[Key, float]:
        """Sum up over the processes."""
        self._look()
        totals: dict[Key, float] = defaultdict(float)
        for recorder in self._recorders:
            for key, value in recorder.read().items():
                totals[key] += value
        return dict(totals)


def values(totals: Mapping[Key, float], series: Series) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield label values and value of each that a counter or gauge has."""
    return ((key[2:], value) for key, value in totals.items() if key[0] == series.name)


def means(totals: Mapping[Key, float], series: Series) -> dict[tuple[str, ...], float]:
    """Give the mean duration in seconds by label values."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    counts: dict[tuple[str, ...], float] = defaultdict(float)
    for (name, part, *labels), value in totals.items():
        if name == series.name:
            (sums if part == "sum" else counts)[tuple(labels)] += value
    return {labels: sums[labels] / count for labels, count in counts.items() if count}


def families(totals: Mapping[Key, float]) -> Iterator[Metric]:
    """Give what was counted as Prometheus' metric families."""
    grouped: dict[str, dict[Key, float]] = {name: {} for name in _SERIES}
    for key, value in totals.items():
        grouped[key[0]][key] = value
    for name, found in grouped.items():
        series = _SERIES[name]
        if series.kind == "histogram":
            yield _histogram(series, found)
            continue
        kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
        family = kind(series.name, series.help, labels=series.labels)
        for key, value in found.items():
            family.add_metric(key[2:], value)
        yield family


def _histogram(series: Series, found: Mapping[Key, float]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(series.name, series.help, labels=series.labels)
    bounds = [*map(str, _SECONDS), "+Inf"]
    for labels in dict.fromkeys(key[2:] for key in found):
        counts = accumulate(found.get((series.name, str(number), *labels), 0) for number in range(len(bounds)))
        total = found.get((series.name, "sum", *labels), 0)
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), total)
    return family
