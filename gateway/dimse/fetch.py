"""Fetch instances from the archive into files, several at a time, in the order asked for."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gateway.dicomweb.client import Client
from gateway.errors import AnswerUnreadable, DataSetError, GatewayError
from gateway.translate.part10 import FileMeta, read_file_meta

_PARALLEL = 4
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Name an instance to retrieve."""

    study: str
    series: str
    sop_class: str
    sop_instance: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """Hold an instance's file with its File Meta, or the error that kept it from being one."""

    target: Target
    path: Path | None = None
    meta: FileMeta | None = None
    error: GatewayError | None = None

    def discard(self) -> None:
        """Remove the file; a second call does nothing."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fetch(archive: Client, targets: Iterable[Target], scratch: Callable[[], Path]) -> Iterator[Fetched]:
    """Yield every target in order, fetched a few ahead in parallel; the caller discards each.

    `scratch` names a file for each. What was fetched ahead is removed when the iteration ends early.
    """
    waiting: deque[Future[Fetched]] = deque()
    left = iter(targets)
    pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="fetch")
    try:
        waiting.extend(pool.submit(_fetch, archive, target, scratch()) for target in itertools.islice(left, _AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_fetch, archive, target, scratch()) for target in itertools.islice(left, 1))
    finally:
        for future in waiting:
            if not future.cancel():
                future.add_done_callback(_discard)
        pool.shutdown(wait=False)


def _discard(future: "Future[Fetched]") -> None:
    if not future.cancelled():
        future.result().discard()


def _fetch(archive: Client, target: Target, path: Path) -> Fetched:
    try:
        with (
            archive.retrieve(target.study, target.series, target.sop_instance) as instances,
            path.open("xb") as file,
        ):
            count = 0
            for instance in instances:
                count += 1
                for chunk in instance.chunks:
                    if count == 1:
                        file.write(chunk)
            if count != 1:
                raise AnswerUnreadable(archive.name, f"{count} instances instead of one")
        return Fetched(target, path, _meta(archive, target, path))
    except GatewayError as error:
        failure: GatewayError = error
    except OSError as error:
        failure = GatewayError(f"the instance cannot be spooled: {error.strerror}")
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return Fetched(target, error=failure)


def _meta(archive: Client, target: Target, path: Path) -> FileMeta:
    with path.open("rb") as file:
        try:
            meta = read_file_meta(file)
        except DataSetError as error:
            raise AnswerUnreadable(archive.name, f"not a Part 10 file: {error}") from error
    if meta.sop_instance != target.sop_instance:
        raise AnswerUnreadable(archive.name, "another instance than the one asked for")
    return meta
