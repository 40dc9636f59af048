"""Measure the outbox alone: put rates, and claim and insert with a million waiting rows against none."""

import argparse
import itertools
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spooled import arrival, content

from gateway.outbox import Limits, Outbox
from gateway.translate.part10 import file_header

LIMITS = Limits(high_water=1)
PIECE = 16_384
HEADER = file_header("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", source_ae="CT01")


def put_many(outbox: Outbox, name: str, data: memoryview, count: int) -> list[float]:
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    took = []
    for number in range(count):
        begin = time.perf_counter()
        with outbox.incoming("CT01", HEADER) as incoming:
            incoming.write(*pieces)
            outbox.commit(incoming, arrival(f"{name}.{number}", study=f"{name}.{number // 200}"))
        took.append(time.perf_counter() - begin)
    return took


def rate(folder: Path, threads: int, length: int, count: int) -> tuple[float, float]:
    """Return instances per second and the median time of one in ms."""
    took: list[float] = []
    data = memoryview(content("bench", length))
    with Outbox(folder, LIMITS) as outbox:
        work = [
            threading.Thread(target=lambda n=n: took.extend(put_many(outbox, f"1.{n}", data, count // threads)))
            for n in range(threads)
        ]
        begin = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        seconds = time.perf_counter() - begin
    return count / seconds, statistics.median(took) * 1000


def fill(folder: Path, rows: int) -> None:
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


def each(action: Callable[[], object], times: int) -> float:
    """Return the median time in ms."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        took.append(time.perf_counter() - begin)
    return statistics.median(took) * 1000


def with_rows(folder: Path, rows: int) -> dict[str, float]:
    """Return median times in ms with so many waiting rows."""
    with Outbox(folder, LIMITS) as outbox:
        if rows:
            fill(folder, rows)
        data = memoryview(content("bench", 10_240))
        numbers = itertools.count()
        found = {"put": each(lambda: put_many(outbox, f"9.{next(numbers)}", data, 1), 500)}
        claimed = []
        found["claim 10"] = each(
            lambda: claimed.append(outbox.claim("main", count=10, max_bytes=10**9, lease=600)), 40
        )
        settle = iter(claimed)
        found["done 10"] = each(lambda: outbox.done([entry.id for entry in next(settle)]), 40)
        found["statistics"] = each(outbox.statistics, 50)
        found["check room"] = each(lambda: outbox.check_room("CT1", 1000), 500)
        found["list studies"] = each(lambda: sum(1 for _ in outbox.studies()), 1)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments.add_argument("--rows", type=int, default=1_000_000)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folders = (Path(made) / str(number) for number in itertools.count())
        for length in (10_240, 524_288):
            for threads in (1, 4):
                runs = [rate(next(folders), threads, length, 800) for _ in range(3)]
                rates = sorted(run[0] for run in runs)
                print(
                    f"put {length // 1024:4} KiB, {threads} threads: {rates[1]:6.0f}/s "
                    f"({rates[0]:.0f} to {rates[-1]:.0f}), median {sorted(run[1] for run in runs)[1]:.2f} ms"
                )
        empty, full = (with_rows(next(folders), rows) for rows in (0, given.rows))
        for name, before in empty.items():
            after = full[name]
            print(f"{name:12} empty {before:8.3f} ms, {given.rows} rows {after:8.3f} ms: x {after / before:.2f}")
        size = max(path.stat().st_size for path in Path(made).glob("*/outbox.db"))
        print(f"database {size / given.rows:.0f} bytes a row")


if __name__ == "__main__":
    main()
