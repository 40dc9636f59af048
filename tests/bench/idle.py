"""Measure what idle associations cost."""

import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from bench import peers, wire
from bench.instances import SOP_CLASS, Batches
from bench.measure import PEAK, Column, Sample, interleaved, show
from bench.peers import Peer
from bench.sizes import Sizes

_ASSOCIATIONS = 200
_SHARE = Column("share", "% of a core", ".2f", 100)


def table(folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print the table."""
    with ExitStack() as stack:
        gateway = stack.enter_context(peers.gateway(folder))
        stock = stack.enter_context(peers.stock(folder, "--associations", str(_ASSOCIATIONS)))
        once = {
            "gateway": partial(_idle, gateway, sizes),
            "pynetdicom stock": partial(_idle, stock, sizes),
        }
        show(f"{_ASSOCIATIONS} idle associations", interleaved(once, min(3, sizes.runs)), (_SHARE, PEAK))


def _idle(peer: Peer, sizes: Sizes) -> Sample:
    with ExitStack() as stack:
        for _ in range(_ASSOCIATIONS):
            stack.enter_context(closing(peer.target.associate((SOP_CLASS, wire.EXPLICIT_LE))))
        time.sleep(1)
        peer.usage.reset_peak()
        used = peer.usage.seconds()
        time.sleep(sizes.idle)
        return {"share": (peer.usage.seconds() - used) / sizes.idle, "peak": peer.usage.peak()}
