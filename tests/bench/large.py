"""Measure one large multi-frame instance: memory, and the speed before and with the sync to the disk."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

from bench import peers, wire
from bench.instances import SOP_CLASS, Batches
from bench.measure import PEAK, Column, Sample, interleaved, show
from bench.peers import Peer
from bench.sizes import Sizes

_TAKEN = Column("taken", "GB/s until the last byte was taken", ".2f", 1e-9, better="more")
_ANSWERED = Column("answered", "GB/s until the response", ".2f", 1e-9)
_CPU = Column("cpu", "CPU s/GB", ".2f", 1e9)


def table(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the table."""
    with ExitStack() as stack:
        systems: Mapping[str, Peer] = {
            "gateway": stack.enter_context(peers.gateway(folder)),
            "DCMTK storescp -od, not synced": stack.enter_context(peers.storescp(folder)),
            "limit: receiver that keeps nothing": stack.enter_context(peers.null_receiver(folder)),
        }
        once = {name: partial(_store, peer, batches, sizes.big) for name, peer in systems.items()}
        title = f"Receive one multi-frame instance of {sizes.big / 1e9:.2f} GB"
        show(title, interleaved(once, sizes.few), (_TAKEN, _ANSWERED, _CPU, PEAK), ours="gateway")


def _store(peer: Peer, batches: Batches, size: int) -> Sample:
    batch = batches.make(1, size)
    batch.encode()
    connection = peer.target.associate((SOP_CLASS, wire.EXPLICIT_LE))
    peer.usage.reset_peak()
    used, begun = peer.usage.seconds(), perf_counter()
    connection.send((*batch.prefixes, *batch.tails))
    taken = perf_counter()
    status = wire.answer(connection)
    answered = perf_counter()
    if status != 0:
        raise wire.WireError(f"C-STORE status {status:04X}H")
    sample = {
        "taken": size / (taken - begun),
        "answered": size / (answered - begun),
        "peak": peer.usage.peak(),
    }
    wire.release(connection)
    return sample | {"cpu": (peer.usage.seconds() - used) / size}
