"""Retrieve what the archive does not have yet: instances that wait in the outbox."""

import os

from gateway.dimse.expansion import Target
from gateway.dimse.scratch import Content, InFile, Scratch
from gateway.errors import SpoolBroken
from gateway.outbox import Entry


def waiting(entry: Entry) -> Target:
    """Name an instance that waits in the outbox."""
    return Target(entry.study, entry.series, entry.sop_class, entry.sop_instance, entry.path)


def take_waiting(target: Target, scratch: Scratch) -> Content | None:
    """Give the waiting instance under another name, so that its delivery leaves it; None when it was delivered."""
    if target.waiting is None:
        return None
    path = scratch.name()
    try:
        os.link(target.waiting, path)
        return InFile(path, path.stat().st_size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolBroken(f"an instance of the outbox cannot be read: {error.strerror}") from error
