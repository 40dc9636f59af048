"""Measure how fast instances are received and kept: against storescp, Orthanc and stock pynetdicom."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

from bench import peers
from bench.instances import Batches
from bench.load import store
from bench.measure import ACCEPT, CPU, PEAK, RATE, Column, Sample, interleaved, show
from bench.peers import NODELAY, Peer
from bench.sizes import CT, TINY, Sizes

_SAFE = Column("safe", "instances/s until all is on the disk", better="more")
OURS = "gateway"


def generated(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the tables with the load generator."""
    with ExitStack() as stack:
        systems = {
            OURS: stack.enter_context(peers.gateway(folder)),
            "gateway, 2 receiving processes": stack.enter_context(peers.gateway(folder, listen={"workers": 2})),
            "DCMTK storescp -od, not synced": stack.enter_context(peers.storescp(folder)),
            "Orthanc as installed, files synced": stack.enter_context(peers.orthanc(folder)),
            "pynetdicom stock, files not synced": stack.enter_context(peers.stock(folder)),
            "limit: receiver that keeps nothing": stack.enter_context(peers.null_receiver(folder)),
        }
        for name, count, size in (("CT, 512 KiB", sizes.ct, CT), ("tiny, 10 KiB", sizes.tiny, TINY)):
            for associations in (1, 4):
                once = {
                    system: partial(_receive, peer, batches, count, size, associations)
                    for system, peer in systems.items()
                }
                title = f"Receive {count:,} {name}, {associations} association{'s' * (associations > 1)}"
                show(title, interleaved(once, sizes.runs), (RATE, _SAFE, ACCEPT, CPU, PEAK), ours=OURS)


def _receive(peer: Peer, batches: Batches, count: int, size: int, associations: int) -> Sample:
    batch = batches.make(count, size)
    batch.encode()
    peer.usage.reset_peak()
    before = peer.usage.seconds()
    load = store(peer.target, batch, associations)
    used = peer.usage.seconds() - before
    begun = perf_counter()
    os.sync()  # what the others left to the kernel
    return {
        "rate": count / load.seconds,
        "safe": count / (load.seconds + perf_counter() - begun),
        "accept": load.median,
        "cpu": used / count,
        "peak": peer.usage.peak(),
    }


def sent(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the tables with DCMTK's unmodified senders, which leave Nagle's algorithm on."""
    with ExitStack() as stack:
        ours = stack.enter_context(peers.gateway(folder))
        for receivers, sender_too, how in (
            ({}, {}, "as installed"),
            (NODELAY, {}, "TCP_NODELAY=1 for the peer"),
            (NODELAY, NODELAY, "TCP_NODELAY=1 for peer and sender"),
        ):
            with ExitStack() as inner:
                systems = {
                    OURS: ours,
                    "DCMTK storescp -od": inner.enter_context(peers.storescp(folder, receivers)),
                    "Orthanc": inner.enter_context(peers.orthanc(folder, receivers)),
                }
                for sender, command in _SENDERS.items():
                    once = {}
                    for name, peer in systems.items():
                        # fewer where each of them is waited for 44 ms
                        count = sizes.stalled if not sender_too and peer is not ours else sizes.sent
                        once[name] = partial(_send, command, sender_too, peer, batches, count, folder)
                    show(f"{sender}, tiny, 10 KiB, {how}", interleaved(once, sizes.few), (RATE,), ours=OURS)


_SENDERS: Mapping[str, list[str]] = {
    "storescu": ["storescu", "-R", "-nh", "+sd"],
    "dcmsend": ["dcmsend", "-nh", "+sd"],
}


def _send(
    command: list[str], environment: Mapping[str, str], peer: Peer, batches: Batches, count: int, folder: Path
) -> Sample:
    """Send files with one of DCMTK's programs; its start and its reading of the files count as well."""
    files = batches.make(count, TINY).files(folder)
    os.sync()
    address = ["-aec", peer.target.called, peer.target.host, str(peer.target.port)]
    begun = perf_counter()
    subprocess.run([*command, *address, files], check=True, capture_output=True, env={**os.environ, **environment})
    seconds = perf_counter() - begun
    shutil.rmtree(files)
    return {"rate": count / seconds}
