"""Have the kernel write a file to the disk while its writer does something else."""

import ctypes

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writing(descriptor: int) -> None:
    """Begin to write what was written to the file so far, and do not wait for it.

    Nothing is promised by it, not even that it began: a sync has to follow, which then has less to wait for, and
    which reports what went wrong here.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _WRITE)
