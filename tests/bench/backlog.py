"""Measure the outbox alone, in this process: its rates, and each step with many waiting rows against none."""

import itertools
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.instances import Batches
from bench.measure import RATE, Column, Sample, interleaved, show
from bench.sizes import CT, TINY, Sizes
from spooled import CT as CT_IMAGE
from spooled import EXPLICIT, arrival, content

from gateway.outbox import Limits, Outbox
from gateway.translate.part10 import file_header

_LIMITS = Limits(high_water=1)
_PIECE = 16_384
_HEADER = file_header(CT_IMAGE, "1.2.3", EXPLICIT, source_ae="CT01")
_STEPS = ("insert", "claim 10", "finish 10", "statistics", "check room")


def rates(folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print what the outbox takes without a network."""
    once = {}
    for name, size, count in (("512 KiB", CT, sizes.ct), ("10 KiB", TINY, sizes.tiny)):
        for threads in (1, 4):
            outbox = folder / f"rate-{size}-{threads}"
            once[f"{name}, {threads} threads"] = partial(_rate, outbox, itertools.count(), threads, size, count)
    show("Outbox alone: instances written, synced and queued", interleaved(once, sizes.runs), (RATE,))


def _rate(folder: Path, runs: Iterator[int], threads: int, size: int, count: int) -> Sample:
    data, run = memoryview(content("bench", size)), next(runs)
    with Outbox(folder, _LIMITS) as outbox:
        work = [
            threading.Thread(target=_put, args=(outbox, f"1.{run}.{number}", data, count // threads))
            for number in range(threads)
        ]
        begun = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return {"rate": count / (time.perf_counter() - begun)}


def _put(outbox: Outbox, name: str, data: memoryview, count: int) -> None:
    pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
    for number in range(count):
        with outbox.incoming("CT01", _HEADER) as incoming:
            incoming.write(*pieces)
            outbox.commit(incoming, arrival(f"{name}.{number}", study=f"{name}.{number // 200}"))


def table(folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print the table."""
    with ExitStack() as stack:
        once = {}
        for name, rows in (("empty", 0), (f"{sizes.rows:,} rows wait", sizes.rows)):
            place = folder / f"backlog-{rows}"
            outbox = stack.enter_context(Outbox(place, _LIMITS))
            if rows:
                _fill(place, rows)
            once[name] = partial(_steps, outbox, itertools.count())
        samples = interleaved(once, sizes.runs)
        columns = [Column(step, f"{step}, ms", ".3f", 1000, better="less") for step in _STEPS]
        show("Outbox: median time of a step", samples, columns, ours="empty")


def _steps(outbox: Outbox, numbers: Iterator[int]) -> Sample:
    data, run = memoryview(content("bench", TINY)), next(numbers)
    names = (f"9.{run}.{number}" for number in itertools.count())
    claimed = []
    found = {
        "insert": _each(lambda: _put(outbox, next(names), data, 1), 300),
        "claim 10": _each(lambda: claimed.append(outbox.claim("main", count=10, max_bytes=10**9, lease=600)), 20),
    }
    settle = iter(claimed)
    return found | {
        "finish 10": _each(lambda: outbox.done([entry.id for entry in next(settle)]), 20),
        "statistics": _each(outbox.statistics, 50),
        "check room": _each(lambda: outbox.check_room("CT1", 1_000), 300),
    }


def _each(action: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def _fill(folder: Path, rows: int) -> None:
    """Put rows in without files: a hundred thousand studies."""
    database = sqlite3.connect(folder / "outbox.db")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO entries (id, archive, study, series, sop_class, sop_instance, transfer_syntax, peer, called, "
        "size, digest, received, place, state, due) SELECT i, 'main', "
        "'1.2.826.0.1.3680043.8.498.' || (i * 7919 % 100003) || '00000000000000000', "
        "'1.2.826.0.1.3680043.8.498.' || (i * 7919 % 100003) || '00000000000000001', '1.2.840.10008.5.1.4.1.1.2', "
        "'1.2.826.0.1.3680043.8.498.' || (i * 48271 % 2147483647) || '000000000000' || i, "
        "'1.2.840.10008.1.2.1', 'CT' || (i % 10), 'GATEWAY', 524288, zeroblob(32), 1000000 + i, 1000000 + i, "
        "'todo', 1000000 + i FROM n",
        (rows,),
    )
    database.commit()
    database.close()
