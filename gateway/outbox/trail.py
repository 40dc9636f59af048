"""Follow who writes a long file: what was written goes to the disk while more comes, and leaves memory behind it.

An outage writes more than a machine has memory, to be read an hour later; in a virtual machine each page that the
page cache grows by may cost ten times what it costs to write it, for its host has to find the page first.
"""

import ctypes
import errno
import os

STEP = 16 << 20
"""Bytes between two steps; up to three of them stay in memory, for delivery often follows at once."""

_BEGIN, _FINISH = 2, 1 | 2 | 4  # SYNC_FILE_RANGE_*: write; wait before, write, wait after
_CANNOT = frozenset((errno.ENOSYS, errno.EOPNOTSUPP))
_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Trail:
    """Keep what lies behind the end of a file off the page cache; it does not replace a sync."""

    __slots__ = ("_begun", "_descriptor", "_left")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = self._left = 0

    def wrote(self, until: int) -> None:
        """Begin to write back what was written up to there, and drop what is far behind it; raises OSError."""
        if until - self._begun >= STEP:
            _write_back(self._descriptor, self._begun, until, _BEGIN)
            self._begun = until
            self._leave(until - 2 * STEP)

    def synced(self, until: int) -> None:
        """Take note that all is on the disk, and that the next byte goes there; raises OSError."""
        self._begun = until
        self._left = min(self._left, until)  # something longer was cut off
        self._leave(until - STEP)

    def end(self) -> None:
        """Drop the rest of what is on the disk; raises OSError."""
        os.posix_fadvise(self._descriptor, self._left, 0, os.POSIX_FADV_DONTNEED)

    def _leave(self, until: int) -> None:
        if until - self._left >= STEP:
            _write_back(self._descriptor, self._left, until, _FINISH)
            os.posix_fadvise(self._descriptor, self._left, until - self._left, os.POSIX_FADV_DONTNEED)
            self._left = until


def _write_back(descriptor: int, begin: int, until: int, how: int) -> None:
    """Call sync_file_range; what it reports the next fdatasync of this descriptor does not report any more."""
    if _sync_file_range(descriptor, begin, until - begin, how):
        number = ctypes.get_errno()
        if number not in _CANNOT:
            raise OSError(number, os.strerror(number))
