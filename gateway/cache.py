"""Keep what was fetched from an archive for a while, so that it is not fetched again for the next destination.

All processes of a gateway share one folder. The name of a file says which instance it is, its mtime when it was
fetched; files are renamed into place, and who takes one gets a link of its own, so that no eviction breaks a sending.
The bytes are the archive's and can be fetched again: nothing is synced, and the folder begins empty.

The file `state` holds the bytes in the folder and a table of marks. Who changes an instance in the archive changes
its mark: what somebody began to fetch before that, and may be the former bytes, is not kept then.
"""

import fcntl
import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import structlog

log = structlog.get_logger("gateway.cache")

Observe = Callable[[str, int], None]
"""Is told `hit` or `miss`, and the bytes of the instance."""

Uids = tuple[str, str, str]
"""Study, Series and SOP Instance UID."""

_STATE, _NEW = "state", "new-"
_TOTAL = struct.Struct("=Q")
_MARKS, _MARK = 8192, 4  # how many, bytes of each; who shares one with another is fetched again at worst
_LENGTH = _TOTAL.size + _MARKS * _MARK
_DIGEST = 8  # bytes for each of an instance's three UIDs
_WHOLE = 3 * 2 * _DIGEST  # characters in the name of an instance; a series' or a study's is shorter
_LEAST = 1 << 16  # bytes that a file counts at least, which bounds their number
_TICK, _SWEEP = 1.0, 60.0  # seconds between two looks at the disk, and at what is too old
_DISTANCE = 64 << 20  # bytes that stay free below the high-water mark, or a sixteenth of a small disk


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Empty the folder of what a former gateway left, and at the end; where there is no room, it is not used."""
    try:
        _empty(folder)
        folder.mkdir(mode=0o700)
        with (folder / _STATE).open("xb") as state:
            os.posix_fallocate(state.fileno(), 0, _LENGTH)
    except OSError as error:
        log.warning("retrieved instances are not kept", folder=str(folder), reason=error.strerror)
        with suppress(OSError):
            (folder / _STATE).unlink()
    try:
        yield
    finally:
        try:
            _empty(folder)
        except OSError as error:
            log.warning("retrieved instances are left", folder=str(folder), reason=error.strerror)


def _empty(folder: Path) -> None:
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


class Cache:
    """Bound the folder by `size` in bytes, by age in `seconds` and by the disk; safe from any thread.

    Above `high_water` (share of the disk used) nothing is kept and all is given up: to receive comes first.
    """

    def __init__(self, folder: Path, size: int, seconds: float, *, high_water: float = 1.0) -> None:
        self.folder = folder
        self.size = size if (folder / _STATE).exists() else 0
        self._seconds = seconds
        self._high_water = high_water
        self._numbers = itertools.count()

    def new(self) -> Path:
        """Name a file that is to be filled and renamed; what is left of it is removed like all others."""
        return self.folder / f"{_NEW}{os.getpid()}-{next(self._numbers)}"

    def is_fresh(self, fetched: float) -> bool:
        """Say whether what was fetched then (s since 1970) may be used."""
        return 0 <= time.time() - fetched < self._seconds

    def admits(self, size: int) -> bool:
        """Say whether there may be room for a file of so many bytes; raises OSError."""
        if max(size, _LEAST) > self.size // 2:
            return False
        spare, distance = self._spare()
        return spare - size >= distance

    def give_way(self) -> bool:
        """Remove all at once; say whether there was anything. What is being sent is sent."""
        try:
            with self._locked() as state:
                had = _TOTAL.unpack(os.pread(state, _TOTAL.size, 0))[0]
                if had:
                    os.pwrite(state, _TOTAL.pack(self._sweep(0)), 0)
                return bool(had)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("retrieved instances cannot be removed", reason=error.strerror)
            return False

    @contextmanager
    def tended(self) -> Iterator[None]:
        """Remove meanwhile what is too old, and all when the disk gets full; one process of a gateway does."""
        over = threading.Event()
        thread = threading.Thread(target=self._tend, args=(over,), name="cache", daemon=True)
        if (self.folder / _STATE).exists():
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join()

    def marks(self) -> bytes:
        """Give the marks of all instances; raises OSError."""
        with self._opened() as state:
            return os.pread(state, _MARKS * _MARK, _TOTAL.size)

    def place(self, new: Path, name: str, marks: bytes) -> None:
        """Make room for a new file and give it its name; unless that instance's mark is another now than in `marks`.

        Raises OSError.
        """
        at, size = _slot(name) * _MARK, max(new.stat().st_size, _LEAST)
        with self._locked() as state:
            if os.pread(state, _MARK, _TOTAL.size + at) != marks[at : at + _MARK]:
                return
            total = _TOTAL.unpack(os.pread(state, _TOTAL.size, 0))[0]
            if total + size > self.size:
                total = self._sweep(self.size - self.size // 8 - size)
            os.pwrite(state, _TOTAL.pack(total + size), 0)
            new.rename(self.folder / name)

    def withdraw(self, names: Collection[str]) -> None:
        """Change the marks of instances and remove them; the beginning of a name stands for all; raises OSError."""
        with self._locked() as state:
            is_empty = not _TOTAL.unpack(os.pread(state, _TOTAL.size, 0))[0]
            for name in names:
                at, count = (_slot(name), 1) if len(name) == _WHOLE else (0, _MARKS)
                try:
                    os.pwrite(state, os.urandom(count * _MARK), _TOTAL.size + at * _MARK)
                finally:
                    if not is_empty:
                        self._remove(name)

    def _tend(self, over: threading.Event) -> None:
        every = min(_SWEEP, self._seconds / 8)
        swept = 0.0
        while not over.wait(min(_TICK, every)):
            try:
                spare, distance = self._spare()
                crowded = spare < distance // 2
                if not crowded and time.monotonic() - swept < every:
                    continue
                with self._locked() as state:
                    os.pwrite(state, _TOTAL.pack(self._sweep(0 if crowded else self.size)), 0)
                swept = time.monotonic()
            except OSError as error:
                log.error("retrieved instances cannot be looked through", reason=error.strerror)

    def _spare(self) -> tuple[int, int]:
        """Give the bytes up to the high-water mark, and how many of them are not for us."""
        disk = os.statvfs(self.folder)
        length = disk.f_blocks * disk.f_frsize
        spare = disk.f_bavail * disk.f_frsize - int((1 - self._high_water) * length)
        return spare, min(_DISTANCE, length // 16)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.folder / _STATE, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self._opened() as state:  # its closing ends the lock
            fcntl.flock(state, fcntl.LOCK_EX)
            yield state

    def _remove(self, name: str) -> None:
        for path in (self.folder / name,) if len(name) == _WHOLE else self.folder.glob(f"{name}*"):
            path.unlink(missing_ok=True)

    def _sweep(self, most: int) -> int:
        """Remove what is too old, then the oldest beyond `most` bytes; give the bytes left. For who has the lock.

        Files that have no name yet do not count; whoever fills them counts them when he places them.
        """
        found: list[tuple[float, int, str]] = []
        with os.scandir(self.folder) as items:
            for item in items:
                if item.name == _STATE:
                    continue
                with suppress(FileNotFoundError):  # placed or given up meanwhile
                    status = item.stat()
                    found.append((status.st_mtime, max(status.st_size, _LEAST), item.name))
        left = 0
        for fetched, size, name in sorted(found, reverse=True):
            counts = 0 if name.startswith(_NEW) else size
            if left + counts <= most and self.is_fresh(fetched):
                left += counts
            else:
                (self.folder / name).unlink(missing_ok=True)
        return left


class RecentObjects:
    """Keep the instances of one archive in a cache; safe from any thread, no method raises.

    An instance is named by the UIDs of its study, its series and itself.
    """

    def __init__(self, cache: Cache, archive: str, observe: Observe = lambda _outcome, _size: None) -> None:
        self._cache = cache
        self._archive = archive
        self._observe = observe

    def has(self, uids: Uids) -> bool:
        """Say whether an instance is here, now."""
        if not self._cache.size:
            return False
        try:
            return self._cache.is_fresh(self._path(uids).stat().st_mtime)
        except OSError:
            return False

    def has_any(self, study: str) -> bool:
        """Say whether an instance of a study is here; this looks at the name of everything that is kept."""
        if not self._cache.size:
            return False
        name = self._name(study)
        try:
            with os.scandir(self._cache.folder) as items:
                return any(item.name.startswith(name) for item in items)
        except OSError:
            return False

    def take(self, uids: Uids, path: Path) -> int | None:
        """Give an instance another name, `path`, and say its bytes; None when it is not here or too old."""
        if not self._cache.size:
            return None
        try:
            path.hardlink_to(self._path(uids))
            status = path.stat()
            if self._cache.is_fresh(status.st_mtime):
                self._observe("hit", status.st_size)
                return status.st_size
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("a retrieved instance is fetched again", instance=uids[2], reason=error.strerror)
        return None

    def mark(self) -> bytes:
        """Give what `keep` needs from the time before the request."""
        try:
            return self._cache.marks() if self._cache.size else b""
        except OSError as error:
            log.warning("retrieved instances are not kept", reason=error.strerror)
            return b""

    def keep(self, uids: Uids, size: int, put: Callable[[Path], None], mark: bytes) -> None:
        """Let `put` make the file of an instance that was fetched, unless it may have been changed since `mark`."""
        if not self._cache.size:
            return
        self._observe("miss", size)
        try:
            if not mark or not self._cache.admits(size):
                return
            new = self._cache.new()
            try:
                put(new)
                self._cache.place(new, self._name(*uids), mark)
            finally:
                new.unlink(missing_ok=True)
        except FileNotFoundError:
            pass  # the folder was removed
        except OSError as error:
            log.warning("a retrieved instance is not kept", instance=uids[2], reason=error.strerror)

    def forget(self, changed: Iterable[Sequence[str]]) -> None:
        """Take note that instances, whole series or whole studies may have been changed in the archive."""
        names = {self._name(*filter(None, uids)): uids for uids in changed}
        try:
            self._cache.withdraw(names)
        except FileNotFoundError:
            pass  # nothing is kept
        except OSError as error:
            studies = " ".join({uids[0] for uids in names.values()})
            log.error("changed instances may be sent as they were", studies=studies, reason=error.strerror)

    def _path(self, uids: Uids) -> Path:
        return self._cache.folder / self._name(*uids)

    def _name(self, *uids: str) -> str:
        """Name an instance's file by a digest for each of its UIDs; with fewer, give the beginning of the name."""
        return "".join(_digest(self._archive, *uids[:depth]) for depth in range(1, len(uids) + 1))


@lru_cache(maxsize=1024)  # those of a study and a series are asked for with each of their instances
def _digest(*names: str) -> str:
    return blake2b("\0".join(names).encode(), digest_size=_DIGEST).hexdigest()


def _slot(name: str) -> int:
    return int(name[-8:], 16) % _MARKS
