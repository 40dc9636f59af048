"""Hold instances on their way: small ones in memory, a bounded number of them, all others in the spool's files."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from gateway.errors import GatewayError, SpoolBroken

_SMALL = 1 << 20  # bytes; to make, write, read and remove a file takes as long as to send a CT slice
_MOST_SMALL = 48  # in memory at a time, of all retrieves of a process


class Content(Protocol):
    """Hold the bytes of one instance."""

    size: int
    data: bytes | None
    """The bytes, when they are in memory."""

    def open(self) -> BinaryIO:
        """Open it for reading."""

    def put(self, path: Path) -> None:
        """Make another file of it; raises OSError."""

    def discard(self) -> None:
        """Let go of it; a second call does nothing."""


class InFile:
    """Hold an instance in a file of its own."""

    data: bytes | None = None

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._path = path

    def open(self) -> BinaryIO:
        """Open the file."""
        return self._path.open("rb")

    def put(self, path: Path) -> None:
        """Give the file another name; raises OSError."""
        path.hardlink_to(self._path)

    def discard(self) -> None:
        """Remove the file; a second call does nothing."""
        self._path.unlink(missing_ok=True)


class InMemory:
    """Hold an instance in memory."""

    def __init__(self, data: bytes, places: threading.Semaphore) -> None:
        self.size = len(data)
        self.data: bytes | None = data
        self._places = places

    def open(self) -> BinaryIO:
        """Give a stream of the bytes."""
        return io.BytesIO(self.data or b"")

    def put(self, path: Path) -> None:
        """Write the bytes to a file; raises OSError."""
        with path.open("xb", buffering=0) as file:
            file.write(self.data or b"")

    def discard(self) -> None:
        """Free the memory; a second call does nothing."""
        if self.data is not None:
            self.data = None
            self._places.release()


def places() -> threading.Semaphore:
    """Make the places for what all retrieves of a process hold in memory."""
    return threading.Semaphore(_MOST_SMALL)


class Scratch:
    """Take instances in for one retrieve; `name` gives a file's name that is not taken."""

    def __init__(self, name: Callable[[], Path], places: threading.Semaphore) -> None:
        self.name = name
        self._places = places

    def take(self, chunks: Iterable[bytes]) -> Content:
        """Keep what comes; raises what the iteration raises, SpoolBroken, and leaves nothing behind then."""
        arriving, head, size = iter(chunks), list[bytes](), 0
        for chunk in arriving:
            head.append(chunk)
            size += len(chunk)
            if size > _SMALL:
                break
        if size <= _SMALL and self._places.acquire(blocking=False):
            return InMemory(b"".join(head), self._places)

        def write(file: BinaryIO) -> None:
            file.writelines(head)
            head.clear()
            file.writelines(arriving)

        return self.write(write)

    def write(self, write: Callable[[BinaryIO], None]) -> Content:
        """Let `write` fill a file; raises what it raises, SpoolBroken, and leaves nothing behind then."""
        path = self.name()
        try:
            with path.open("xb") as file:
                write(file)
                return InFile(path, file.tell())
        except (GatewayError, OSError) as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise SpoolBroken(f"the instance cannot be spooled: {error.strerror}") from error
            raise
