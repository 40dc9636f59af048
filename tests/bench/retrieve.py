"""Measure C-MOVE and C-GET out of an archive: against Orthanc's own C-MOVE and a stock pynetdicom sender."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

import dcmtk
from bench import peers
from bench.instances import Batch, Batches, study_of
from bench.load import Sink, Target, move, store
from bench.measure import CPU, PEAK, RATE, Column, Sample, interleaved, show
from bench.peers import NODELAY, Archive
from bench.sizes import CT, Sizes
from bench.usage import Usage
from gateway_process import GatewayProcess
from orthanc import Orthanc

_OURS, _FAR = "gateway, Orthanc behind it", "gateway, the same 50 ms away"
_EARLY = "gateway, 50 ms away, retrieve_early"
_ROUND_TRIP = 0.05  # seconds
_MOVES = 16
_WIDE = 2 * _MOVES + 2  # connections of which each of those moves can have one for its series
_MOST = 2_000_000_000  # bytes: Orthanc 1.10 breaks off an answer of 2 GiB
_SECONDS = Column("seconds", "seconds", ".2f")
_FIRST = Column("first", "first instance after ms", ".0f", 1000)
_SLOWEST, _FASTEST = Column("slowest", "slowest move, s", ".1f"), Column("fastest", "fastest move, s", ".1f")


def table(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the tables of a study of CT slices: near and far, the first instance, many moves at once."""
    with ExitStack() as stack:
        scp = stack.enter_context(peers.storescp(folder, NODELAY))
        sink = stack.enter_context(Sink())
        null = stack.enter_context(peers.null_receiver(folder))
        places = {"STORESCP": scp.target.port, "SINK": sink.port} | {
            f"NULL{number}": null.target.port for number in range(_MOVES)
        }
        modalities = {title: ("127.0.0.1", port) for title, port in places.items()}
        orthanc = stack.enter_context(Orthanc(folder, modalities=modalities, environment=NODELAY))
        archive = Archive(orthanc.url, "orthanc", orthanc.count)
        line = stack.enter_context(peers.delayed(folder, archive, _ROUND_TRIP))
        near = stack.enter_context(_gateway(folder, archive, places))
        far = stack.enter_context(_gateway(folder, line, places))
        early = stack.enter_context(_gateway(folder, line, places, retrieve_early=True))
        own = Target(orthanc.port, orthanc.title), Usage(orthanc.pid)

        batch = batches.make(sizes.ct, CT)
        store(own[0], batch, 4)
        gateways = {_OURS: near, _FAR: far, _EARLY: early}
        _to_storescp(sizes, batch, {**gateways, "Orthanc's own C-MOVE": own}, scp.target, folder)
        once = {name: partial(_first, where, sink, batch) for name, where in gateways.items()}
        for name, where, options in (
            (_OURS, archive, {}),
            (_FAR, line, {}),
            (_EARLY, line, {"retrieve_early": True}),
        ):
            once[f"{name}, just started"] = partial(_first_of_all, folder, where, places, options, sink, batch)
        show(f"First of {sizes.ct} CT at the destination", interleaved(once, sizes.runs), (_FIRST,))
        studies = [batches.make(max(8, sizes.ct // 5), CT) for _ in range(_MOVES)]
        for study in studies:
            store(own[0], study, 4)
        wide = stack.enter_context(_gateway(folder, archive, places, connections=_WIDE))
        _at_once(sizes, near, wide, studies)


def large(folder: Path, sizes: Sizes, batches: Batches) -> None:
    """Print the table of one large multi-frame instance, moved and got."""
    with ExitStack() as stack:
        null = stack.enter_context(peers.null_receiver(folder))
        orthanc = stack.enter_context(Orthanc(folder, environment=NODELAY))
        archive = Archive(orthanc.url, "orthanc", orthanc.count)
        gateway, usage = stack.enter_context(_gateway(folder, archive, {"NULL0": null.target.port}))
        batch = batches.make(1, min(sizes.big, _MOST))
        store(Target(orthanc.port, orthanc.title), batch, 1)

        def moved() -> Sample:
            usage.reset_peak()
            seconds = move(gateway, study_of(batch), "NULL0")
            return {"seconds": seconds, "peak": usage.peak()}

        def got() -> Sample:
            usage.reset_peak()
            place, begun = Path(mkdtemp(prefix="got-", dir=folder)), perf_counter()
            keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={batch.study}")
            result = dcmtk.getscu(gateway.port, place, *keys, model="S", calling="BENCH", seconds=600)
            seconds = perf_counter() - begun
            (file,) = place.iterdir()
            if result.returncode or file.stat().st_size < batch.size:
                raise RuntimeError("the instance did not arrive")
            file.unlink()
            return {"seconds": seconds, "peak": usage.peak()}

        samples = interleaved({"C-MOVE": moved, "C-GET by getscu": got}, min(2, sizes.runs))
        show(f"Retrieve one multi-frame instance of {batch.size / 1e9:.2f} GB", samples, (_SECONDS, PEAK))


@contextmanager
def _gateway(
    folder: Path, archive: Archive, places: Mapping[str, int], **options: object
) -> Iterator[tuple[Target, Usage]]:
    known = {title: {"host": "127.0.0.1", "port": port} for title, port in places.items()}
    process = GatewayProcess(
        Path(mkdtemp(prefix="retrieve-", dir=folder)),
        # Orthanc needs half a minute and more before it begins to send 2 GB
        archives={"archive": {"url": archive.url, "profile": archive.profile, "read_timeout": 600, **options}},
        ae_titles={"GATEWAY": {"archive": "archive"}},
        peers={"BENCH": {}, "DCMTK": {}, **known},
        # The same study is moved again and again, and the archive is what is measured.
        retrieve={"cache": {"size": 0}},
    )
    with process:
        yield Target(process.port, process.title), Usage(process.pid)


def _to_storescp(
    sizes: Sizes, batch: Batch, movers: Mapping[str, tuple[Target, Usage]], scp: Target, folder: Path
) -> None:
    files = batch.files(folder)

    def moved(mover: Target, usage: Usage) -> Sample:
        usage.reset_peak()
        used = usage.seconds()
        seconds = move(mover, study_of(batch), "STORESCP")
        cpu = (usage.seconds() - used) / batch.count
        return {"rate": batch.count / seconds, "cpu": cpu, "peak": usage.peak()}

    def sent() -> Sample:
        command = [sys.executable, "-m", "bench.stock_sender", str(scp.port), files]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {"rate": batch.count / float(done.stdout)}

    once: dict[str, Callable[[], Sample]] = {name: partial(moved, *mover) for name, mover in movers.items()}
    once["stock pynetdicom sends the same files"] = sent
    show(
        f"Retrieve {batch.count} CT, 512 KiB, to storescp",
        interleaved(once, sizes.runs),
        (RATE, CPU, PEAK),
        ours=_OURS,
    )


def _first(mover: tuple[Target, Usage], sink: Sink, batch: Batch) -> Sample:
    """Measure from the request to the first instance that the destination has whole."""
    before = sink.instances
    with ThreadPoolExecutor(1) as pool:
        begun = perf_counter()
        whole = pool.submit(move, mover[0], study_of(batch), "SINK")
        while sink.instances == before:
            if whole.done():
                whole.result()
        first = perf_counter() - begun
        whole.result()
    return {"first": first}


def _first_of_all(
    folder: Path, archive: Archive, places: Mapping[str, int], options: Mapping[str, bool], sink: Sink, batch: Batch
) -> Sample:
    """Measure the first instance with a gateway that has no connection to the archive yet."""
    with _gateway(folder, archive, places, **options) as mover:
        return _first(mover, sink, batch)


def _at_once(sizes: Sizes, near: tuple[Target, Usage], wide: tuple[Target, Usage], studies: list[Batch]) -> None:
    def moved(mover: tuple[Target, Usage], number: int) -> Sample:
        target, usage = mover
        usage.reset_peak()
        with ThreadPoolExecutor(number) as pool:
            begun = perf_counter()
            moves = [
                pool.submit(move, target, study_of(study), f"NULL{at}") for at, study in enumerate(studies[:number])
            ]
            seconds = sorted(each.result() for each in moves)
            took = perf_counter() - begun
        count = sum(study.count for study in studies[:number])
        return {"rate": count / took, "slowest": seconds[-1], "fastest": seconds[0], "peak": usage.peak()}

    once = {f"{number} at once": partial(moved, near, number) for number in (1, 4, _MOVES)}
    once[f"{_MOVES} at once, `connections: {_WIDE}`"] = partial(moved, wide, _MOVES)
    columns = (RATE, _FASTEST, _SLOWEST, PEAK)
    title = f"Moves of {studies[0].count} CT each, to destinations that keep nothing"
    show(title, interleaved(once, sizes.runs), columns)
