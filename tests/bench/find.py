"""Measure C-FIND side by side: the gateway, the bare pages it reads, and others' answers to the same question.

Every round asks each once, so that a slow moment of the machine falls on all of them.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import httpx
import processes
from bench import wire
from bench.instances import Batch, Batches, studies_of
from bench.load import Target, store
from bench.sizes import Sizes
from gateway_process import ROOT, GatewayProcess
from orthanc import Orthanc

_DATE = "20230101"
_LIMIT = 200
_FIELDS = "0020000D,00080020,00080030,00080050,00080061,00081030,00100010,00100020,00100030,00201208"


@dataclass(frozen=True)
class Timing:
    """Hold the seconds until the first match (or page) was there, and until all were."""

    first: float
    all: float


def ask(target: Target, count: int) -> Timing:
    """Query for all studies of the day."""
    connection = target.associate((wire.STUDY_ROOT_FIND, wire.EXPLICIT_LE))
    request = wire.command(wire.C_FIND, 1, wire.STUDY_ROOT_FIND)
    begun, first, matches, status = perf_counter(), 0.0, -1, 0xFF00
    connection.send(
        (
            wire.p_data(1, request, 16_384, is_command=True),
            wire.p_data(1, studies_of(_DATE), 16_384, is_command=False),
        )
    )
    while status in wire.PENDING:
        _, body = connection.pdu()
        for fragment in wire.fragments(body):
            if fragment.is_command:
                status, matches = wire.status_of(bytes(fragment.data)), matches + 1
                first = first or perf_counter() - begun
    seconds = perf_counter() - begun
    wire.release(connection)
    if status != 0 or matches != count:
        raise RuntimeError(f"{matches} matches and status {status:04X}H in place of {count} and 0000H")
    return Timing(first, seconds)


def fetch(url: str, count: int) -> Timing:
    """Fetch the same pages by bare httpx, and drop them."""
    headers, entries, first = {"Accept": "application/dicom+json"}, 0, 0.0
    with httpx.Client(timeout=60) as client:
        client.get(f"{url}/studies?limit=1", headers=headers)
        begun = perf_counter()
        for offset in range(0, count + 1, _LIMIT):
            query = f"StudyDate={_DATE}&includefield={_FIELDS}&limit={_LIMIT}&offset={offset}"
            answer = client.get(f"{url}/studies?{query}", headers=headers).raise_for_status()
            first = first or perf_counter() - begun
            entries += answer.content.count(b'"0020000D"')
        seconds = perf_counter() - begun
    if entries != count:
        raise RuntimeError(f"{entries} entries in place of {count}")
    return Timing(first, seconds)


def rounds(count: int, runs: int) -> dict[str, list[Timing]]:
    """Fill the archives with the same instances and ask everybody in turn, `runs` times."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port, stock = processes.free_port(), processes.free_port()
        gateway = stack.enter_context(
            GatewayProcess(folder / "gateway", peers={"BENCH": {}}, embedded={"port": port})
        )
        url = f"http://127.0.0.1:{port}/v2"
        (folder / "orthanc").mkdir()
        orthanc = stack.enter_context(Orthanc(folder / "orthanc"))
        command = [sys.executable, "-m", "bench.stock", str(stock), str(count)]
        ready: Callable[[], bool] = lambda: processes.answers(stock)  # noqa: E731
        environment = {"PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT)))}
        stack.enter_context(processes.running(command, folder / "stock.log", ready, environment=environment))
        for target in (Target(gateway.port, "GATEWAY"), Target(orthanc.port, orthanc.title)):
            store(target, Batch(1, count, 1_024, studies=count, date=_DATE), 4)
        contenders: dict[str, Callable[[], Timing]] = {
            "the pages alone, by bare httpx": lambda: fetch(url, count),
            "gateway, embedded archive": lambda: ask(Target(gateway.port, "GATEWAY"), count),
            "Orthanc, its own C-FIND": lambda: ask(Target(orthanc.port, orthanc.title), count),
            "pynetdicom as it comes, no archive": lambda: ask(Target(stock, "STOCK"), count),
        }
        for contend in contenders.values():
            contend()  # the first time warms up
        timings: dict[str, list[Timing]] = {name: [] for name in contenders}
        for _ in range(runs):
            for name, contend in contenders.items():
                timings[name].append(contend())
        return timings


def table(timings: dict[str, list[Timing]], count: int) -> str:
    """Give the rows: matches/s, seconds, the ratio to the bare pages and the delay of the first match behind them."""
    bare = next(iter(timings.values()))
    lines = [
        f"| {count:,} studies match | matches/s | seconds | time against the bare pages | first match, ms |",
        "|---|---|---|---|---|",
    ]
    for name, own in timings.items():
        seconds = sorted(one.all for one in own)
        ratios = sorted(one.all / other.all for one, other in zip(own, bare, strict=True))
        spread = f"{median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        first = f"{median(one.first for one in own) * 1000:.0f}"
        lines.append(f"| {name} | {count / median(seconds):,.0f} | {spread} | {ratio} | {first} |")
    return "\n".join(lines)


def side_by_side(_folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print the table."""
    count = sizes.matches[-1]
    print(f"\n### Query, side by side\n\n{table(rounds(count, 2 * sizes.few + 1), count)}", flush=True)
