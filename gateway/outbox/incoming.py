"""An instance that is being received: written as it comes, digested on the way, then committed or discarded."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway.errors import GatewayError
from gateway.extent import Extent
from gateway.outbox.digest import Digest
from gateway.outbox.faults import spool_error
from gateway.outbox.record import BLOCK, end
from gateway.outbox.segments import Segment, write_all

_MOST_BUFFERS = 1023  # one less than IOV_MAX of Linux, for what is in memory goes along
_SHORT = 64 << 10  # bytes of a piece; to digest many that are shorter takes twice as long as to join them first
_LOOK_EVERY = 64 << 20  # bytes between looks at the room that is left
_SMALL = 128 << 10  # bytes of a file that waits in memory to be written along with others


class Incoming:
    """Receive one Part 10 file; what is not committed is discarded at the end of the `with`.

    `size` is what has come of the whole file, `expected` how long it may become, both in bytes; the data set begins
    at `offset`. A small one stays in memory, one that is longer goes to a segment as it comes, which `take` gives; it
    can be read at any time. `on_end` is told when another may use the segment.
    """

    __slots__ = (
        "_begin",
        "_digest",
        "_held",
        "_look_at",
        "_on_end",
        "_ours",
        "_room",
        "_segment",
        "_take",
        "expected",
        "id",
        "offset",
        "peer",
        "size",
    )

    def __init__(
        self,
        identifier: int,
        header: bytes,
        *,
        peer: str,
        expected: int,
        take: Callable[[], Segment],
        room: Callable[["Incoming"], None],
        on_end: Callable[["Incoming", Segment | None], None],
    ) -> None:
        self.id = identifier
        self.peer = peer
        self.expected = expected
        self.offset = len(header)
        self.size = len(header)
        self._held = bytearray(header)
        self._segment: Segment | None = None
        self._begin = 0
        self._take = take
        self._room = room
        self._on_end = on_end
        self._look_at = _LOOK_EVERY
        self._ours = True
        self._digest = Digest(len(header))

    def write(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Append a piece of the data set; the buffers may be reused after the return.

        Raises SpoolFull when the disk or a limit is full, SpoolBroken when the disk fails; then it is discarded.
        """
        if len(buffers) > 1 and (len(buffers[0]) < _SHORT or len(buffers) > _MOST_BUFFERS):
            buffers = (b"".join(buffers),)
        self._digest.update(buffers)
        if self._segment is None and self.size + sum(map(len, buffers)) <= _SMALL:
            for buffer in buffers:
                self._held += buffer
            self.size = len(self._held)
            return
        segment = self._append(buffers)
        try:
            segment.trail.wrote(self._begin + self.size)
            self._digest.written(self.size, segment.path, self._begin)
        except OSError as error:
            self.discard()
            raise spool_error(error) from error
        if self.size >= self._look_at:
            self._look_at = self.size + _LOOK_EVERY
            self._look()

    @property
    def name(self) -> str:
        """Return the id as the log has it."""
        return f"{self.id:016x}"

    @property
    def small(self) -> bytearray | None:
        """Return the whole file when it is in memory."""
        return self._held if self._segment is None else None

    @property
    def place(self) -> tuple[int, int]:
        """Return the segment's number, and where in it the record begins; raises SpoolFull, SpoolBroken."""
        return self._in_segment().number, self._begin - BLOCK

    @property
    def extent(self) -> Extent:
        """Return where in a segment the bytes are that have come; raises SpoolFull, SpoolBroken."""
        return Extent(Path(self._in_segment().path), self.size, self._begin)

    @property
    def digest(self) -> bytes:
        """Return BLAKE3 over the data set, which is complete; raises SpoolBroken."""
        try:
            return self._digest.value()
        except OSError as error:
            raise spool_error(error) from error

    def open(self) -> BinaryIO:
        """Open the file to read; raises OSError."""
        return BytesIO(self._held) if self._segment is None else self.extent.open()

    def data_set(self) -> BinaryIO:
        """Do so at the beginning of the data set."""
        stream = self.open()
        stream.seek(self.offset)
        return stream

    def seal(self, head: bytes) -> None:
        """Write the record's head and bring all of it to the disk; raises SpoolFull or SpoolBroken."""
        segment = self._in_segment()
        try:
            os.pwrite(segment.descriptor, head, self._begin - BLOCK)
            segment.sync(end(self._begin - BLOCK, self.size))
        except OSError as error:
            raise spool_error(error) from error

    def discard(self) -> None:
        """Drop what was received, unless the outbox has taken it; a second call does nothing."""
        self._digest.end()
        if not self._ours:
            return
        self._ours = False
        if self._segment is not None:
            self._segment.cut()
        self._on_end(self, self._segment)

    def given(self) -> None:
        """Take note that the outbox has it now."""
        self._ours = False
        if self._segment is not None:
            self._segment.end = end(self._begin - BLOCK, self.size)
        self._on_end(self, self._segment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _in_segment(self) -> Segment:
        """Give the segment that it is in; one that is in memory goes there now."""
        return self._segment or self._append(())

    def _append(self, buffers: tuple[bytes | bytearray | memoryview, ...]) -> Segment:
        """Write to the segment, first what is in memory."""
        segment = self._segment
        if segment is None:
            segment = self._segment = self._take()
            self._begin = segment.end + BLOCK
            buffers = (self._held, *buffers)
            self._held, self.size = bytearray(), 0
        wanted = sum(map(len, buffers))
        try:
            written = os.pwritev(segment.descriptor, buffers, self._begin + self.size)
            self.size += written
            if written < wanted:
                rest = memoryview(b"".join(buffers))[written:]
                self.size += write_all(segment.descriptor, rest, self._begin + self.size)
        except OSError as error:
            self.discard()
            raise spool_error(error) from error
        return segment

    def _look(self) -> None:
        try:
            self._room(self)
        except GatewayError:
            self.discard()
            raise
