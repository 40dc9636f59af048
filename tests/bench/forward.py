"""Measure store and forward: from the first byte of the first C-STORE until the archive has the last instance."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter, sleep

from bench import peers
from bench.instances import Batches
from bench.load import store
from bench.measure import ACCEPT, CPU, PEAK, RATE, Column, Sample, interleaved, show
from bench.peers import Archive, Peer
from bench.sizes import CT, MID, TINY, Sizes

OURS = "gateway"
TUNED = "Orthanc, poller, 2 synchronous jobs"
_ROUND_TRIP = 0.05  # seconds
_LONGEST = 300.0
_ACCEPTED = Column("accepted", "acknowledged/s")


def to_orthanc(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the tables of forwarding into a second Orthanc."""
    with ExitStack() as stack:
        archive = stack.enter_context(peers.orthanc_archive(folder))
        systems = _forwarders(stack, folder, archive)
        stable = stack.enter_context(peers.orthanc_on_stable(folder, archive.url))
        systems["Orthanc, Lua OnStableStudy (1 s)"] = stable
        _tables("a second Orthanc", archive, systems, sizes, batches, sizes.few)


def to_sink(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the tables of forwarding into an archive that keeps nothing."""
    with ExitStack() as stack:
        archive = stack.enter_context(peers.stow_sink(folder))
        _tables("a null STOW sink", archive, _forwarders(stack, folder, archive), sizes, batches, sizes.runs)


def _forwarders(stack: ExitStack, folder: Path, archive: Archive) -> dict[str, Peer]:
    return {
        OURS: stack.enter_context(peers.gateway(folder, archive.url, archive.profile)),
        TUNED: stack.enter_context(peers.orthanc_polled(folder, archive.url)),
        "pynetdicom stock, httpx": stack.enter_context(peers.stock(folder, url=archive.url)),
    }


def _tables(
    where: str, archive: Archive, systems: Mapping[str, Peer], sizes: Sizes, batches: Batches, runs: int
) -> None:
    for name, count, size in (
        ("CT, 512 KiB", sizes.ct, CT),
        ("tiny, 10 KiB", sizes.tiny, TINY),
        ("mid, 2.9 MB", sizes.mid, MID),
    ):
        once = {system: partial(_forward, peer, archive, batches, count, size, 4) for system, peer in systems.items()}
        samples = interleaved(once, runs)
        columns = (RATE, _ACCEPTED, ACCEPT, CPU, PEAK)
        show(f"Forward {count:,} {name}, 4 associations, into {where}", samples, columns, ours=OURS)


def _forward(peer: Peer, archive: Archive, batches: Batches, count: int, size: int, associations: int) -> Sample:
    batch = batches.make(count, size)
    batch.encode()
    there, used = archive.count(), peer.usage.seconds()
    peer.usage.reset_peak()
    begun = perf_counter()
    load = store(peer.target, batch, associations)
    _await(lambda: archive.count() >= there + count, archive.pause)
    seconds = perf_counter() - begun
    sleep(0.2)  # what follows the last answer is its work too
    return {
        "rate": count / seconds,
        "accepted": count / load.seconds,
        "accept": load.median,
        "cpu": (peer.usage.seconds() - used) / count,
        "peak": peer.usage.peak(),
    }


def _await(condition: Callable[[], bool], pause: float) -> None:
    until = perf_counter() + _LONGEST
    while not condition():
        if perf_counter() > until:
            raise TimeoutError(f"not everything was forwarded in {_LONGEST:.0f} s")
        sleep(pause)


def far(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the table of forwarding over a line of 50 ms round trip."""
    with ExitStack() as stack:
        sink = stack.enter_context(peers.stow_sink(folder))
        line = stack.enter_context(peers.delayed(folder, sink, _ROUND_TRIP))
        near_gateway = stack.enter_context(peers.gateway(folder, sink.url))
        far_gateway = stack.enter_context(peers.gateway(folder, line.url))
        one = stack.enter_context(peers.stock(folder, url=line.url))
        tuned = stack.enter_context(peers.orthanc_polled(folder, line.url))
        many, few = sizes.ct, sizes.far
        far_away = "gateway, 50 ms"
        once = {
            far_away: partial(_forward, far_gateway, line, batches, many, CT, 4),
            "gateway, no delay": partial(_forward, near_gateway, sink, batches, many, CT, 4),
            "pynetdicom stock, httpx, 50 ms, one at a time": partial(_forward, one, line, batches, few, CT, 1),
            "the same, 4 associations": partial(_forward, one, line, batches, 2 * few, CT, 4),
            f"{TUNED}, 50 ms": partial(_forward, tuned, line, batches, 2 * few, CT, 4),
        }
        samples = interleaved(once, sizes.few)
        show(
            "Forward CT, 512 KiB, to a null STOW sink far away",
            samples,
            (RATE, _ACCEPTED, ACCEPT, CPU),
            ours=far_away,
        )
