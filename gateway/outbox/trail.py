"""Follow who writes a long file: what was written goes to the disk while more comes, and leaves memory behind it.

An outage writes more than a machine has memory, to be read an hour later; in a virtual machine each page that the
page cache grows by may cost ten times what it costs to write it, for its host has to find the page first.
"""

import os

from gateway.outbox.linux import begin_write_back, finish_write_back

STEP = 16 << 20
"""Bytes between two steps; up to three of them stay in memory, for delivery often follows at once."""


class Trail:
    """Keep what lies behind the end of a file off the page cache; it does not replace a sync."""

    __slots__ = ("_begun", "_descriptor", "_left")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = self._left = 0

    def wrote(self, until: int) -> None:
        """Begin to write back what was written up to there, and drop what is far behind it; raises OSError."""
        if until - self._begun >= STEP:
            begin_write_back(self._descriptor, self._begun, until - self._begun)
            self._begun = until
            # From the last sync on, not only the latest: overlayfs does not wait, and has the rest next time.
            self._drop(until - 2 * STEP)

    def synced(self, until: int) -> None:
        """Take note that all is on the disk, and that the next byte goes there; raises OSError."""
        self._begun = until
        self._left = min(self._left, until)  # something longer was cut off
        if until - self._left >= 2 * STEP:
            self._drop(until - STEP)
            self._left = until - STEP

    def end(self) -> None:
        """Drop the rest of what is on the disk; raises OSError."""
        os.posix_fadvise(self._descriptor, self._left, 0, os.POSIX_FADV_DONTNEED)

    def _drop(self, until: int) -> None:
        if until > self._left:
            finish_write_back(self._descriptor, self._left, until - self._left)
            os.posix_fadvise(self._descriptor, self._left, until - self._left, os.POSIX_FADV_DONTNEED)
