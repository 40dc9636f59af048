"""Measure a gateway process with its embedded archive: instances/s, MB/s and peak memory, as a Markdown table.

Nothing is asserted: the numbers depend on the machine, and only those of one run compare with each other.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import find as queries
from bench import web
from bench.instances import Batch, studies_of, study_of
from bench.load import Sink, Target, find, move, store
from bench.memory import Memory
from gateway_process import GatewayProcess

_DESTINATION = "SINK"
_CT, _TINY = 512 * 1024, 10 * 1024


@dataclass(frozen=True)
class Sizes:
    """Say how much is measured, and how often."""

    slices: int
    tiny: int
    matches: tuple[int, ...]
    runs: int


_FULL = Sizes(slices=500, tiny=2_000, matches=(1_000, 10_000), runs=3)
_QUICK = Sizes(slices=20, tiny=50, matches=(50, 100), runs=2)


@dataclass(frozen=True)
class Result:
    """Hold what repeated runs of one workload gave: seconds each, and the gateway's memory at its peak."""

    workload: str
    count: int
    megabytes: float | None
    seconds: list[float]
    peak: int | None

    def row(self) -> str:
        """Give the row of the table."""
        rates = sorted(self.count / seconds for seconds in self.seconds)
        spread = f"{median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        speed = "" if self.megabytes is None else f"{self.megabytes / median(self.seconds):,.0f}"
        memory = "" if self.peak is None else f"{self.peak / 1e6:,.0f}"
        return f"| {self.workload} | {spread} | {speed} | {median(self.seconds):,.2f} | {memory} |"


class Bench:
    """Run the workloads against one gateway; every run stores instances of its own."""

    def __init__(self, gateway: Target, memory: Memory, sink: Sink, sizes: Sizes) -> None:
        self._gateway = gateway
        self._memory = memory
        self._sink = sink
        self._sizes = sizes
        self._batches = 0

    def results(self) -> Iterator[Result]:
        """Yield the results, workload by workload."""
        sizes = self._sizes
        for name, count, size in (("CT, 512 KiB", sizes.slices, _CT), ("tiny, 10 KiB", sizes.tiny, _TINY)):
            for associations in (1, 4):
                yield self._store(name, count, size, associations)
        for number, count in enumerate(sizes.matches):
            yield self._find(f"2023010{number + 1}", count)
        yield self._move(sizes.slices)

    def limit(self) -> Result:
        """Store into the sink: what the load generator and the network of this machine give at most."""
        batch = self._batch(self._sizes.slices, _CT)
        target = Target(self._sink.port, _DESTINATION)
        seconds = [store(target, batch, 1) for _ in range(self._sizes.runs)]
        return Result(
            f"limit: {batch.count:,} CT, 1 association, into a sink", batch.count, batch.megabytes, seconds, None
        )

    def _batch(self, count: int, size: int, studies: int = 1, date: str = "20240101") -> Batch:
        self._batches += 1
        return Batch(self._batches, count, size, studies, date)

    def _store(self, name: str, count: int, size: int, associations: int) -> Result:
        batches = iter([self._batch(count, size) for _ in range(self._sizes.runs)])
        plural = "s" if associations > 1 else ""
        return self._measure(
            f"C-STORE {count:,} {name}, {associations} association{plural}",
            count,
            count * size / 1e6,
            lambda: store(self._gateway, next(batches), associations),
        )

    def _find(self, date: str, count: int) -> Result:
        store(self._gateway, self._batch(count, 1_024, studies=count, date=date), 4)

        def once() -> float:
            matches, seconds = find(self._gateway, studies_of(date))
            if matches != count:
                raise RuntimeError(f"{matches} matches in place of {count}")
            return seconds

        return self._measure(f"C-FIND, {count:,} studies match", count, None, once)

    def _move(self, count: int) -> Result:
        batch = self._batch(count, _CT)
        store(self._gateway, batch, 4)

        def once() -> float:
            before = self._sink.instances
            seconds = move(self._gateway, study_of(batch), _DESTINATION)
            if self._sink.instances - before != count:
                raise RuntimeError(f"{self._sink.instances - before} instances arrived in place of {count}")
            return seconds

        return self._measure(f"C-MOVE {count:,} CT, 512 KiB", count, batch.megabytes, once)

    def _measure(self, workload: str, count: int, megabytes: float | None, once: Callable[[], float]) -> Result:
        self._memory.reset()
        seconds = [once() for _ in range(self._sizes.runs)]
        return Result(workload, count, megabytes, seconds, self._memory.peak())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    parser.add_argument("--web", action="store_true", help="the DICOMweb client against curl, instead")
    options = parser.parse_args()
    if options.web:
        web.table(quick=options.quick)
        return
    sizes = _QUICK if options.quick else _FULL
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()};", end=" ")
    print(f"median of {sizes.runs} runs (slowest to fastest); MB are 10^6 bytes.\n")
    print("| workload | instances or matches/s | MB/s | seconds | peak memory MB |")
    print("|---|---|---|---|---|", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        sink = stack.enter_context(Sink())
        peers = {"BENCH": {}, _DESTINATION: {"host": "127.0.0.1", "port": sink.port}}
        gateway = stack.enter_context(GatewayProcess(folder, peers=peers))
        bench = Bench(Target(gateway.port, "GATEWAY"), Memory(gateway.pid), sink, sizes)
        print(bench.limit().row(), flush=True)
        for result in bench.results():
            print(result.row(), flush=True)
    count = sizes.matches[-1]
    print(f"\n{queries.table(queries.rounds(count, 2 * sizes.runs + 1), count)}")


if __name__ == "__main__":
    main()
