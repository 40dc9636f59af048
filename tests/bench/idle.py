"""Measure what idle associations cost."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import peers, wire
from bench.instances import SOP_CLASS, Batches
from bench.measure import PEAK, Column, Sample, interleaved, show
from bench.peers import Peer
from bench.sizes import Sizes

_ASSOCIATIONS = 200
_OF_STOCK = 20  # more of them keep a core busy
_SHARE = Column("share", "% of a core", ".2f", 100)


def table(folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print the table."""
    with ExitStack() as stack:
        gateway = stack.enter_context(peers.gateway(folder))
        stock = stack.enter_context(peers.stock(folder, "--associations", str(2 * _OF_STOCK)))
        once = {
            f"gateway, {_ASSOCIATIONS} associations": partial(_idle, gateway, _ASSOCIATIONS, sizes),
            f"pynetdicom stock, {_OF_STOCK} associations": partial(_idle, stock, _OF_STOCK, sizes),
        }
        show("Idle associations", interleaved(once, sizes.few), (_SHARE, PEAK))


def _idle(peer: Peer, associations: int, sizes: Sizes) -> Sample:
    with ExitStack() as stack:
        for _ in range(associations):
            stack.callback(wire.release, peer.target.associate((SOP_CLASS, wire.EXPLICIT_LE)))
        time.sleep(1)
        peer.usage.reset_peak()
        used = peer.usage.seconds()
        time.sleep(sizes.idle)
        return {"share": (peer.usage.seconds() - used) / sizes.idle, "peak": peer.usage.peak()}
