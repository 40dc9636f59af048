"""Give the room back of what nobody waits for any more."""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import structlog

from gateway.extent import take
from gateway.outbox.entry import Place
from gateway.outbox.linux import punch_hole
from gateway.outbox.record import end
from gateway.outbox.rows import file_name
from gateway.outbox.segments import segment_name

log = structlog.get_logger("gateway.outbox")


def give_back(folder: Path, places: Iterable[Place]) -> set[int]:
    """Give back the room of some entries' bytes, and say in which segments it was; raises OSError for files.

    Where somebody reads them, or the file system cannot do it, their room is kept until the segment is removed.
    """
    ordered = sorted(places, key=attrgetter("segment", "position"))
    segments = {number: list(of) for number, of in groupby(ordered, attrgetter("segment"))}
    for place in segments.pop(0, ()):
        (folder / file_name(place.id)).unlink(missing_ok=True)
    for number, found in segments.items():
        try:
            descriptor = os.open(folder / segment_name(number), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody has removed all of it
            continue
        try:
            for begin, until in _runs(found):
                if take(descriptor, begin, until - begin):
                    punch_hole(descriptor, begin, until - begin)
        except OSError as error:  # what it is done for has happened
            log.warning("room is not given back yet", segment=segment_name(number), reason=error.strerror)
        finally:
            os.close(descriptor)
    return set(segments)


def _runs(places: Iterable[Place]) -> Iterator[tuple[int, int]]:
    """Join neighbours: to give a hundred back at once takes no longer than one."""
    begin = until = -1
    for place in places:
        if place.position != until:
            if until > 0:
                yield begin, until
            begin = place.position
        until = end(place.position, place.size)
    if until > 0:
        yield begin, until
