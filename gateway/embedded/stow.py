"""Take the bodies of STOW-RS requests and make their instances durable (PS3.18 10.5)."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from gateway.embedded.files import Files
from gateway.embedded.index import Addition, Index
from gateway.embedded.judging import DUPLICATE, INVALID, Judged, Terms, judge
from gateway.embedded.reading import Read, read
from gateway.embedded.switches import NOT_NOW, Switches
from gateway.errors import DataSetError
from gateway.translate.multipart import boundary_of, media_type, split

_DICOM: Final = "application/dicom"
_BATCH: Final = 50
"""Instances made durable by one commit: enough to share its cost, few enough to be held in memory."""

log = structlog.get_logger("gateway")


class MediaTypeError(Exception):
    """Say that the request or one of its parts has another Content-Type than this service takes."""


class RequestError(Exception):
    """Say what is wrong in the request as a whole."""


class Store:
    """Store what STOW-RS requests bring."""

    def __init__(self, index: Index, files: Files, switches: Switches) -> None:
        self._index = index
        self._files = files
        self._switches = switches

    def store(self, content_type: str, body: Iterable[bytes], terms: Terms) -> list[Judged]:
        """Receive all instances, then judge and keep one after the other.

        Raises MediaTypeError, RequestError, MultipartError and OSError for the request as a whole; then nothing
        is stored.
        """
        received: list[Path] = []
        judged: list[Judged] = []
        try:
            for part in _parts(content_type, body):
                received.append(self._files.receive(part))  # noqa: PERF401 - the list must grow as files do
            for at in range(0, len(received), _BATCH):
                judged += self._take(received[at : at + _BATCH], terms)
        finally:
            self._files.discard(received)
        return judged

    def _take(self, paths: Sequence[Path], terms: Terms) -> list[Judged]:
        judged = [self._judge(path, terms) for path in paths]
        good = [(one, path) for one, path in zip(judged, paths, strict=True) if not one.reason]
        if not terms.replace:
            with self._index.reading() as lookup:
                for one, _ in good:
                    if lookup.instances(*_uids(one)):
                        one.reason = DUPLICATE
        self._keep([(one, path) for one, path in good if not one.reason], replace=terms.replace)
        return judged

    def _judge(self, path: Path, terms: Terms) -> Judged:
        try:
            judged = judge(read(path), terms)
        except DataSetError:
            return Judged(Read(), reason=INVALID)
        if not judged.reason:
            judged.reason = self._switches.failure_reason() or 0
        return judged

    def _keep(self, good: Sequence[tuple[Judged, Path]], *, replace: bool) -> None:
        """Make instances durable; what cannot be is given its Failure Reason."""
        if not good:
            return
        left_over: list[str] = []
        try:
            names = self._files.keep([path for _, path in good])
            left_over = names
            added, left_over = self._index.add(
                [_addition(one, name, replace=replace) for (one, _), name in zip(good, names, strict=True)]
            )
        except (OSError, sqlite3.Error) as error:
            log.error("embedded_archive_cannot_store", error=type(error).__name__)
            added = [False] * len(good)
            for one, _ in good:
                one.reason = NOT_NOW
        else:
            left_over += [name for name, was_added in zip(names, added, strict=True) if not was_added]
            for (one, _), was_added in zip(good, added, strict=True):
                one.reason = 0 if was_added else DUPLICATE
        self._files.discard(self._files.path(name) for name in left_over)


def _uids(one: Judged) -> tuple[str, str, str]:
    return one.read.study, one.read.series, one.read.instance


def _addition(one: Judged, file: str, *, replace: bool) -> Addition:
    return Addition(_uids(one), file, one.read.transfer_syntax, one.model, replace)


def _parts(content_type: str, body: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
    kind, parameters = media_type(content_type)
    if kind == _DICOM and not parameters:
        yield body
        return
    if kind != "multipart/related" or not parameters.get("boundary"):
        raise MediaTypeError
    if "start" in parameters:
        raise RequestError("the parameter start is not supported")
    boundary = boundary_of(content_type)
    inherited: str | None = parameters.get("type", "")
    for part in split(_unless_empty(body, boundary), boundary):
        declared = part.headers.get("content-type", inherited)
        inherited = None
        if declared is None or declared.strip().lower() != _DICOM:
            raise MediaTypeError
        yield part.body


def _unless_empty(body: Iterable[bytes], boundary: str) -> Iterator[bytes]:
    """Give an empty body the closing boundary that it lacks: such a request has no parts."""
    empty = True
    for chunk in body:
        empty = empty and not chunk
        yield chunk
    if empty:
        yield b"--" + boundary.encode("ascii") + b"--\r\n"
