"""Measure the gateway side by side with its peers and print Markdown tables.

Nothing is asserted: the numbers depend on the machine, and only those of one run compare with each other.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

from bench import backlog, find, forward, idle, large, query, receive, retrieve, web
from bench.instances import Batches
from bench.sizes import FULL, QUICK, Sizes

_TABLES: Mapping[str, Callable[[Path, Sizes, Batches], None]] = {
    "receive": receive.generated,
    "senders": receive.sent,
    "orthanc": forward.to_orthanc,
    "sink": forward.to_sink,
    "far": forward.far,
    "large": large.table,
    "idle": idle.table,
    "outbox": backlog.rates,
    "backlog": backlog.table,
    "query": query.table,
    "retrieve": retrieve.table,
    "retrieve-large": retrieve.large,
    "find": find.side_by_side,
    "web": web.side_by_side,
}


def main() -> None:
    """Print the tables that were asked for, by default all."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog=f"Tables: {', '.join(_TABLES)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    parser.add_argument("--folder", type=Path, help="where everything is written, in place of the system's /tmp")
    parser.add_argument("tables", nargs="*", metavar="TABLE", choices=[*_TABLES, []])
    given = parser.parse_args()
    os.environ.pop("TCP_NODELAY", None)  # it would tune the peers that are measured as installed
    sizes = QUICK if given.quick else FULL
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()};")
    print(f"{_load()}; {sizes.few} or {sizes.runs} runs, systems in turn: median (least to most); MB are 10^6 bytes.")
    begun, batches = perf_counter(), Batches()
    for name in given.tables or _TABLES:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=given.folder) as folder:
            _TABLES[name](Path(folder), sizes, batches)
    print(f"\n{_load()} at the end, after {(perf_counter() - begun) / 60:.1f} minutes.")


def _load() -> str:
    return "load average " + ", ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    main()
