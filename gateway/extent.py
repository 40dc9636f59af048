"""Name the bytes of an instance: a file of its own, or a part of one that holds many."""

import fcntl
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LOCK = struct.Struct("hhqqi4x")  # struct flock of Linux with 64 bits: type, whence, start, length, process


class Part(io.RawIOBase):
    """Read a part of a file as if it were one: `size` bytes from `start` on. Takes the descriptor over."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self.start = start
        self.size = size
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any position can be read next."""
        return True

    def fileno(self) -> int:
        """Give the descriptor of the whole file."""
        return self._descriptor

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill a buffer as far as there is anything left; raises OSError."""
        with memoryview(buffer) as view:
            wanted = view[: max(0, self.size - self._at)]
            count = os.preadv(self._descriptor, [wanted], self.start + self._at) if wanted else 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position and give it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Give the position."""
        return self._at

    def close(self) -> None:
        """Close the file, and let go of the part."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@dataclass(frozen=True, slots=True)
class Extent:
    """Name `size` bytes of a file from `start` on.

    `mark` is what stands `lead` bytes before them for as long as they are there; without one they are the whole file.
    """

    path: Path
    size: int
    start: int = 0
    mark: bytes = b""
    lead: int = 0

    @classmethod
    def of(cls, path: Path) -> "Extent":
        """Name a whole file; raises OSError."""
        return cls(path, path.stat().st_size)

    def raw(self) -> Part:
        """Open the bytes to read without a buffer; nobody gives their room back while they are open.

        Raises FileNotFoundError when that was done before, and OSError.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if self.mark:
                keep(descriptor, self.start - self.lead, self.size + self.lead)
                if os.pread(descriptor, len(self.mark), self.start - self.lead) != self.mark:
                    raise FileNotFoundError(2, "the instance is not there any more", str(self.path))
        except BaseException:
            os.close(descriptor)
            raise
        return Part(descriptor, self.start, self.size)

    def open(self) -> BinaryIO:
        """Do the same with a buffer."""
        return buffered(self.raw())

    def exists(self) -> bool:
        """Tell whether the bytes are there, or may be: what the disk cannot read just now."""
        try:
            self.raw().close()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True


def buffered(part: Part) -> BinaryIO:
    """Put a buffer in front of a part, which it closes with it."""
    return io.BufferedReader(part)  # type: ignore[type-var]  # its stubs know no RawIOBase of others


# Locks belong to the open file: those of a process would not part its threads.


def keep(descriptor: int, start: int, size: int) -> None:
    """Keep `take` off some bytes until the file is closed; raises OSError."""
    # It waits only while somebody who has taken them gives their room back.
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, size, 0))


def take(descriptor: int, start: int, size: int) -> bool:
    """Keep others off some bytes until the file is closed; False when somebody else has any. Raises OSError."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, size, 0))
    except BlockingIOError:
        return False
    return True
