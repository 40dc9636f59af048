"""The digest of a file that is being written: at once, or for a long file by a thread that reads after the writer."""

import hashlib
import os
import threading
from collections.abc import Callable
from typing import BinaryIO

from blake3 import blake3

LONG = 16 << 20
"""Bytes from which a file is long: a thread is worth its start."""

_PIECE = 1 << 20
_KIND = b"3"  # in front of a digest: that of version 1 is a bare SHA-256, which took as long as all else of 512 KiB


def digest_of(stream: BinaryIO) -> bytes:
    """Compute the digest of what is left of a stream; raises OSError."""
    return _KIND + _summed(blake3(), stream)


def is_same(known: bytes, digest: bytes, stream: Callable[[], BinaryIO]) -> bool:
    """Tell whether a digest that the outbox knows is that of a data set, of which `stream` gives the bytes."""
    if known.startswith(_KIND) and len(known) == len(digest):
        return known == digest
    with stream() as data_set:  # it came before this version did
        return _summed(hashlib.sha256(), data_set) == known


def _summed(found: "blake3 | hashlib._Hash", stream: BinaryIO) -> bytes:
    while piece := stream.read(_PIECE):
        found.update(piece)
    return found.digest()


class Digest:
    """Compute BLAKE3 over what follows the first `offset` bytes of a Part 10 file.

    To digest takes as long as to write; of a long one both cores together take what one alone does not.
    """

    __slots__ = ("_at", "_follower", "_offset", "_sum")

    def __init__(self, offset: int) -> None:
        self._sum = blake3()
        self._offset = self._at = offset
        self._follower: _Follower | None = None

    def update(self, buffers: tuple[bytes | bytearray | memoryview, ...]) -> None:
        """Take what is to be written next; once the file is long it is read from there, after `written`."""
        if self._follower is None:
            for buffer in buffers:
                self._sum.update(buffer)
                self._at += len(buffer)

    def written(self, size: int, path: str, begin: int) -> None:
        """Take note that so many bytes are in a file from `begin` on; raises OSError when it cannot be opened."""
        if self._follower is None:
            if self._at - self._offset < LONG:
                return
            self._follower = _Follower(self._sum, path, begin, self._at)
        self._follower.go_on(size)

    def end(self) -> None:
        """Give up what has not been digested yet."""
        if self._follower is not None:
            self._follower.give_up()

    def value(self) -> bytes:
        """Give the digest of all that was written; raises OSError when the file could not be read."""
        if self._follower is not None:
            self._follower.finish()
        return _KIND + self._sum.digest()


class _Follower:
    """Digest a file on a thread of its own, as far as it has been written; raises OSError."""

    def __init__(self, found: blake3, path: str, begin: int, at: int) -> None:
        self._sum = found
        self._begin = begin
        self._at = self._written = at
        self._ended = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._follow, args=(descriptor,), name="digest", daemon=True)
        self._thread.start()

    def go_on(self, size: int) -> None:
        with self._changed:
            self._written = size
            self._changed.notify()

    def give_up(self) -> None:
        with self._changed:
            self._ended, self._written = True, self._at
            self._changed.notify()

    def finish(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _follow(self, descriptor: int) -> None:
        try:
            while size := self._next():
                piece = os.pread(descriptor, min(size, _PIECE), self._begin + self._at)
                if not piece:
                    raise OSError(0, "the file has become shorter")
                self._sum.update(piece)
                self._at += len(piece)
        except OSError as error:
            self._error = error
        finally:
            os.close(descriptor)

    def _next(self) -> int:
        """Wait for bytes to digest; count them, 0 when no more will come."""
        with self._changed:
            while self._written <= self._at and not self._ended:
                self._changed.wait()
            return max(0, self._written - self._at)
