"""Write small records together: one write and one sync for all whose associations wait at the same time."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.outbox.record import BLOCK, Small, end
from gateway.outbox.segments import Segment, Segments, write_all


@contextmanager
def written(segments: Segments, records: Sequence[Small]) -> Iterator[None]:
    """Have the records on the disk within; if that ends with an error, it is as if they had never been written.

    Raises OSError.
    """
    if not records:
        yield
        return
    segment = segments.take()
    begin = segment.end
    try:
        segment.end = _write(segment, records)
        yield
    except BaseException:
        segment.end = begin
        segment.cut()
        for record in records:
            record.segment = 0
        raise
    finally:
        segments.give(segment)


def _write(segment: Segment, records: Sequence[Small]) -> int:
    """Write records behind each other and sync them; give where the next may begin."""
    at, buffers = segment.end, list[bytes | bytearray]()
    for record in records:
        record.segment, record.position = segment.number, at
        following = end(at, len(record.file))
        buffers += (record.head, record.file, bytes(following - at - BLOCK - len(record.file)))
        at = following
    written = os.pwritev(segment.descriptor, buffers, segment.end)
    if written < at - segment.end:
        write_all(segment.descriptor, memoryview(b"".join(buffers))[written:], segment.end + written)
    segment.sync(at)
    return at
