"""Measure the client against curl doing the same to the same Orthanc, side by side; nothing is asserted.

STOW-RS: the same files, ten to a request, with 1, 4 and 8 requests at a time; curl's bodies are made beforehand.
WADO-RS: one study; curl writes the answer to one file as it comes, the client takes it apart, into one file and into
a file for each instance.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from bench.instances import Batches
from bench.measure import Column, interleaved, ratio
from bench.sizes import Sizes
from orthanc import Orthanc

from gateway.dicomweb import Client
from gateway.translate.generate import ct_series

_BATCH = 10  # instances to a request, as the client's profile has it
_RATE = Column("rate", "MB/s", better="more")
_ACCEPT = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*'


def side_by_side(folder: Path, sizes: Sizes, _: Batches) -> None:
    """Print the table: MB/s of both, and the ratio of gateway to curl, run by run."""
    print(f"\n### The client against curl, {sizes.ct} CT of 512 KiB into and out of Orthanc\n")
    print("| workload | curl MB/s | gateway MB/s | gateway / curl |")
    print("|---|---|---|---|", flush=True)
    with Orthanc(folder) as server:
        paths = [made.path for made in ct_series(folder / "files", "bench", count=sizes.ct)]
        for row in _rows(server, folder, paths, sizes.runs):
            print(row, flush=True)


def _rows(server: Orthanc, folder: Path, paths: list[Path], runs: int) -> Iterator[str]:
    size = sum(path.stat().st_size for path in paths) / 1e6
    bodies = _bodies(folder, paths)
    for parallel in (1, 4, 8):
        plural = "s" if parallel > 1 else ""
        yield _row(
            f"STOW, {parallel} connection{plural}",
            size,
            runs,
            lambda k=parallel: _stow_curl(server, folder, bodies, k),
            lambda k=parallel: _stow(server, paths, k),
        )
    study = next(iter(Client(server.url, profile="orthanc").studies())).StudyInstanceUID
    numbers = count()
    for name, retrieve in (("one file", _wado_joined), (f"{len(paths)} files", _wado)):
        yield _row(
            f"WADO of the study, into {name}",
            size,
            runs,
            lambda: _wado_curl(server, study, folder / f"curl-{next(numbers)}"),
            lambda r=retrieve: r(server, study, folder / f"gateway-{next(numbers)}", len(paths)),
        )


def _row(workload: str, size: float, runs: int, curl: Callable[[], float], ours: Callable[[], float]) -> str:
    samples = interleaved({"curl": lambda: {"rate": size / curl()}, "gateway": lambda: {"rate": size / ours()}}, runs)
    cells = (_RATE.cell(samples["curl"]), _RATE.cell(samples["gateway"]))
    return f"| {workload} | {' | '.join(cells)} | {ratio(samples['gateway'], samples['curl'], _RATE)} |"


def _bodies(folder: Path, paths: list[Path]) -> list[Path]:
    bodies = []
    for start in range(0, len(paths), _BATCH):
        body = folder / f"body-{start}"
        with body.open("wb") as file:
            for path in paths[start : start + _BATCH]:
                file.write(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n")
            file.write(b"--b--\r\n")
        bodies.append(body)
    return bodies


def _stow_curl(server: Orthanc, folder: Path, bodies: list[Path], parallel: int) -> float:
    server.clear()
    requests = [
        f'url = "{server.url}/studies"\nrequest = POST\nupload-file = "{body}"\noutput = "{folder}/answer"\n'
        'header = "Content-Type: multipart/related; type=\\"application/dicom\\"; boundary=b"\n'
        'header = "Accept: application/dicom+json"\nheader = "Expect:"\n'
        for body in bodies
    ]
    config = folder / "curl.conf"
    config.write_text("next\n".join(requests))
    at_once = ["--parallel", "--parallel-max", str(parallel), "--parallel-immediate"] if parallel > 1 else []
    return _timed(server, lambda: _curl(*at_once, "--config", config), len(bodies) * _BATCH)


def _stow(server: Orthanc, paths: list[Path], parallel: int) -> float:
    server.clear()
    with Client(server.url, profile="orthanc") as archive:
        return _timed(server, lambda: list(archive.upload(paths, skip_present=False, parallel=parallel)), len(paths))


def _timed(server: Orthanc, action: Callable[[], object], expected: int) -> float:
    begun = time.perf_counter()
    action()
    seconds = time.perf_counter() - begun
    if server.count() != expected:
        raise RuntimeError(f"{server.count()} instances arrived in place of {expected}")
    return seconds


def _wado_curl(server: Orthanc, study: str, target: Path) -> float:
    begun = time.perf_counter()
    _curl("--header", _ACCEPT, "--output", target, f"{server.url}/studies/{study}")
    seconds = time.perf_counter() - begun
    target.unlink()
    return seconds


def _wado(server: Orthanc, study: str, target: Path, expected: int) -> float:
    target.mkdir()
    begun = time.perf_counter()
    with Client(server.url, profile="orthanc") as archive, archive.retrieve(study) as instances:
        saved = [instance.save(target) for instance in instances]
    seconds = time.perf_counter() - begun
    if len(saved) != expected:
        raise RuntimeError(f"{len(saved)} instances came in place of {expected}")
    for path in saved:
        path.unlink()
    return seconds


def _wado_joined(server: Orthanc, study: str, target: Path, expected: int) -> float:
    begun, number = time.perf_counter(), 0
    with (
        target.open("wb", buffering=0) as file,
        Client(server.url, profile="orthanc") as archive,
        archive.retrieve(study) as instances,
    ):
        for instance in instances:
            number += 1
            for chunk in instance.chunks:
                file.write(chunk)
    seconds = time.perf_counter() - begun
    if number != expected:
        raise RuntimeError(f"{number} instances came in place of {expected}")
    target.unlink()
    return seconds


def _curl(*arguments: str | Path) -> None:
    command = ["curl", "--silent", "--no-progress-meter", "--show-error", "--fail", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=300)
