"""Measure queries and retrieval through the gateway on its embedded archive."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from bench.instances import Batches, studies_of, study_of
from bench.load import Sink, Target, find, move, store
from bench.measure import PEAK, Column, Sample, interleaved, show
from bench.sizes import CT, Sizes
from bench.usage import Usage
from gateway_process import GatewayProcess

_DESTINATION = "SINK"
_RATE = Column("rate", "matches or instances/s")
_SECONDS = Column("seconds", "seconds", ".2f")


def table(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the table."""
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        peers = {"BENCH": {}, _DESTINATION: {"host": "127.0.0.1", "port": sink.port}}
        titles = {"GATEWAY": {"archive": "embedded", "acknowledge": "archived"}}
        place = Path(mkdtemp(prefix="query-", dir=folder))
        process = stack.enter_context(GatewayProcess(place, peers=peers, ae_titles=titles))
        gateway, usage = Target(process.port, process.title), Usage(process.pid)
        once = {}
        for number, count in enumerate(sizes.matches):
            date = f"2023010{number + 1}"
            store(gateway, batches.make(count, 1_024, studies=count, date=date), 4)
            once[f"C-FIND, {count:,} studies match"] = partial(_find, gateway, usage, studies_of(date), count)
        batch = batches.make(sizes.ct, CT)
        store(gateway, batch, 4)
        once[f"C-MOVE, {sizes.ct:,} CT, 512 KiB"] = partial(_move, gateway, usage, sink, study_of(batch), sizes.ct)
        show("Query and retrieve, embedded archive", interleaved(once, sizes.runs), (_RATE, _SECONDS, PEAK))


def _find(gateway: Target, usage: Usage, identifier: bytes, count: int) -> Sample:
    usage.reset_peak()
    matches, seconds = find(gateway, identifier)
    if matches != count:
        raise RuntimeError(f"{matches} matches in place of {count}")
    return {"rate": count / seconds, "seconds": seconds, "peak": usage.peak()}


def _move(gateway: Target, usage: Usage, sink: Sink, identifier: bytes, count: int) -> Sample:
    usage.reset_peak()
    before = sink.instances
    seconds = move(gateway, identifier, _DESTINATION)
    if sink.instances - before != count:
        raise RuntimeError(f"{sink.instances - before} instances arrived in place of {count}")
    return {"rate": count / seconds, "seconds": seconds, "peak": usage.peak()}
