"""An instance that is being received: written as it comes, digested on the way, then committed or discarded."""

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway.errors import GatewayError
from gateway.extent import Extent
from gateway.outbox.digest import Digest
from gateway.outbox.faults import spool_error
from gateway.outbox.record import BLOCK, end
from gateway.outbox.segments import Segment

_MOST_BUFFERS = 1024  # IOV_MAX of Linux
_LOOK_EVERY = 64 << 20  # bytes between looks at the room that is left


class Incoming:
    """Receive one Part 10 file into a segment; what is not committed is discarded at the end of the `with`.

    `size` is what was written of the whole file, `expected` how long it may become, both in bytes; the data set
    begins at `offset`. It can be read at any time: nothing is buffered here. `on_end` is told when another may use
    the segment.
    """

    __slots__ = (
        "_begin",
        "_digest",
        "_look_at",
        "_on_end",
        "_ours",
        "_room",
        "_segment",
        "expected",
        "id",
        "offset",
        "peer",
        "size",
    )

    def __init__(
        self,
        identifier: int,
        segment: Segment,
        header: bytes,
        *,
        peer: str,
        expected: int,
        room: Callable[["Incoming"], None],
        on_end: Callable[["Incoming", Segment], None],
    ) -> None:
        self.id = identifier
        self.peer = peer
        self.expected = expected
        self.offset = len(header)
        self.size = 0
        self._segment = segment
        self._begin = segment.end + BLOCK
        self._room = room
        self._on_end = on_end
        self._look_at = _LOOK_EVERY
        self._ours = True
        self._digest = Digest(segment.path, self._begin + len(header))
        self._append([header])

    def write(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Append a piece of the data set; the buffers may be reused after the return.

        Raises SpoolFull when the disk or a limit is full, SpoolBroken when the disk fails; then it is discarded.
        """
        for start in range(0, len(buffers), _MOST_BUFFERS):
            self._append(buffers[start : start + _MOST_BUFFERS])
        self._digest.update(buffers)
        try:
            self._digest.written(self._begin + self.size)
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
    def place(self) -> tuple[int, int]:
        """Return the segment's number, and where in it the record begins."""
        return self._segment.number, self._begin - BLOCK

    @property
    def extent(self) -> Extent:
        """Return where the bytes are that have been written."""
        return Extent(Path(self._segment.path), self.size, self._begin)

    @property
    def digest(self) -> bytes:
        """Return SHA-256 over the data set, which is complete; raises SpoolBroken."""
        try:
            return self._digest.value()
        except OSError as error:
            raise spool_error(error) from error

    def data_set(self) -> BinaryIO:
        """Open the file to read, at the beginning of the data set; raises OSError."""
        stream = self.extent.open()
        stream.seek(self.offset)
        return stream

    def seal(self, head: bytes) -> None:
        """Write the record's head and bring all of it to the disk; raises SpoolFull or SpoolBroken."""
        try:
            os.pwrite(self._segment.descriptor, head, self._begin - BLOCK)
            os.fdatasync(self._segment.descriptor)
        except OSError as error:
            raise spool_error(error) from error

    def discard(self) -> None:
        """Drop what was received, unless the outbox has taken it; a second call does nothing."""
        self._digest.end()
        if not self._ours:
            return
        self._ours = False
        self._segment.cut()
        self._on_end(self, self._segment)

    def given(self) -> None:
        """Take note that the outbox has it now."""
        self._ours = False
        self._segment.end = end(self._begin - BLOCK, self.size)
        self._on_end(self, self._segment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _append(self, buffers: "tuple[bytes | bytearray | memoryview, ...] | list[bytes]") -> None:
        wanted = sum(map(len, buffers))
        try:
            written = os.pwritev(self._segment.descriptor, buffers, self._begin + self.size)
            self.size += written
            if written < wanted:
                self._append_rest(memoryview(b"".join(buffers))[written:])
        except OSError as error:
            self.discard()
            raise spool_error(error) from error

    def _look(self) -> None:
        try:
            self._room(self)
        except GatewayError:
            self.discard()
            raise

    def _append_rest(self, rest: memoryview) -> None:
        while rest:
            written = os.pwrite(self._segment.descriptor, rest, self._begin + self.size)
            self.size += written
            rest = rest[written:]
