"""Calls of Linux that Python's library lacks; where the system or the file system has none, nothing happens.

All raise OSError for what else fails.
"""

import ctypes
import errno
import os

_CANNOT = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))
_PUNCH_HOLE, _KEEP_SIZE = 2, 1  # FALLOC_FL_*
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # SYNC_FILE_RANGE_*

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate, _sync_file_range = _libc.fallocate, _libc.sync_file_range
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def punch_hole(descriptor: int, begin: int, length: int) -> None:
    """Give the room of some bytes back; they read as zeros."""
    _insist(_fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, begin, length))


def begin_write_back(descriptor: int, begin: int, length: int) -> None:
    """Have the kernel begin to bring some bytes to the disk; what is told here, the next fdatasync may not tell."""
    _insist(_sync_file_range(descriptor, begin, length, _WRITE))


def finish_write_back(descriptor: int, begin: int, length: int) -> None:
    """Wait until they are there, which is no sync: the file's length and the disk's cache are left out."""
    _insist(_sync_file_range(descriptor, begin, length, _WAIT_BEFORE | _WRITE | _WAIT_AFTER))


def _insist(failed: int) -> None:
    if failed and (number := ctypes.get_errno()) not in _CANNOT:
        raise OSError(number, os.strerror(number))
