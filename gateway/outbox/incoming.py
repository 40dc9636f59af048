"""A file that is being received: written as it comes, digested on the way, then committed or discarded."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway.errors import GatewayError
from gateway.outbox.digest import LONG, Digest
from gateway.outbox.faults import spool_error
from gateway.outbox.writeback import start_writing

_MOST_BUFFERS = 1024  # IOV_MAX of Linux
_LOOK_EVERY = 64 << 20  # bytes between looks at the room that is left


class Incoming:
    """Receive one Part 10 file into the spool; what is not committed is discarded at the end of the `with`.

    `size` is what was written of the whole file, `expected` how long it may become, both in bytes; the data set
    begins at `offset`. `path` can be read at any time: nothing is buffered here.
    """

    __slots__ = (
        "_descriptor",
        "_digest",
        "_look_at",
        "_name",
        "_on_end",
        "_ours",
        "_room",
        "expected",
        "offset",
        "peer",
        "size",
    )

    def __init__(
        self,
        path: str,
        header: bytes,
        *,
        peer: str,
        expected: int,
        room: Callable[["Incoming"], None],
        on_end: Callable[["Incoming"], None],
    ) -> None:
        self._name = path  # a text: to make a Path of it takes longer than to open it
        self.peer = peer
        self.expected = expected
        self.offset = len(header)
        self.size = 0
        self._room = room
        self._on_end = on_end
        self._look_at = _LOOK_EVERY
        self._ours = True
        self._digest = Digest(path, len(header))
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise spool_error(error) from error
        self._append([header])

    def write(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Append a piece of the data set; the buffers may be reused after the return.

        Raises SpoolFull when the disk or a limit is full, SpoolBroken when the disk fails; then it is discarded.
        """
        for start in range(0, len(buffers), _MOST_BUFFERS):
            self._append(buffers[start : start + _MOST_BUFFERS])
        if self.size < LONG:  # a longer one would only be slowed down: the kernel begins with it by itself
            start_writing(self._descriptor)
        self._digest.update(buffers)
        try:
            self._digest.written(self.size)
        except OSError as error:
            self.discard()
            raise spool_error(error) from error
        if self.size >= self._look_at:
            self._look_at = self.size + _LOOK_EVERY
            self._look()

    @property
    def path(self) -> Path:
        """Return where the file is now."""
        return Path(self._name)

    @property
    def name(self) -> str:
        """Return the file's name without its folder."""
        return self._name.rpartition("/")[2]

    @property
    def digest(self) -> bytes:
        """Return SHA-256 over the data set, which is complete; raises SpoolBroken."""
        try:
            return self._digest.value()
        except OSError as error:
            raise spool_error(error) from error

    def data_set(self) -> BinaryIO:
        """Open the file to read, at the beginning of the data set; raises OSError."""
        stream = open(self._name, "rb")  # noqa: PTH123, SIM115 - the caller closes it
        stream.seek(self.offset)
        return stream

    def close(self) -> None:
        """End the writing without a sync, for a file that is uploaded before it is acknowledged."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def seal(self, path: str) -> None:
        """Move the file to its place and bring its bytes to the disk; raises SpoolFull or SpoolBroken.

        In this order, for the sync of a new file brings its name along on most file systems, and a file in place
        without a row is only a stray.
        """
        try:
            os.rename(self._name, path)  # noqa: PTH104 - see `_name`
            self._name = path
            os.fsync(self._descriptor)
            self.close()
        except OSError as error:
            raise spool_error(error) from error

    def discard(self) -> None:
        """Remove the file, unless the outbox has taken it; a second call does nothing."""
        self.close()
        self._digest.end()
        if self._ours:
            with suppress(FileNotFoundError):
                os.unlink(self._name)  # noqa: PTH108
            self.given()

    def given(self) -> None:
        """Take note that the outbox has the file now."""
        self._ours = False
        self._on_end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _append(self, buffers: "tuple[bytes | bytearray | memoryview, ...] | list[bytes]") -> None:
        wanted = sum(map(len, buffers))
        try:
            written = os.writev(self._descriptor, buffers)
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
            written = os.write(self._descriptor, rest)
            self.size += written
            rest = rest[written:]
